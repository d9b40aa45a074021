"""The OpenAI adapter passes the suite that every adapter must pass, in each wire format of the SDK, and with lines."""

from __future__ import annotations

import pytest

from line_drivers import ChatLinesDriver
from openai_drivers import ChatDriver, CompletionsDriver, ResponsesDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")


class TestChat(AdapterConformance):
    driver = ChatDriver()


class TestChatLines(AdapterConformance):
    driver = ChatLinesDriver()


class TestResponses(AdapterConformance):
    driver = ResponsesDriver()


class TestCompletions(AdapterConformance):
    driver = CompletionsDriver()
