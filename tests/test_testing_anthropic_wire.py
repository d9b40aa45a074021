"""Anthropic's wire format on the provider server, read by the real SDK and its stricter stream helper."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tokentape.testing import ErrorEvent, Finish, Ping, ProviderServer, Reasoning, Role, Text, ToolArgs, ToolCall, Usage
from tokentape.testing.log import Request
from tokentape.testing.script import Script
from tokentape.testing.wire import BedrockMessages

ASKED: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": []}
RICH = [
    Role(),
    Ping(),
    Reasoning("hm "),
    Reasoning("yes"),
    Text("Look: "),
    ToolCall(0, "toolu_a", "add"),
    ToolArgs(0, '{"x":'),
    ToolArgs(0, "1}"),
    ToolCall(1, "toolu_b", "now"),
    Finish("tool_calls"),
    Usage(20, 9, cached=4, cache_write=1, reasoning=3),
]


@pytest.fixture
def client(server: ProviderServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.origin, api_key="none", max_retries=0, timeout=20) as client:
        yield client


def payloads(server: ProviderServer) -> list[dict[str, Any]]:
    """What was streamed last; each event is named after its type."""
    found = []
    for sent in server.requests[-1].sent:
        name, data, *_ = sent.data.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_message_is_streamed_block_by_block(server, client):
    server.add([Text("Hel"), Text("lo"), Finish("length"), Usage(12, 2, cached=3)])

    events = [event.model_dump(exclude_unset=True) for event in client.messages.create(**ASKED, stream=True)]

    counts = {"input_tokens": 9, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
    head = {"id": "msg_000001", "type": "message", "role": "assistant", "model": "m", "content": []}
    unfinished = {"stop_reason": None, "stop_sequence": None}
    at_start = {**counts, "output_tokens": 1, "service_tier": "standard"}
    piece = {"type": "content_block_delta", "index": 0}
    assert events == [
        {"type": "message_start", "message": {**head, **unfinished, "usage": at_start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {**piece, "delta": {"type": "text_delta", "text": "Hel"}},
        {**piece, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {**counts, "output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


def test_the_sdks_helper_accepts_thinking_text_and_tools(server, client):
    server.add(RICH)

    with client.messages.stream(**ASKED) as stream:
        message = stream.get_final_message()

    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, add, now = message.content
    assert (thinking.thinking, bool(thinking.signature), text.text) == ("hm yes", True, "Look: ")
    assert [(tool.id, tool.name, tool.input) for tool in (add, now)] == [
        ("toolu_a", "add", {"x": 1}),
        ("toolu_b", "now", {}),
    ]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 9)
    assert {"type": "ping"} in payloads(server)


def test_in_one_piece_it_holds_what_the_stream_holds(server, client):
    server.add(RICH, RICH)

    with client.messages.stream(**ASKED) as stream:
        streamed = stream.get_final_message()
    whole = client.messages.create(**ASKED)

    def said(message: Any) -> list[Any]:
        return [block.model_dump(include={"type", "thinking", "text", "name", "input"}) for block in message.content]

    assert said(whole) == said(streamed)
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("tool_use", 15, 9)


def test_counts_on_the_way_are_deltas_without_a_reason(server, client):
    server.add([Text("a"), Usage(5, 1), Text("b"), Finish(), Usage(5, 2)])

    list(client.messages.create(**ASKED, stream=True))

    deltas = [payload for payload in payloads(server) if payload["type"] == "message_delta"]
    assert [(delta["delta"]["stop_reason"], delta["usage"]["output_tokens"]) for delta in deltas] == [
        (None, 1),
        ("end_turn", 2),
    ]


def test_without_usage_none_is_told_and_without_finish_nothing_ends(server, client):
    server.add([Text("a"), Finish()], [Text("a")])

    for _ in range(2):
        list(client.messages.create(**ASKED, stream=True))

    assert "usage" not in json.dumps([sent.data.decode() for sent in server.requests[0].sent])
    assert payloads(server)[-1]["type"] == "content_block_delta"


def test_an_error_event_is_raised_and_a_status_where_no_stream_was_asked_for(server, client):
    server.add(*[[ErrorEvent("overloaded_error", "Overloaded")]] * 2)

    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(client.messages.create(**ASKED, stream=True))
    with pytest.raises(anthropic.InternalServerError, match="overloaded_error"):
        client.messages.create(**ASKED)


def test_arguments_apart_from_their_call_are_refused(server, client):
    server.add([ToolCall(0, "toolu_a", "add"), Text("and"), ToolArgs(0, "{}")])

    with pytest.raises(anthropic.UnprocessableEntityError, match="not right after its ToolCall"):
        client.messages.create(**ASKED, stream=True)


def test_bedrocks_framing_is_lengths_checksums_headers_and_payload():
    request = Request(1, "POST", "/model/m/invoke-with-response-stream", {}, {}, b"{}", 0)
    wire = BedrockMessages(request, Script([Text("a")]))

    frame = wire.frame({"type": "message_stop"})

    total, headers, prelude_sum = struct.unpack("!III", frame[:12])
    assert (total, prelude_sum) == (len(frame), zlib.crc32(frame[:8]))
    assert struct.unpack("!I", frame[-4:]) == (zlib.crc32(frame[:-4]),)
    assert b":event-type\x07\x00\x05chunk" in frame[12 : 12 + headers]
    # The event itself, in base64.
    assert json.loads(frame[12 + headers : -4]) == {"bytes": "eyJ0eXBlIjoibWVzc2FnZV9zdG9wIn0="}
    assert (wire.streams, BedrockMessages.endpoint(request.path)) == (True, "/messages")
