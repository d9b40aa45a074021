"""Drivers of the Anthropic SDK for the conformance suite, one an API."""

from __future__ import annotations

from typing import Any

import anthropic


class MessagesDriver:
    model = "claude-x"
    kinds = frozenset({"text", "reasoning", "tool_args"})

    def client(self, url: str, asynchronous: bool) -> Any:
        kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
        return kind(base_url=url.removesuffix("/v1"), api_key="none", max_retries=1)

    def close_client(self, client: Any) -> Any:
        return client.close()

    def text(self, chunk: Any) -> str:
        return getattr(getattr(chunk, "delta", None), "text", None) or ""

    def send(self, client: Any) -> Any:
        return client.messages.create(model=self.model, max_tokens=100, messages=[], stream=True)


class BetaMessagesDriver(MessagesDriver):
    def send(self, client: Any) -> Any:
        return client.beta.messages.create(model=self.model, max_tokens=100, messages=[], stream=True)
