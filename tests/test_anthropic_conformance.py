"""The Anthropic adapter passes the suite that every adapter must pass, for messages and for their beta."""

from __future__ import annotations

import pytest

from anthropic_drivers import BetaMessagesDriver, MessagesDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance from outside")


class TestMessages(AdapterConformance):
    driver = MessagesDriver()


class TestBetaMessages(AdapterConformance):
    driver = BetaMessagesDriver()
