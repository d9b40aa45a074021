"""Every way in which a program can stream from the OpenAI SDK, each as one coroutine for its two kinds of clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openai

from tokentape.testing import ProviderServer
from tokentape.testing.rig import resolved

MODEL = "gpt-x"
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Surface:
    """One way to stream.

    Attributes:
        read: reads a whole answer with the client it is given; what the program saw.
        azure: whether the client is Azure's.
    """

    name: str
    operation: str
    read: Callable[[Any], Awaitable[list[Any]]]
    azure: bool = False


def client_for(server: ProviderServer, asynchronous: bool, azure: bool = False, **options: Any) -> Any:
    """A client of that server."""
    if azure:
        kind = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
        return kind(azure_endpoint=server.origin, api_key="none", api_version="2026-01-01", max_retries=0)
    plain = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return plain(**{"base_url": server.url, "api_key": "none", "max_retries": 0} | options)


def use(client: Any, body: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a coroutine over a client returns; run on an event loop for an asynchronous one, else straight through."""

    async def whole() -> Any:
        try:
            return await body(client)
        finally:
            await resolved(client.close())

    if isinstance(client, openai.AsyncOpenAI):
        return asyncio.run(whole())
    try:
        whole().send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a synchronous client had something awaited")


async def drain(stream: Any) -> list[Any]:
    """Everything a stream of either kind yields."""
    if hasattr(stream, "__aiter__"):
        return [chunk async for chunk in stream]
    return list(stream)


@asynccontextmanager
async def opened(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager of either kind."""
    if hasattr(manager, "__aenter__"):
        async with manager as entered:
            yield entered
    else:
        with manager as entered:
            yield entered


def chat(create: Any) -> Any:
    """A streamed chat completion by this form of `create`."""
    return create(model=MODEL, messages=MESSAGES, stream=True)


def responses(create: Any) -> Any:
    """A streamed response by this form of `create`."""
    return create(model=MODEL, input="hi", stream=True)


def completion(create: Any) -> Any:
    """A streamed legacy completion by this form of `create`."""
    return create(model=MODEL, prompt="hi", stream=True)


async def _direct(sent: Any) -> list[Any]:
    return await drain(await resolved(sent))


async def _raw(sent: Any) -> list[Any]:
    return await drain(await resolved((await resolved(sent)).parse()))


async def _streaming(manager: Any) -> list[Any]:
    async with opened(manager) as response:
        return await drain(await resolved(response.parse()))


async def _helper(manager: Any) -> list[Any]:
    async with opened(manager) as stream:
        return await drain(stream)


SURFACES = (
    Surface("chat.create", "chat", lambda c: _direct(chat(c.chat.completions.create))),
    Surface("chat.stream", "chat", lambda c: _helper(c.chat.completions.stream(model=MODEL, messages=MESSAGES))),
    Surface("chat.raw", "chat", lambda c: _raw(chat(c.chat.completions.with_raw_response.create))),
    Surface("chat.streaming", "chat", lambda c: _streaming(chat(c.chat.completions.with_streaming_response.create))),
    Surface("chat.azure", "chat", lambda c: _direct(chat(c.chat.completions.create)), azure=True),
    Surface("completions.create", "text_completion", lambda c: _direct(completion(c.completions.create))),
    Surface("completions.raw", "text_completion", lambda c: _raw(completion(c.completions.with_raw_response.create))),
    Surface("responses.create", "responses", lambda c: _direct(responses(c.responses.create))),
    Surface("responses.stream", "responses", lambda c: _helper(c.responses.stream(model=MODEL, input="hi"))),
    Surface("responses.raw", "responses", lambda c: _raw(responses(c.responses.with_raw_response.create))),
    Surface(
        "responses.streaming", "responses", lambda c: _streaming(responses(c.responses.with_streaming_response.create))
    ),
    Surface("responses.retrieve", "responses", lambda c: _direct(c.responses.retrieve("resp_1", stream=True))),
    Surface(
        "responses.stream(id)",
        "responses",
        lambda c: _helper(c.responses.stream(response_id="resp_1", starting_after=2)),
    ),
    Surface("responses.azure", "responses", lambda c: _direct(responses(c.responses.create)), azure=True),
)
