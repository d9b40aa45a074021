"""The OpenAI adapter passes the suite that every adapter must pass, in each of the SDK's three wire formats."""

from __future__ import annotations

import pytest

from openai_drivers import ChatDriver, CompletionsDriver, ResponsesDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")


class TestChat(AdapterConformance):
    driver = ChatDriver()


class TestResponses(AdapterConformance):
    driver = ResponsesDriver()


class TestCompletions(AdapterConformance):
    driver = CompletionsDriver()
