"""One bench for both ways of using an SDK: a provider server, a fresh tape, and streams driven synchronously or not."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import tokentape
from tokentape.store.schema import open_for_writing

from .driver import Driver, Traits
from .server import ProviderServer

T = TypeVar("T")
END: Final = object()


class Rig:
    """Server, tape and driver of one test, in one of the two modes.

    Attributes:
        driver: which SDK, and what is to be known of it.
        db: the tape.
        asynchronous: which of the two modes.
        server: answers the driver.
    """

    def __init__(self, driver: Driver, db: Path, asynchronous: bool) -> None:
        self.driver = driver
        self.traits = Traits.of(driver)
        self.db = db
        self.asynchronous = asynchronous
        self.server = ProviderServer(self.traits.wires)
        self._client: Any = None
        self._settings: dict[str, Any] = {}
        self._heard = _Listener()

    @contextmanager
    def running(self, **settings: Any) -> Iterator[Rig]:
        """Serve and record, until the block is left."""
        self._settings = {"flush_ms": 20, **settings}
        root = logging.getLogger()
        root.addHandler(self._heard)
        # What a test drops is collected where it says so: not on whatever thread, for an event loop cannot always close
        # what is found on another one's. What is there already is not looked through each time.
        gc.disable()
        gc.freeze()
        try:
            self._begin()
            yield self
        finally:
            self._end()
            gc.unfreeze()
            gc.enable()
            root.removeHandler(self._heard)

    def renew(self) -> None:
        """Begin anew, with an empty tape and a server that nobody has asked."""
        self._end()
        self.complaints()
        self.db = self.db.with_stem(f"{self.db.stem}-again")
        self.server = ProviderServer(self.traits.wires)
        self._begin()

    def _begin(self) -> None:
        self.db.touch(mode=0o600)
        self.db.write_bytes(_empty_tape())
        self.server.start()
        self.record()

    def _end(self) -> None:
        tokentape.disable()
        self.server.close()

    def record(self, **settings: Any) -> None:
        """Record anew, as the rig does but for these settings."""
        tokentape.disable()
        tokentape.enable(**{"db": self.db, **self._settings, **settings})

    @asynccontextmanager
    async def unrecorded(self) -> AsyncIterator[Rig]:
        """Stop recording; the same driver, and a server that nobody has asked before."""
        tokentape.disable()
        twin = Rig(self.driver, self.db, self.asynchronous)
        with twin.server:
            try:
                yield twin
            finally:
                await twin.finish()

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

    def client(self) -> Any:
        """The driver's client of the server, made when it is first asked for."""
        self._client = self._client or self.driver.client(self.server.url, self.asynchronous)
        return self._client

    async def send(self, **options: Any) -> Any:
        """Send the driver's request; the SDK's own stream object.

        Args:
            **options: of those that the driver's `send` takes.
        """
        return await resolved(self.driver.send(self.client(), **options))

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

    @asynccontextmanager
    async def inside(self, stream: Any) -> AsyncIterator[Any]:
        """The block that a careful program reads a stream in: its own, or one that closes a bare generator."""
        if self.asynchronous:
            async with aclosing(stream) if self.traits.is_generator else stream as entered:
                yield entered
        else:
            with closing(stream) if self.traits.is_generator else stream as entered:
                yield entered

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
            client, self._client = self._client, None
            await resolved(self.driver.close_client(client))

    def complaints(self) -> list[str]:
        """What anybody has logged since this was last asked: warnings, and of our own loggers whatever is not debug."""
        said, self._heard.said = self._heard.said, []
        return said

    def sent(self) -> list[Any]:
        """What the server has received, but for its own address."""
        return [
            (r.method, r.path, dict(r.query), {**r.headers, "host": ""}, r.body) for r in list(self.server.requests)
        ]

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

    def parts(self) -> list[dict[str, Any]]:
        """All rows of `llm_parts`, with the name of each kind, in order."""
        joined = "select p.*, k.name as kind from llm_parts p join token_kinds k on k.id = p.kind_id"
        return self.rows(f"{joined} order by call_id, part")

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


@cache
def _empty_tape() -> bytes:
    """A tape without rows: making its tables takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tape.db"
        open_for_writing(path).close()
        return path.read_bytes()


class _Listener(logging.Handler):
    """Keeps what is logged and is worth a look."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.partition(".")[0] == "tokentape"
        if record.levelno >= (logging.INFO if ours else logging.WARNING):
            self.said.append(record.getMessage())


async def resolved(value: Any) -> Any:
    """The value itself, or what it turns out to be once awaited."""
    return await value if inspect.isawaitable(value) else value
