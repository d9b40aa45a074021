"""One poll of the tape for all who listen, and for each of them exactly what has not been told to it yet."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from tokentape.errors import TapeError
from tokentape.tape import Change, Happened, Position, Tape

from .source import TapeSource

POLL_S: Final = 0.08
# How often a listener hears something, if only that there is nothing.
IDLE_S: Final = 10.0
RETRY_S: Final = 1.0
# A listener that leaves more polls than this untaken reads the tape itself until it has caught up.
UNTAKEN: Final = 100

T = TypeVar("T")
Told = list[tuple[Change, Position]]


@dataclass(eq=False)
class _Listener:
    """Somebody who listens.

    Attributes:
        polls: what was polled and not taken yet.
        is_behind: what comes next is read from the tape, not taken from polls.
        start_over: where to go on, when another tape has taken the place of the one that was read.
        is_over: nothing is polled any more.
    """

    polls: asyncio.Queue[Sequence[Change]] = field(default_factory=asyncio.Queue)
    is_behind: bool = True
    start_over: Position | None = None
    is_over: bool = False

    def tell(self, changes: Sequence[Change]) -> None:
        """Add a poll; too many are dropped, because the listener can read them from the tape."""
        if self.polls.qsize() >= UNTAKEN:
            self.clear()
            self.is_behind = True
        self.polls.put_nowait(changes)

    def clear(self) -> None:
        """Drop what was not taken."""
        while not self.polls.empty():
            self.polls.get_nowait()

    async def take(self) -> Sequence[Change]:
        """The next poll, or nothing after some seconds."""
        try:
            return await asyncio.wait_for(self.polls.get(), IDLE_S)
        except TimeoutError:
            return ()


class Feed:
    """Reads what is new on a tape, once for all who listen, and only while somebody does."""

    def __init__(self, source: TapeSource) -> None:
        self._source = source
        self._listeners: set[_Listener] = set()
        self._poll: asyncio.Task[None] | None = None

    async def beginning(self) -> Position:
        """Where somebody begins who was told nothing: before the calls that are running.

        Raises:
            TapeError: the tape cannot be read now.
        """
        return await self._source.read(Tape.beginning)

    async def since(self, position: Position) -> AsyncGenerator[Told]:
        """What happens after a position, with the position after each change, until the server stops.

        Gives nothing for as long as nothing happens, but that every few seconds.
        """
        while (head := await self._read(Tape.now)) is None:
            yield []
        # The poll begins before this listener reads: what is between the two it gets from both, and takes from one.
        with self._listening(head) as listener:
            while not listener.is_over:
                if listener.start_over is not None:
                    position, listener.start_over = listener.start_over, None
                    listener.is_behind = True
                if listener.is_behind:
                    listener.clear()
                    happened = await self._read(partial(Tape.changes, position=position))
                    position = position if happened is None else happened.since
                    changes: Sequence[Change] = () if happened is None else happened.changes
                    listener.is_behind = happened is None or bool(changes)
                else:
                    changes = await listener.take()
                told: Told = []
                for change in changes:
                    rest = change.since(position)
                    if rest is not None:
                        position = rest.after(position)
                        told.append((rest, position))
                if told or not changes:
                    yield told

    @contextmanager
    def _listening(self, head: Position) -> Iterator[_Listener]:
        listener = _Listener()
        self._listeners.add(listener)
        if self._poll is None:
            self._poll = asyncio.create_task(self._polled(head))
            self._poll.add_done_callback(self._end)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._poll is not None:
                poll, self._poll = self._poll, None
                poll.cancel()

    def _end(self, poll: asyncio.Task[None]) -> None:
        """Let those go who still listen when polling has ended; they come back by themselves."""
        if poll is self._poll:
            self._poll = None
            for listener in self._listeners:
                listener.is_over = True
                listener.tell(())

    async def _polled(self, head: Position) -> None:
        while not is_stopping():
            soonest_s = asyncio.get_running_loop().time() + POLL_S
            happened = await self._read(partial(Tape.changes, position=head))
            if happened is not None:
                self._tell(happened, restarted=happened.since != head)
                head = happened.until
            await asyncio.sleep(soonest_s - asyncio.get_running_loop().time())

    def _tell(self, happened: Happened, *, restarted: bool) -> None:
        for listener in self._listeners if happened.changes or restarted else ():
            if restarted:
                listener.start_over = happened.since
            listener.tell(() if restarted else happened.changes)

    async def _read(self, query: Callable[[Tape], T]) -> T | None:
        """What a query gives; None, after a moment, where the tape cannot be read now."""
        try:
            return await self._source.read(query)
        except TapeError:
            await asyncio.sleep(RETRY_S)
            return None


def is_stopping() -> bool:
    """Whether the server was told to stop: uvicorn then waits for its streams before it tells the application."""
    handlers = map(signal.getsignal, (signal.SIGTERM, signal.SIGINT))
    return any(getattr(getattr(handler, "__self__", None), "should_exit", False) for handler in handlers)
