"""Watches an HTTP response's byte stream being closed: the one place that sees every way in which a stream is left.

`close()`, leaving a `with` block, the SDK's helpers, a stream dropped half-way and one that was never started all end
in the byte stream's `close` or in its collection. The stand-in is of the same kind as what it stands for (synchronous,
asynchronous, or both), made from the same base classes, and hands everything through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any

from . import faults
from .call import CallRecorder
from .taps import AsyncStreamTap, Reader, StreamTap


def watch_bytes(response: Any, call: CallRecorder, reader: Callable[[], Reader] | None = None) -> bool:
    """Put a stand-in into `response.stream`.

    Args:
        response: an httpx or httpx2 response whose body has not been read.
        call: told when the bytes are closed or dropped.
        reader: makes what reads the bytes, piece by piece and as they were sent, where the program reads them itself:
            where they are asked for and no tap is asking. None to keep nothing.

    Returns:
        Whether there was a byte stream to watch.
    """
    kinds = tuple(k for k in type(response.stream).__mro__ if k.__name__ in ("SyncByteStream", "AsyncByteStream"))
    if not kinds:
        return False
    response.stream = _stand_in(kinds)(response.stream, call, reader)
    return True


class _Watched:
    def __init__(self, stream: Any, call: CallRecorder, reader: Callable[[], Reader] | None) -> None:
        self._stream = stream
        self._call = call
        self._reader = reader
        # Anthropic's SDK looks for its tracing's observer here once a chunk; searching for it below would cost 1.2 µs.
        self.stream_observer = getattr(stream, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        # httpx2 reads `elapsed` here.
        return getattr(self._stream, name)

    def _read(self) -> Reader:
        call = self._call
        with faults.guard(f"{call.call.adapter} adapter", "what a program read itself"):
            # Middleware may read several answers to what is one call; the first is the one that is kept.
            if self._reader is not None and call.raw is None and call.is_open:
                return self._reader()
        return _unread

    def __del__(self) -> None:
        try:
            self._call.closed(dropped=True)
        except Exception:
            # Collected while the interpreter shuts down: modules it needs may be gone, and nobody is left to tell.
            return


class _SyncWatched(_Watched):
    def __iter__(self) -> Iterator[bytes]:
        stream = iter(self._stream)
        return stream if self._call.asked_ns else StreamTap(stream, self._call, self._read())

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._call.closed()


class _AsyncWatched(_Watched):
    def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._stream.__aiter__()
        return stream if self._call.asked_ns else self._tap(stream)

    async def _tap(self, stream: Any) -> AsyncIterator[bytes]:
        # A generator, as HTTP libraries close nothing else, and what they would have closed is `stream`.
        try:
            async for data in AsyncStreamTap(stream, self._call, self._read()):
                yield data
        finally:
            if hasattr(stream, "aclose"):
                await stream.aclose()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._call.closed()


@cache
def _stand_in(kinds: tuple[type, ...]) -> type[Any]:
    names = [kind.__name__ for kind in kinds]
    ours: list[type] = [_SyncWatched] if "SyncByteStream" in names else []
    ours += [_AsyncWatched] if "AsyncByteStream" in names else []
    return type("WatchedByteStream", (*ours, *kinds), {})


def _unread(data: bytes, asked_ns: int, at_ns: int) -> None:
    """Reads nothing: that the bytes were read, and how that ended, is all that is known."""
