"""The OpenAI adapter passes the suite that every adapter must pass, in each wire format of the SDK, and with lines."""

from __future__ import annotations

from typing import ClassVar

import pytest

from line_drivers import LINES_LATE, ChatLinesDriver
from openai_drivers import ChatDriver, CompletionsDriver, ResponsesDriver
from tokentape.testing.conformance import AdapterConformance, FormatConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")


class TestChat(AdapterConformance):
    """OpenAI, chat completions."""

    driver = ChatDriver()


class TestChatLines(FormatConformance):
    """OpenAI, lines of chat completions."""

    driver = ChatLinesDriver()
    not_possible: ClassVar = {"test_left_after_the_answer_was_complete": LINES_LATE}


class TestResponses(FormatConformance):
    """OpenAI, Responses."""

    driver = ResponsesDriver()


class TestCompletions(FormatConformance):
    """OpenAI, legacy completions."""

    driver = CompletionsDriver()
