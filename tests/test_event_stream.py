"""The bytes of an event stream are the same events, however the network cuts them and whatever they are packed in."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape import event_stream
from tokentape.event_stream import Event, EventStream, Unreadable
from tokentape.testing.wire import bedrock

AWS = "application/vnd.amazon.eventstream"
PLAIN = (
    b"\xef\xbb\xbf: a comment\r\n\r\n"
    b"event: first\ndata: w\xc3\xb6rld \xf0\x9f\x91\x8b\nid: 7\nretry: 10\n\n"
    b"data:no space\r\rdata:  two spaces\r\n\r\n"
    b"event: several\rdata: a\rdata\rdata: b\r\r"
    b"event: never sent\n\n"
    b"event:\ndata: {}\nunknown: field\n: comment between\n\n"
    b"\n\n\r\n\rdata: [DONE]\n\n"
    b"event: cut\ndata: off\n"
)
EVENTS = [
    Event("first", "wörld 👋"),
    Event(None, "no space"),
    Event(None, " two spaces"),
    Event("several", "a\n\nb"),
    Event(None, "{}"),
    Event(None, "[DONE]"),
]


def read(pieces: Iterable[bytes], content_type: str | None = None, encoding: str | None = None) -> list[Event]:
    stream = EventStream(content_type, encoding)
    return [event for piece in pieces for event in stream.feed(piece)]


def compressed(pieces: Iterable[bytes], wbits: int) -> Iterator[bytes]:
    """Each piece can be read as soon as it is there, as servers that compress streams do it."""
    deflate = zlib.compressobj(wbits=wbits)
    for piece in pieces:
        yield deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH)
    yield deflate.flush()


def test_fields_comments_and_line_ends() -> None:
    assert read([PLAIN]) == EVENTS


@pytest.mark.scenario("adapters/Cut anywhere")
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_border_between_any_two_bytes_changes_nothing(line_end: bytes) -> None:
    body = PLAIN.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", line_end)
    for cut in range(len(body) + 1):
        assert read([body[:cut], body[cut:]]) == EVENTS, (body[:cut], body[cut:])
    assert read(body[i : i + 1] for i in range(len(body))) == EVENTS


@pytest.mark.scenario("adapters/Cut anywhere")
@given(st.lists(st.integers(0, len(PLAIN))), st.sampled_from([None, "gzip", "deflate", "raw"]))
def test_any_cuts_through_anything_change_nothing(cuts: list[int], encoding: str | None) -> None:
    pieces = [PLAIN[a:b] for a, b in pairwise(sorted({0, *cuts, len(PLAIN)}))]
    if encoding is not None:
        wbits = {"gzip": 31, "deflate": 15, "raw": -15}[encoding]
        pieces = [*compressed(pieces, wbits)]
    assert read(pieces, encoding="deflate" if encoding == "raw" else encoding) == EVENTS


@given(st.lists(st.binary()))
def test_whatever_comes_is_events_or_not_readable(pieces: list[bytes]) -> None:
    for content_type, encoding in [(None, None), (None, "gzip"), (None, "deflate"), (AWS, None)]:
        try:
            assert all(isinstance(event, Event) for event in read(pieces, content_type, encoding))
        except ValueError as refused:
            assert isinstance(refused, Unreadable)


def test_an_event_is_there_with_the_byte_that_completes_it() -> None:
    stream = EventStream("text/event-stream", "gzip")
    pieces = list(compressed([b"data: 1\n", b"\n", b"data: 2\n\n"], 31))
    assert [len(list(stream.feed(piece))) for piece in pieces] == [0, 1, 1, 0]


def test_characters_that_are_none_are_replaced() -> None:
    assert read([b"event: \xff\ndata: a\xc3\n\ndata: b\n\n"]) == [Event("\ufffd", "a\ufffd"), Event(None, "b")]


def test_a_small_body_that_inflates_to_much_is_read_in_pieces() -> None:
    body = b"data: 1\n\n" * 1_000_000
    stream = EventStream(None, "gzip")
    largest = 0
    splitting = stream._split.feed

    def feed(piece: bytes) -> Iterator[Event]:
        nonlocal largest
        largest = max(largest, len(piece))
        return splitting(piece)

    stream._split.feed = feed  # type: ignore[method-assign]
    assert sum(1 for _ in stream.feed(zlib.compress(body, wbits=31))) == 1_000_000
    assert largest == event_stream.PIECE_BYTES


@pytest.mark.parametrize("begin", [b"", b"data: 1\n\n"])
def test_an_event_without_end_is_given_up(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_EVENT_BYTES", 100_000)
    stream = EventStream(None, None)
    assert read([b"data: %b\n\n" % (b"x" * 99_000)] * 3) != []
    with pytest.raises(Unreadable, match="more than 100000 bytes"):
        for _ in range(30):
            list(stream.feed(begin + b"data: " + b"x" * 10_000))
            begin = b""


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "nonsense"])
def test_an_encoding_that_is_not_known_here_is_named(encoding: str) -> None:
    with pytest.raises(Unreadable, match=f"content-encoding '{encoding}'"):
        read([b"data: 1\n\n"], encoding=encoding)


def test_bytes_that_are_not_compressed_are_named() -> None:
    with pytest.raises(Unreadable, match="content-encoding 'gzip'"):
        read([b"data: 1\n\n"], encoding="GZIP")


def aws(data: Any) -> bytes:
    return bedrock.BedrockMessages.frame(None, data)  # type: ignore[arg-type]  # it needs nothing of itself


def test_messages_of_an_aws_event_stream_cut_anywhere() -> None:
    chunk, error = {"type": "ping", "n": "wörld"}, {"type": "error", "error": {"type": "odd", "message": "it broke"}}
    body = aws(chunk) + bedrock._message({":message-type": "event", ":event-type": "other"}, {"p": 1}) + aws(error)
    for cut in range(len(body) + 1):
        first, last = read([body[:cut], body[cut:]], AWS)
        assert (first.name, json.loads(first.data)) == ("ping", chunk)
        assert (last.name, json.loads(last.data)["error"]) == ("error", error["error"])


def test_what_is_no_aws_event_stream_is_given_up() -> None:
    whole = aws({"type": "ping"})
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    no_json = bedrock._message({":message-type": "event"}, {"bytes": base64.b64encode(b"[1]").decode()})
    for body in (b"data: 1\n\ndata: 2\n\n", flipped, random.Random(7).randbytes(64), no_json):
        with pytest.raises(Unreadable):
            read([body], AWS)
