"""Drivers of the Anthropic SDK for the conformance suite, one an API."""

from __future__ import annotations

import ssl
from typing import Any

import anthropic

from hostile_chunks import MESSAGES

# Read once: for a client of its own it takes longer than most tests.
CERTIFICATES = ssl.create_default_context()


class MessagesDriver:
    model = "claude-x"
    kinds = frozenset({"text", "reasoning", "tool_args"})
    options = frozenset({"prompt"})
    hostile = MESSAGES

    def client(self, url: str, asynchronous: bool) -> Any:
        kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
        http = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient
        own = {"http_client": http(verify=CERTIFICATES)}
        return kind(base_url=url.removesuffix("/v1"), api_key="none", max_retries=1, **own)

    def close_client(self, client: Any) -> Any:
        return client.close()

    def text(self, chunk: Any) -> str:
        return getattr(getattr(chunk, "delta", None), "text", None) or ""

    def send(self, client: Any, prompt: str | None = None) -> Any:
        messages = [] if prompt is None else [{"role": "user", "content": prompt}]
        return self.create(client)(model=self.model, max_tokens=100, messages=messages, stream=True)

    def create(self, client: Any) -> Any:
        return client.messages.create


class BetaMessagesDriver(MessagesDriver):
    def create(self, client: Any) -> Any:
        return client.beta.messages.create
