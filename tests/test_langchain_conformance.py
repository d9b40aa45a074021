"""The LangChain adapter passes the suite that every adapter must pass, as far as LangChain's callbacks go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from langchain_drivers import LangChainDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")


class TestLangChain(AdapterConformance):
    """LangChain."""

    driver = LangChainDriver()
    plugins = ("langchain",)
    not_possible: ClassVar = {}
