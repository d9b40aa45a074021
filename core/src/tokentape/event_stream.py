"""Takes the bytes of an event stream apart as they come in: undoes the compression, and splits them into events.

Whatever a piece ends in the middle of (a line, a character, a message) waits for the next one.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

# So much at a time is split and decompressed, in well under a millisecond.
PIECE_BYTES: Final = 16_384
# An event that is larger is none: its end would be waited for in memory.
MAX_EVENT_BYTES: Final = 16_000_000

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# Servers disagree on what `deflate` is: with zlib's header, or without.
_WBITS: Final = {"gzip": (zlib.MAX_WBITS | 16,), "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}
_AWS: Final = "application/vnd.amazon.eventstream"
# A message of it begins with its length, that of its headers, and a checksum of the two.
_PRELUDE: Final = struct.Struct("!III")
_STRING: Final = 7


class Event(NamedTuple):
    """One event.

    Attributes:
        name: its type, where it has one.
        data: what it says, mostly JSON.
    """

    name: str | None
    data: str


class Unreadable(ValueError):
    """From here on the bytes cannot be read as events."""


class EventStream:
    """Reads the body of one response.

    Args:
        content_type: the response's header; anything that is not AWS's framing is read as server-sent events.
        encoding: the response's `content-encoding`; None where it has none.
    """

    def __init__(self, content_type: str | None, encoding: str | None) -> None:
        self._split = AwsMessages() if (content_type or "").startswith(_AWS) else ServerSentEvents()
        self._encoding = (encoding or "identity").strip().lower()
        self._inflate = [zlib.decompressobj(wbits) for wbits in _WBITS.get(self._encoding, ())]

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that this piece of the body completes.

        Raises:
            Unreadable: while they are taken, once nothing more can be read.
        """
        for piece in self._decoded(data):
            yield from self._split.feed(piece)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        if self._inflate:
            yield from self._inflated(data)
        elif self._encoding == "identity":
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
        else:
            raise Unreadable(f"content-encoding {self._encoding!r}")

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        inflate = self._inflate[0]
        try:
            while piece := inflate.decompress(data, PIECE_BYTES):
                yield piece
                data = inflate.unconsumed_tail
        except zlib.error as broken:
            del self._inflate[0]
            if not self._inflate:
                raise Unreadable(f"content-encoding {self._encoding!r}: {broken}") from broken
            yield from self._inflated(data)


class ServerSentEvents:
    """Splits `text/event-stream`."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._size = 0
        self._name: str | None = None
        self._data: list[bytes] = []
        self._after_cr = False
        self._is_first = True

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that this piece, which is not empty, completes."""
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        first, *lines = _LINE_END.split(data)
        self._line.append(first)
        self._size += len(data)
        for line in lines:
            yield from self._end_line()
            self._line.append(line)
        if self._size > MAX_EVENT_BYTES:
            raise Unreadable(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def _end_line(self) -> Iterator[Event]:
        line = b"".join(self._line)
        self._line.clear()
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                yield Event(self._name, b"\n".join(self._data).decode("utf-8", "replace"))
            self._name, self._size = None, 0
            self._data.clear()
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace") or None


class AwsMessages:
    """Splits AWS's binary event stream, in which Amazon Bedrock wraps each event of a provider."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that this piece completes."""
        self._buffer += data
        begin = _PRELUDE.size
        while len(self._buffer) >= begin:
            size, head, checksum = _PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != checksum or not begin + head + 4 <= size <= MAX_EVENT_BYTES:
                raise Unreadable("no message of an AWS event stream")
            if len(self._buffer) < size:
                return
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            try:
                event = _event_of(_strings(message[begin : begin + head]), json.loads(message[begin + head : -4]))
            except (ValueError, LookupError, TypeError, AttributeError) as broken:
                raise Unreadable(f"a message without an event: {broken}") from broken
            if event is not None:
                yield event


def _event_of(headers: dict[str, str], payload: dict[str, str]) -> Event | None:
    if headers.get(":message-type") != "event":
        kind = headers.get(":exception-type") or headers.get(":error-code")
        return Event("error", json.dumps({"error": {"type": kind, "message": payload.get("message")}}))
    if "bytes" not in payload:
        return None  # says something of the stream, nothing of the answer
    data = base64.b64decode(payload["bytes"]).decode("utf-8", "replace")
    return Event(json.loads(data).get("type"), data)


def _strings(headers: bytes) -> dict[str, str]:
    """The headers of a message, up to the first that is no string."""
    found: dict[str, str] = {}
    while headers:
        name, kind, rest = headers[1 : 1 + headers[0]], headers[1 + headers[0]], headers[2 + headers[0] :]
        if kind != _STRING:
            break
        end = 2 + int.from_bytes(rest[:2], "big")
        found[name.decode()] = rest[2:end].decode()
        headers = rest[end:]
    return found
