"""The real SDKs, answered from memory: no network, and where that is wanted no parsing either."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from types import ModuleType
from typing import Any

import anthropic
import openai
from anthropic.types import RawMessageStreamEvent
from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

URL = "http://memory.invalid/v1"
DISTINCT = 8
CLIENTS = {openai: (openai.OpenAI, openai.AsyncOpenAI), anthropic: (anthropic.Anthropic, anthropic.AsyncAnthropic)}


def chat_frame(number: int) -> dict[str, Any]:
    """A chunk of a chat completion, with the fields that OpenAI sends today."""
    return {
        "id": "chatcmpl-C0ffee",
        "object": "chat.completion.chunk",
        "created": 1_764_000_000,
        "model": "gpt-x-2026-08-01",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": {"content": f" tok{number}"}, "logprobs": None, "finish_reason": None}],
        "usage": None,
        "obfuscation": "Xy3pQ9",
    }


def responses_frame(number: int) -> dict[str, Any]:
    """A text event of the Responses API."""
    return {
        "type": "response.output_text.delta",
        "sequence_number": number,
        "item_id": "msg_0123456789",
        "output_index": 0,
        "content_index": 0,
        "delta": f" tok{number}",
        "logprobs": [],
        "obfuscation": "Xy3pQ9",
    }


def chat_chunks() -> list[Any]:
    """Chunks of a chat completion, made as the SDK makes them."""
    return [construct_type(type_=ChatCompletionChunk, value=chat_frame(i)) for i in range(DISTINCT)]


def responses_events() -> list[Any]:
    """Text events of the Responses API, made as the SDK makes them."""
    return [construct_type(type_=ResponseStreamEvent, value=responses_frame(i)) for i in range(DISTINCT)]


def messages_frame(number: int) -> dict[str, Any]:
    """A text event of Anthropic's messages."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" tok{number}"}}


def messages_events() -> list[Any]:
    """Text events of Anthropic's messages, made as the SDK makes them."""
    from anthropic._models import construct_type

    return [construct_type(type_=RawMessageStreamEvent, value=messages_frame(i)) for i in range(DISTINCT)]


def client(frames: int = 0, sdk: ModuleType = openai) -> Any:
    """A client whose answers are so many text chunks."""
    return CLIENTS[sdk][0](api_key="none", base_url=URL, http_client=http_client(frames, sdk))


def async_client(frames: int = 0, sdk: ModuleType = openai) -> Any:
    """An asynchronous client whose answers are so many text chunks."""
    return CLIENTS[sdk][1](api_key="none", base_url=URL, http_client=async_http_client(frames, sdk))


def http_client(frames: int, sdk: ModuleType = openai) -> Any:
    """What an SDK's client sends with, answered with so many text chunks of its first format."""
    transport = _http(sdk).MockTransport(lambda request: _answer(sdk, _bytes(sdk, frames)))
    return sdk.DefaultHttpxClient(transport=transport)


def async_http_client(frames: int, sdk: ModuleType = openai) -> Any:
    """The same for an asynchronous client."""
    transport = _http(sdk).MockTransport(lambda request: _answer(sdk, _async_bytes(sdk, frames)))
    return sdk.DefaultAsyncHttpxClient(transport=transport)


def chat(of: Any) -> Any:
    """Ask for a streamed chat completion: the SDK's stream, or an awaitable of it."""
    return of.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "Hi"}], stream=True)


def responses(of: Any) -> Any:
    """Ask for a streamed response: the SDK's stream, or an awaitable of it."""
    return of.responses.create(model="gpt-x", input="Hi", stream=True)


def messages(of: Any) -> Any:
    """Ask for a streamed message: the SDK's stream, or an awaitable of it."""
    return of.messages.create(model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=True)


@contextmanager
def prebuilt(objects: list[Any], count: int, sdk: ModuleType = openai) -> Iterator[None]:
    """Have the SDK's streams hand over these objects, again and again, in place of parsing what came.

    Enter it before recording begins: the adapter then wraps this in place of the SDK's own method, which is put back
    when recording has ended.
    """

    def stream(self: Any) -> Iterator[Any]:
        try:
            yield from islice(cycle(objects), count)
        finally:
            self.response.close()

    async def async_stream(self: Any) -> AsyncIterator[Any]:
        try:
            for item in islice(cycle(objects), count):
                yield item
        finally:
            await self.response.aclose()

    originals = sdk.Stream.__stream__, sdk.AsyncStream.__stream__
    sdk.Stream.__stream__, sdk.AsyncStream.__stream__ = stream, async_stream
    try:
        yield
    finally:
        sdk.Stream.__stream__, sdk.AsyncStream.__stream__ = originals


def _http(sdk: ModuleType) -> ModuleType:
    """The library the SDK is built on, httpx or httpx2."""
    return importlib.import_module(sdk.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])


def _answer(sdk: ModuleType, body: Any) -> Any:
    return _http(sdk).Response(200, headers={"content-type": "text/event-stream"}, content=body)


def _bytes(sdk: ModuleType, frames: int) -> Iterator[bytes]:
    frame_of = {openai: chat_frame, anthropic: messages_frame}[sdk]
    for number in range(frames):
        frame = frame_of(number)
        # Anthropic's SDK goes by the event's name, which OpenAI's chat completions have none of.
        name = f"event: {frame['type']}\n" if "type" in frame else ""
        yield f"{name}data: {json.dumps(frame)}\n\n".encode()
    if sdk is openai:
        yield b"data: [DONE]\n\n"


async def _async_bytes(sdk: ModuleType, frames: int) -> AsyncIterator[bytes]:
    for piece in _bytes(sdk, frames):
        yield piece
