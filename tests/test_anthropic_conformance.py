"""The Anthropic adapter passes the suite that every adapter must pass, for messages, their beta, and their lines."""

from __future__ import annotations

import pytest

from anthropic_drivers import BetaMessagesDriver, MessagesDriver
from line_drivers import MessagesLinesDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")


class TestMessages(AdapterConformance):
    driver = MessagesDriver()


class TestMessagesLines(AdapterConformance):
    driver = MessagesLinesDriver()


class TestBetaMessages(AdapterConformance):
    driver = BetaMessagesDriver()
