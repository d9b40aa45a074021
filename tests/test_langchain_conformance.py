"""The LangChain adapter passes the suite that every adapter must pass, as far as LangChain's callbacks go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from langchain_drivers import LangChainDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")

GENERATOR = "a LangChain stream is a generator, which is no context manager"
LAZY = "a LangChain stream sends its request with the first chunk that is asked for"
CALLBACKS = "a callback says when a chunk came, not when it was asked for"
RETRIES = "retries happen in the SDK beneath, which LangChain's callbacks do not see"


class TestLangChain(AdapterConformance):
    driver = LangChainDriver()
    plugins = ("langchain",)
    not_possible: ClassVar = {
        "test_left_by_break_inside_with": GENERATOR,
        "test_exception_in_the_loop_body": GENERATOR,
        "test_never_read_and_dropped": LAZY,
        "test_never_read_when_recording_stops": LAZY,
        "test_a_refused_request_is_a_row": LAZY,
        "test_waiting_and_holding_are_told_apart": CALLBACKS,
        "test_a_stall_of_the_provider": CALLBACKS,
        "test_a_stall_of_the_program": CALLBACKS,
        "test_a_stall_of_the_event_loop": CALLBACKS,
        "test_silence_before_the_connection_drops": CALLBACKS,
        "test_silence_before_the_first_event": CALLBACKS,
        "test_a_refused_attempt_is_no_slow_model": RETRIES,
    }
