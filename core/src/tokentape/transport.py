"""Watches an HTTP response's byte stream being closed: the one place that sees every way in which a stream is left.

`close()`, leaving a `with` block, the SDK's helpers, a stream dropped half-way and one that was never started all end
in the byte stream's `close` or in its collection. The stand-in is of the same kind as what it stands for (synchronous,
asynchronous, or both), made from the same base classes, and hands everything through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

from .call import CallRecorder


def watch_bytes(response: Any, call: CallRecorder, body: list[bytes] | None = None) -> bool:
    """Put a stand-in into `response.stream`.

    Args:
        response: an httpx or httpx2 response whose body has not been read.
        call: told when the bytes are closed or dropped.
        body: gets what the program reads, piece by piece and as it was sent; None to keep nothing.

    Returns:
        Whether there was a byte stream to watch.
    """
    kinds = tuple(k for k in type(response.stream).__mro__ if k.__name__ in ("SyncByteStream", "AsyncByteStream"))
    if not kinds:
        return False
    response.stream = _stand_in(kinds)(response.stream, call, body)
    return True


class _Watched:
    def __init__(self, stream: Any, call: CallRecorder, body: list[bytes] | None) -> None:
        self._stream = stream
        self._call = call
        self._body = body
        # Anthropic's SDK looks for its tracing's observer here once a chunk; searching for it below would cost 1.2 µs.
        self.stream_observer = getattr(stream, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        # httpx2 reads `elapsed` here.
        return getattr(self._stream, name)

    def _keep(self, data: bytes) -> None:
        if self._body is not None:
            self._body.append(data)

    def __del__(self) -> None:
        try:
            self._call.closed(dropped=True)
        except Exception:
            # Collected while the interpreter shuts down: modules it needs may be gone, and nobody is left to tell.
            return


class _SyncWatched(_Watched):
    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream) if self._call.tapped else self._read_raw()

    def _read_raw(self) -> Iterator[bytes]:
        """The program reads the bytes itself: having read them to the end is what completes the call."""
        for data in self._stream:
            self._keep(data)
            yield data
        self._call.terminal = True

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._call.closed()


class _AsyncWatched(_Watched):
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__() if self._call.tapped else self._read_raw_async()

    async def _read_raw_async(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._keep(data)
            yield data
        self._call.terminal = True

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
