"""A made-up SDK: two clients that retry when they are told to wait, and the streams of their answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import httpx

__version__ = "1.2.0"

Chunk = dict[str, Any]


class AcmeError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class Client:
    def __init__(self, url: str, retries: int = 1) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._retries = retries

    def ask(self, model: str) -> Stream:
        return Stream(self._send({"model": model, "stream": True}))

    def close(self) -> None:
        self._http.close()

    def _send(self, body: dict[str, Any]) -> httpx.Response:
        for left in reversed(range(1 + self._retries)):
            response = self._attempt(body)
            if response.is_success:
                break
            response.close()
            time.sleep(_pause(response, left))
        return response

    def _attempt(self, body: dict[str, Any]) -> httpx.Response:
        return self._http.send(self._http.build_request("POST", "/ask", json=body), stream=True)


class AsyncClient:
    def __init__(self, url: str, retries: int = 1) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._retries = retries

    async def ask(self, model: str) -> AsyncStream:
        return AsyncStream(await self._send({"model": model, "stream": True}))

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, body: dict[str, Any]) -> httpx.Response:
        for left in reversed(range(1 + self._retries)):
            response = await self._attempt(body)
            if response.is_success:
                break
            await response.aclose()
            await asyncio.sleep(_pause(response, left))
        return response

    async def _attempt(self, body: dict[str, Any]) -> httpx.Response:
        return await self._http.send(self._http.build_request("POST", "/ask", json=body), stream=True)


class Stream:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()

    def _read(self) -> Iterator[Chunk]:
        for line in self.response.iter_lines():
            if line:
                yield json.loads(line)


class AsyncStream:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = self._read()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.response.aclose()

    async def _read(self) -> AsyncIterator[Chunk]:
        async for line in self.response.aiter_lines():
            if line:
                yield json.loads(line)


def _pause(response: httpx.Response, left: int) -> float:
    """Seconds until the next attempt."""
    if response.status_code != 429 or not left:
        raise AcmeError(response.status_code)
    return float(response.headers["retry-after"])
