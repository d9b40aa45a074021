"""Drivers of programs that ask for a raw response and read its lines themselves, for the conformance suite."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import anthropic
import openai

from anthropic_drivers import MessagesDriver
from openai_drivers import ChatDriver

DATA = "data: "
LINES_LATE = "bytes are decoded on the writer's thread: that the answer is complete is known a moment later"


class Lines:
    """The lines of a response that hold data, for a loop: one an event."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._lines: Iterator[str] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._lines is None:
            self._lines = self._response.iter_lines()
        while not (line := next(self._lines)).startswith(DATA):
            pass
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()


class AsyncLines:
    """The same for an asynchronous response."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._lines: AsyncIterator[str] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._lines is None:
            self._lines = self._response.aiter_lines()
        while not (line := await anext(self._lines)).startswith(DATA):
            pass
        return line

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._response.aclose()


def lines(sent: Any) -> Any:
    """The lines of a raw response, or an awaitable of them."""

    async def awaited() -> AsyncLines:
        return AsyncLines((await sent).http_response)

    return awaited() if hasattr(sent, "__await__") else Lines(sent.http_response)


def json_of(line: str) -> dict[str, Any]:
    """The JSON object that a line of data holds; empty at the end of the stream."""
    data = line.removeprefix(DATA)
    return {} if data == "[DONE]" else json.loads(data)


class ChatLinesDriver(ChatDriver):
    def client(self, url: str, asynchronous: bool) -> Any:
        return super().client(url, asynchronous).with_options(http_client=http_client(openai, asynchronous))

    def text(self, chunk: Any) -> str:
        choices = json_of(chunk).get("choices")
        return (choices[0]["delta"].get("content") or "") if choices else ""

    def send(self, client: Any, prompt: str | None = None, **options: Any) -> Any:
        return lines(super().send(client, prompt, **options))

    def create(self, client: Any) -> Any:
        return client.chat.completions.with_raw_response.create


class MessagesLinesDriver(MessagesDriver):
    def client(self, url: str, asynchronous: bool) -> Any:
        return super().client(url, asynchronous).with_options(http_client=http_client(anthropic, asynchronous))

    def text(self, chunk: Any) -> str:
        return json_of(chunk).get("delta", {}).get("text") or ""

    def send(self, client: Any, prompt: str | None = None) -> Any:
        return lines(super().send(client, prompt))

    def create(self, client: Any) -> Any:
        return client.messages.with_raw_response.create


def http_client(sdk: Any, asynchronous: bool) -> Any:
    """A client with which each read brings one event, as over a connection on which they are far apart.

    What several events bring in one read is on the tape when the first of their lines is read, so without this the
    suite could not say how many there are when it stops reading.
    """
    http: Any = sys.modules[sdk.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
    one_by_one = type("OneByOne", (OneByOne, http.SyncByteStream, http.AsyncByteStream), {})

    class Transport(http.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            response = super().handle_request(request)
            response.stream = one_by_one(response.stream)
            return response

    class AsyncTransport(http.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            response.stream = one_by_one(response.stream)
            return response

    if asynchronous:
        return sdk.DefaultAsyncHttpxClient(transport=AsyncTransport())
    return sdk.DefaultHttpxClient(transport=Transport())


class OneByOne:
    """A body in pieces of one event, however the network cut it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            yield from self._events(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            for event in self._events(data):
                yield event

    def _events(self, data: bytes) -> list[bytes]:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return [event + b"\n\n" for event in events]

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()
