"""The Anthropic adapter passes the suite that every adapter must pass, for messages, their beta, and their lines."""

from __future__ import annotations

from typing import ClassVar

import pytest

from anthropic_drivers import BetaMessagesDriver, MessagesDriver
from line_drivers import LINES_LATE, MessagesLinesDriver
from tokentape.testing.conformance import AdapterConformance, FormatConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")


class TestMessages(AdapterConformance):
    """Anthropic, messages."""

    driver = MessagesDriver()


class TestMessagesLines(FormatConformance):
    """Anthropic, lines of messages."""

    driver = MessagesLinesDriver()
    not_possible: ClassVar = {"test_left_after_the_answer_was_complete": LINES_LATE}


class TestBetaMessages(FormatConformance):
    """Anthropic, beta messages."""

    driver = BetaMessagesDriver()
