"""Drivers of programs that ask for a raw response and read its lines themselves, one an SDK, for the conformance suite."""

from __future__ import annotations

import json
from typing import Any, Self

from anthropic_drivers import MessagesDriver
from openai_drivers import ChatDriver
from tokentape.testing.rig import resolved


class Lines:
    """Non-empty lines of a response, for a loop of either kind; owns nothing but the response."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._lines: Any = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._lines is None:
            self._lines = self._response.iter_lines()
        return next(line for line in self._lines if line)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._lines is None:
            self._lines = self._response.aiter_lines()
        while not (line := await anext(self._lines)):
            pass
        return line

    def close(self) -> Any:
        """What closes the response; to be awaited where it is asynchronous."""
        return self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()


class AsyncLines(Lines):
    """The asynchronous kind."""

    async def close(self) -> None:
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()


def json_of(line: str) -> Any:
    """The JSON object in a line, if it is one of data."""
    data = line.removeprefix("data: ")
    return json.loads(data) if data != line and data != "[DONE]" else {}


async def lines_of(sent: Any) -> Lines:
    raw = await sent
    return AsyncLines(raw.http_response)


class ChatLinesDriver(ChatDriver):
    def text(self, chunk: Any) -> str:
        choices = json_of(chunk).get("choices")
        return (choices[0]["delta"].get("content") or "") if choices else ""

    def send(self, client: Any) -> Any:
        sent = client.chat.completions.with_raw_response.create(model=self.model, messages=[], stream=True)
        return lines_of(sent) if hasattr(sent, "__await__") else Lines(sent.http_response)


class MessagesLinesDriver(MessagesDriver):
    def text(self, chunk: Any) -> str:
        return json_of(chunk).get("delta", {}).get("text") or ""

    def send(self, client: Any) -> Any:
        sent = client.messages.with_raw_response.create(model=self.model, max_tokens=9, messages=[], stream=True)
        return lines_of(sent) if hasattr(sent, "__await__") else Lines(sent.http_response)
