"""The LangChain adapter passes the suite that every adapter must pass, as far as LangChain's callbacks go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from langchain_drivers import LangChainDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")

ELSEWHERE = "LangChain tells of a closed asynchronous stream in a task of its own, which nobody has cancelled"
ADDS_UP = "LangChain adds up the usage that an answer's chunks tell, and integrations count on it"


class TestLangChain(AdapterConformance):
    """LangChain."""

    driver = LangChainDriver()
    plugins = ("langchain",)
    not_possible: ClassVar = {
        "test_usage_that_is_told_again_is_not_added_up": ADDS_UP,
        "test_task_is_cancelled_in_the_loop_body": ELSEWHERE,
    }
