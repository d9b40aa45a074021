"""Bytes that a program reads itself, past the SDK's stream: gathered on its thread, read as events on the writer's.

The program's thread keeps each read with its times and does nothing else. The writer thread takes the bytes apart, and
has the adapter's own reader read every event, as a tap does with the objects that the SDK makes of them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from . import faults
from .call import CallRecorder
from .event_stream import Event, EventStream
from .reading import field, shown, text_of
from .taps import Reader

# What an SDK makes of an event: a chunk, an exception, or nothing.
EventKind = Literal["chunk", "error"] | None

# The reads lie flat in a queue, so that none of them is an object for the garbage collector.
STRIDE: Final = 3
# As many events as are read between two looks at whether somebody else wants the interpreter.
SLICE_EVENTS: Final = 8


class JSONObject(dict[str, Any]):
    """A JSON object whose fields are attributes too, and which is None where it has none, as an SDK's object is.

    Which of its fields an SDK would declare it cannot tell: all of them are extra, and a reader that looks into
    `__dict__` for the common chunk looks at this one field by field.
    """

    __slots__ = ()
    __getattr__ = dict.get

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]  # it is read only
        return {}

    @property
    def __pydantic_extra__(self) -> dict[str, Any]:
        return self


_parse: Final = json.JSONDecoder(object_pairs_hook=JSONObject).decode


class RawReads:
    """The reads of one call.

    Args:
        call: gets what the events add.
        read: the adapter's reader of chunks.
        kind: what the SDK makes of an event with this name and JSON.
        content_type: the response's header.
        encoding: the response's `content-encoding`.
    """

    def __init__(
        self,
        call: CallRecorder,
        read: Reader,
        kind: Callable[[str | None, Any], EventKind],
        content_type: str | None,
        encoding: str | None,
    ) -> None:
        self._call = call
        self._read = read
        self._kind = kind
        self._reads: deque[Any] = deque()
        self._stream: EventStream | None = EventStream(content_type, encoding)
        # Time inside `next()` since the last event.
        self._waited_ns = 0
        self._slices = self._decode()

    def add(self, data: bytes, asked_ns: int, at_ns: int) -> None:
        """Keep one read; see `tokentape.taps.Reader`. All that is done on the program's thread."""
        self._reads.extend((asked_ns, at_ns, data))

    def decode(self) -> bool:
        """Read a slice of what has gathered.

        Returns:
            Whether there is more of what had gathered when the first slice of it was read.
        """
        with faults.guard(f"{self._call.call.adapter} adapter", "events of bytes that the program read itself"):
            return next(self._slices, False)
        return False

    def finish(self) -> None:
        """The call has ended and all of it is decoded: what the provider said of its end is known now."""
        self._call.carry_ns += self._waited_ns
        self._call.settle()
        # Nothing that is read after the end is kept, and nothing here refers to itself any more.
        self._reads = deque(maxlen=0)
        self._slices = iter(())

    def _decode(self) -> Iterator[bool]:
        reads = self._reads
        while True:
            # Only what is there now, however fast the program reads on.
            for _ in range(len(reads) // STRIDE):
                asked, at, data = reads.popleft(), reads.popleft(), reads.popleft()
                self._waited_ns += at - asked
                for number, event in enumerate(self._events(data), 1):
                    self._take(event, at)
                    if number % SLICE_EVENTS == 0:
                        yield True
                yield True
            yield False

    def _events(self, data: bytes) -> Iterator[Event]:
        if self._stream is None:
            return
        try:
            for event in self._stream.feed(data):
                yield event
                if self._stream is None:
                    return  # it was the last
        except ValueError as broken:
            self._stream = None
            self._mention(broken)

    def _take(self, event: Event, at_ns: int) -> None:
        if not event.data:
            return
        if event.data.startswith("[DONE]"):
            self._stream = None
            return
        try:
            data = _parse(event.data)
            kind = self._kind(event.name, data)
        except (ValueError, RecursionError) as broken:
            # What went wrong may be said in plain words.
            data, kind = event.data, self._kind(event.name, None)
            if kind != "error":
                self._mention(broken)
                return
        if kind == "error":
            # The SDK raises here, and reads no further. What is complete stays so.
            self._stream = None
            self._note_error(field(data, "error") or data)
        elif kind == "chunk":
            asked_ns, self._waited_ns = at_ns - self._waited_ns, 0
            with faults.guard(f"{self._call.call.adapter} adapter", "a chunk's events"):
                self._read(data, asked_ns, at_ns)

    def _note_error(self, error: Any) -> None:
        kind = text_of(field(error, "type")) or text_of(field(error, "code")) or "error"
        message = text_of(field(error, "message")) or shown(error)
        self._call.judge("completed" if self._call.terminal else "error", kind, message)

    def _mention(self, broken: Exception) -> None:
        where = f"{self._call.call.adapter} adapter, bytes that the program reads itself"
        faults.mention(where, f"{broken}; what is missing of the answer could not be read as events")
