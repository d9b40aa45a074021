"""Uses of an SDK's clients, each written once for its two kinds."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import tokentape
from tokentape.testing.rig import resolved


@dataclass(frozen=True)
class Surface:
    """One way to stream.

    Attributes:
        operation: what it asks for, as the tape calls it.
        read: reads a whole answer with the client it is given; what the program saw.
        provider: who answers, as the tape calls it.
        cloud: whose client it is; empty for the SDK's own.
    """

    name: str
    operation: str
    read: Callable[[Any], Awaitable[list[Any]]]
    provider: str
    cloud: str = ""


def use(client: Any, body: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a coroutine over a client returns; run on an event loop for an asynchronous one, else straight through."""

    async def whole() -> Any:
        try:
            return await body(client)
        finally:
            await resolved(client.close())

    if inspect.iscoroutinefunction(client.close):
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


async def direct(sent: Any) -> list[Any]:
    """What the stream that `create` returns yields."""
    return await drain(await resolved(sent))


async def raw(sent: Any) -> list[Any]:
    """What the stream of a raw response yields."""
    return await drain(await resolved((await resolved(sent)).parse()))


async def streaming(manager: Any) -> list[Any]:
    """What the stream of a streaming response yields."""
    async with opened(manager) as response:
        return await drain(await resolved(response.parse()))


async def lines(manager: Any) -> list[Any]:
    """What stands in the lines of a streaming response that the program reads itself; pings are left out."""
    async with opened(manager) as response:
        data = [line.partition("data: ")[2] for line in await drain(response.iter_lines())]
    parse = json.JSONDecoder(object_hook=lambda fields: SimpleNamespace(**fields)).decode
    return [parse(said) for said in data if said not in ("", "[DONE]", '{"type":"ping"}')]


async def helper(manager: Any) -> list[Any]:
    """What the SDK's own `stream()` yields."""
    async with opened(manager) as stream:
        return await drain(stream)


def failure(client: Any, body: Callable[[Any], Awaitable[Any]]) -> Any:
    """Type, words and origin of what the program gets."""
    with pytest.raises(BaseException) as caught:  # whatever it is, it is compared
        use(client, body)
    error = caught.value
    return type(error), str(error), type(error.__cause__), type(error.__context__)


def same_failure(make: Callable[[], Any], body: Callable[[Any], Awaitable[Any]]) -> Any:
    """The type of a recorded request's failure; the same request, recording being off, fails alike."""
    recorded = failure(make(), body)
    assert tokentape.flush(10)
    tokentape.disable()
    assert failure(make(), body) == recorded
    return recorded[0]
