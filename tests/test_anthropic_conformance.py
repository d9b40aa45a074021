"""The Anthropic adapter passes the suite that every adapter must pass, for messages and for their beta."""

from __future__ import annotations

import pytest

from anthropic_drivers import BetaMessagesDriver, MessagesDriver
from tokentape.testing.conformance import AdapterConformance, FormatConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")


class TestMessages(AdapterConformance):
    """Anthropic, messages."""

    driver = MessagesDriver()


class TestBetaMessages(FormatConformance):
    """Anthropic, beta messages."""

    driver = BetaMessagesDriver()
