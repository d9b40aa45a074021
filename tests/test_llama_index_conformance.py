"""The LlamaIndex adapter passes the suite that every adapter must pass, as far as LlamaIndex's events go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llama_index_drivers import LlamaIndexDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")

SWALLOWS = "LlamaIndex swallows whatever a handler raises"
NO_PATCH = "nothing of LlamaIndex is patched: it has a place for handlers"


class TestLlamaIndex(AdapterConformance):
    """LlamaIndex."""

    driver = LlamaIndexDriver()
    plugins = ("llama-index",)
    not_possible: ClassVar = {
        "test_strict_mode_raises_a_fault_to_the_program": SWALLOWS,
        "test_another_tool_on_top_works_on_after_recording_stops": NO_PATCH,
        "test_another_tool_below_is_put_back_when_recording_stops": NO_PATCH,
        "test_a_target_that_is_missing_is_named_and_the_others_are_patched": NO_PATCH,
    }
