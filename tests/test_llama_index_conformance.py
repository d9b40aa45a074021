"""The LlamaIndex adapter passes the suite that every adapter must pass, as far as LlamaIndex's events go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llama_index_drivers import LlamaIndexDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")

GENERATOR = "a LlamaIndex stream is a generator, which is no context manager"
LAZY = "a LlamaIndex stream sends its request with the first chunk that is asked for"
EVENTS = "an event says when a chunk came, not when it was asked for"
RETRIES = "retries happen in the SDK beneath, which LlamaIndex's events do not see"


class TestLlamaIndex(AdapterConformance):
    driver = LlamaIndexDriver()
    plugins = ("llama-index",)
    not_possible: ClassVar = {
        "test_left_by_break_inside_with": GENERATOR,
        "test_exception_in_the_loop_body": GENERATOR,
        "test_a_refused_request_is_a_row": LAZY,
        "test_waiting_and_holding_are_told_apart": EVENTS,
        "test_a_stall_of_the_provider": EVENTS,
        "test_a_stall_of_the_program": EVENTS,
        "test_a_stall_of_the_event_loop": EVENTS,
        "test_silence_before_the_connection_drops": EVENTS,
        "test_silence_before_the_first_event": EVENTS,
        "test_a_refused_attempt_is_no_slow_model": RETRIES,
    }
