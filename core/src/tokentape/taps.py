"""Iterators that stand in an SDK's stream, hand over every chunk unchanged, and say what passed.

A tap is a class and no generator function: an unstarted generator never runs its `finally`. Per chunk it reads the
clock, asks the SDK, reads the clock, and lets the adapter's reader append; whatever fails on our side is reported and
the chunk handed over all the same.
"""

from __future__ import annotations

from typing import Any, Protocol

from . import faults
from .call import CallRecorder


class Reader(Protocol):
    """Reads one chunk of one wire format and appends what it adds to the call's parts.

    Args:
        chunk: the SDK's object; nothing of it may be kept but its strings and numbers.
        asked_ns: when the SDK's `next()` was entered for this chunk.
        at_ns: when it was handed over.

    Pass a function or a bound method: calling an object through its `__call__` costs 70 ns more.
    """

    def __call__(self, chunk: Any, asked_ns: int, at_ns: int, /) -> None:
        """Read one chunk."""


class _Tap:
    __slots__ = ("_at_hand", "_call")

    def __init__(self, iterator: Any, call: CallRecorder, read: Reader) -> None:
        self._call = call
        # What every chunk needs, got in one go: in a class with a `__getattr__` each attribute takes 23 ns and not 3.
        self._at_hand = (call, call.clock.monotonic_ns, iterator, read)
        call.tapped = True

    def __getattr__(self, name: str) -> Any:
        # Whatever else the SDK's own iterator can do (`close`, `gi_frame`, …) it still can.
        if name in _Tap.__slots__:
            raise AttributeError(name)  # `iter()` had raised, and this is `__del__`
        return getattr(self._at_hand[2], name)

    def _fault(self, fault: Exception) -> None:
        faults.report(f"{self._call.call.adapter} adapter", fault, "a chunk's events")

    def _stopped(self, exc: BaseException, asked_ns: int) -> None:
        try:
            self._call.stopped(exc, asked_ns)
        except Exception as fault:
            faults.report(f"{self._call.call.adapter} adapter", fault, "how a call ended")


def _unread(chunk: Any, asked_ns: int, at_ns: int) -> None:
    """Stands in for the reader where it is not known when the chunk was asked for."""


class StreamTap(_Tap):
    """Taps a synchronous iterator.

    Args:
        iterator: the SDK's own; whatever else it can do, the tap can do too.
        call: ends when the iterator does, or raises.
        read: reads each chunk. What it raises is reported, and the program gets the chunk all the same.
    """

    __slots__ = ()

    def __iter__(self) -> StreamTap:
        return self

    def __next__(self) -> Any:
        call, now, iterator, read = self._at_hand
        asked = 0
        try:
            call.asked_ns = asked = now()
        except Exception as fault:
            call.asked_ns = 1  # when is not known, but it was
            self._fault(fault)
            read = _unread
        try:
            chunk = next(iterator)
        except BaseException as exc:
            self._stopped(exc, asked)
            raise
        try:
            at = now()
            call.asked_ns = 0
            read(chunk, asked, at)
        except Exception as fault:
            self._fault(fault)
        return chunk


class AsyncStreamTap(_Tap):
    """Taps an asynchronous iterator; see `StreamTap`."""

    __slots__ = ()

    def __aiter__(self) -> AsyncStreamTap:
        return self

    async def __anext__(self) -> Any:
        call, now, iterator, read = self._at_hand
        asked = 0
        try:
            call.asked_ns = asked = now()
        except Exception as fault:
            call.asked_ns = 1  # when is not known, but it was
            self._fault(fault)
            read = _unread
        try:
            chunk = await anext(iterator)
        except BaseException as exc:
            self._stopped(exc, asked)
            raise
        try:
            at = now()
            call.asked_ns = 0
            read(chunk, asked, at)
        except Exception as fault:
            self._fault(fault)
        return chunk
