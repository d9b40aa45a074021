"""What `record_stream` hands out: an iterator over the same chunks that notices how it is left, recorded or not."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Self

from . import faults, heartbeat
from .call import CallRecorder
from .taps import AsyncStreamTap, Reader, StreamTap


def wrap(stream: Any, call: CallRecorder | None, read: Reader) -> WrappedStream | AsyncWrappedStream:
    """Wrap any iterable, asynchronous iterable, or awaitable of one.

    Args:
        stream: what the SDK returned.
        call: records it; None to hand everything through.
        read: reads one chunk.
    """
    if hasattr(stream, "__aiter__") or hasattr(stream, "__await__"):
        if call is not None:
            heartbeat.watch(call)
        return AsyncWrappedStream(stream, call, read)
    return WrappedStream(stream, call, read)


def note_sent(call: CallRecorder) -> None:
    """The request is out: what it took is the first thing that the program waited for."""
    with guard("how long a request took"):
        call.saw_stream()


def guard(lost: str) -> faults.guard:
    """Keeps our faults from a program that records by hand."""
    return faults.guard("python api", lost)


class WrappedStream:
    """A synchronous stream."""

    __slots__ = ("__weakref__", "_call", "_iterator", "_stream")

    def __init__(self, stream: Iterable[Any], call: CallRecorder | None, read: Reader) -> None:
        self._call: CallRecorder | None = None
        self._stream = stream
        iterator = iter(stream)
        self._iterator = StreamTap(iterator, call, read) if call is not None else iterator
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop reading: closes the stream, if it can be closed, and ends the call."""
        try:
            _call_if_there(self._stream, "close")
        finally:
            _ended(self._call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        _ended(self._call, dropped=True)


class AsyncWrappedStream:
    """An asynchronous stream, or an awaitable that becomes one."""

    __slots__ = ("__weakref__", "_call", "_iterator", "_read", "_stream")

    def __init__(self, stream: Any, call: CallRecorder | None, read: Reader) -> None:
        self._call = call
        self._stream = stream
        self._read = read
        self._iterator: Any = None
        if hasattr(stream, "__aiter__"):
            self._tap()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self._iterator.__anext__() if self._iterator is not None else self._first()

    async def _first(self) -> Any:
        call = self._call
        try:
            self._stream = await self._stream
            if call is not None:
                note_sent(call)
            self._tap()
        except BaseException as exc:
            if call is not None:
                with guard("how a call ended"):
                    call.end_by(exc)
            raise
        return await anext(self._iterator)

    def _tap(self) -> None:
        iterator = self._stream.__aiter__()
        self._iterator = AsyncStreamTap(iterator, self._call, self._read) if self._call is not None else iterator

    async def aclose(self) -> None:
        """Stop reading: closes the stream, if it can be closed, and ends the call."""
        try:
            closing = _call_if_there(self._stream, "aclose") or _call_if_there(self._stream, "close")
            if closing is not None:
                await closing
        finally:
            _ended(self._call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        _ended(self._call, dropped=True)


def _call_if_there(target: Any, name: str) -> Any:
    method = getattr(target, name, None)
    return method() if callable(method) else None


def _ended(call: CallRecorder | None, *, dropped: bool = False) -> None:
    if call is not None:
        call.closed(dropped=dropped)
