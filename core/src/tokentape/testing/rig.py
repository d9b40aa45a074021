"""One bench for both ways of using an SDK: a provider server, a fresh tape, and streams driven synchronously or not."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import tokentape

from .server import ProviderServer
from .wire import WIRES

T = TypeVar("T")
END: Final = object()


class Driver(Protocol):
    """Drives one SDK. One with a wire format of its own brings that too, as `wires`: see `tokentape.testing.wire.base`.

    Attributes:
        model: the model it asks for.
        kinds: what the SDK can stream, of `text`, `reasoning`, `tool_args`, `refusal`.
    """

    model: str
    kinds: frozenset[str]

    def client(self, url: str, asynchronous: bool) -> Any:
        """Make a client of the server at this URL that retries once."""

    def send(self, client: Any) -> Any:
        """Ask for a streamed answer; the stream, or an awaitable of it."""

    def text(self, chunk: Any) -> str:
        """The text that a chunk adds to the answer; empty for any other chunk."""

    def close_client(self, client: Any) -> Any:
        """Release the client's connections."""


class Rig:
    """Server, tape and driver of one test, in one of the two modes.

    Attributes:
        db: the tape.
        asynchronous: which of the two modes.
    """

    def __init__(self, driver: Driver, db: Path, asynchronous: bool) -> None:
        self.driver = driver
        self.db = db
        self.asynchronous = asynchronous
        self.server = ProviderServer(getattr(driver, "wires", WIRES))
        self._client: Any = None

    @contextmanager
    def running(self, **settings: Any) -> Iterator[Rig]:
        """Serve and record, until the block is left."""
        with self.server:
            tokentape.enable(db=self.db, flush_ms=20, **settings)
            try:
                yield self
            finally:
                tokentape.disable()

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run a scenario: on an event loop, or straight through, since a synchronous one never has to wait."""
        if self.asynchronous:
            return asyncio.run(scenario)
        try:
            scenario.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            scenario.close()
        raise RuntimeError("a synchronous scenario awaited something")

    async def send(self) -> Any:
        """Send the driver's request; the SDK's own stream object."""
        self._client = self._client or self.driver.client(self.server.url, self.asynchronous)
        return await resolved(self.driver.send(self._client))

    async def next(self, stream: Any) -> Any:
        """The next chunk, or `END`."""
        return await anext(stream, END) if self.asynchronous else next(stream, END)

    async def read(self, stream: Any, limit: int | None = None) -> list[Any]:
        """Chunks as a loop over the stream sees them.

        Args:
            stream: the SDK's own.
            limit: the loop is left after so many chunks with text; None reads to the end.
        """
        chunks: list[Any] = []
        if limit == 0:
            return chunks
        if self.asynchronous:
            async for chunk in stream:
                if self._is_last(chunk, chunks, limit):
                    break
        else:
            for chunk in stream:
                if self._is_last(chunk, chunks, limit):
                    break
        return chunks

    def _is_last(self, chunk: Any, chunks: list[Any], limit: int | None) -> bool:
        chunks.append(chunk)
        return limit is not None and sum(bool(self.driver.text(c)) for c in chunks) == limit

    async def close(self, stream: Any) -> None:
        """Close a stream as its user would; an asynchronous generator has another name for it."""
        await resolved((stream.close if hasattr(stream, "close") else stream.aclose)())

    async def pause(self, seconds: float) -> None:
        """Let time pass in the program's own code without blocking an event loop."""
        if self.asynchronous:
            await asyncio.sleep(seconds)
        else:
            import time

            time.sleep(seconds)  # noqa: ASYNC251  # in this mode there is no event loop

    async def collect(self) -> None:
        """Have everything that was dropped collected; an event loop needs turns of its own for that."""
        for _ in range(3):
            gc.collect()
            if self.asynchronous:
                await asyncio.sleep(0.01)

    async def finish(self) -> None:
        """Release the client."""
        if self._client is not None:
            await resolved(self.driver.close_client(self._client))
            self._client = None

    def calls(self) -> list[dict[str, Any]]:
        """All rows of `llm_calls`, oldest first."""
        return self.rows("select * from llm_calls order by id")

    def call(self) -> dict[str, Any]:
        """The only row of `llm_calls`."""
        (row,) = self.calls()
        return row

    def tokens(self) -> list[dict[str, Any]]:
        """All rows of `token_timeline`, with the kind of each event, in order."""
        return self.rows("select * from token_timeline order by call_id, token_index")

    def text(self, kind: str = "text") -> str:
        """The events of one kind, joined."""
        return "".join(row["token"] for row in self.tokens() if row["kind"] == kind)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a query finds on the tape, once everything recorded so far is there."""
        import sqlite_utils

        if not tokentape.flush(10):
            raise AssertionError(f"not everything reached the tape: {tokentape.status()}")
        db = sqlite_utils.Database(self.db)
        try:
            return list(db.query(sql))
        finally:
            db.close()


async def resolved(value: Any) -> Any:
    """The value itself, or what it turns out to be once awaited."""
    return await value if inspect.isawaitable(value) else value
