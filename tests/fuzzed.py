"""Streams that no provider should send, drawn by hypothesis: broken JSON, framing and types, cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from hypothesis import strategies as st

from hostile_chunks import CHAT, COMPLETIONS, KEPT_ALIVE, MESSAGES, RESPONSES, chunk, said

_TOOL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":'}}
_LOGPROBS = {"content": [{"token": "Hel", "logprob": -0.5, "bytes": [72], "top_logprobs": []}]}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
_COUNTED = {"input_tokens": 3, "output_tokens": 4}
GOOD: dict[str, list[Any]] = {
    "chat": [
        chunk(said("", role="assistant")),
        chunk(said("Hel")),
        chunk(said("lo", choice=1)),
        chunk(said(reasoning_content="hm")),
        chunk(said(refusal="no")),
        chunk(said(tool_calls=[_TOOL])),
        chunk(said("Hel") | {"logprobs": _LOGPROBS}),
        chunk(said(finish="stop")),
        chunk(usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
        {"error": {"message": "it broke", "type": "server_error", "code": None}},
    ],
    "text_completion": [
        {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-x", "choices": [choice]}
        for choice in (
            {"index": 0, "text": "Hel", "logprobs": None, "finish_reason": None},
            {"index": 0, "text": "lo", "logprobs": {"tokens": ["lo"], "token_logprobs": [-1]}, "finish_reason": None},
            {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
        )
    ],
    "responses": [
        {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-x", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "name": "look"}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hel"},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "usage": _COUNTED}},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "c", "message": "it broke"}}},
        {"type": "error", "code": "c", "message": "it broke"},
    ],
    "messages": [
        {"type": "message_start", "message": _MESSAGE | {"usage": _COUNTED}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "look"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
        {"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}},
    ],
}
BAD = {"chat": CHAT, "text_completion": COMPLETIONS, "responses": RESPONSES, "messages": MESSAGES}
_ODD_TEXTS = ("", "\x00", "\ud83d", "\udc00x", "\u202e", "\x1b[31m", "[DONE]", "data: x\n\n", "é" * 70_000)
_ODD_NUMBERS = (-1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0)


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"text": value}
    return value


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_ODD_TEXTS),
    st.sampled_from(_ODD_NUMBERS),
    st.text(max_size=8),
    st.integers(),
    st.sampled_from(([], {}, [[]], [None], {"": None}, {"text": {"text": []}}, [{"text": 5}])),
    st.integers(2, 3000).map(_nested),
)
_BROKEN = (b"data: {\n\n", b"data: \xff\xfe\n\n", b"data\n\n", b"event: error\n\n", b"event: error\ndata: no JSON\n\n")
_NOISE = (
    *_BROKEN,
    *(b"\xef\xbb\xbf", b"\x00" * 50, b"retry: x\nid: \n", b"data: [DONE]\n\n", b": \n", b"\n" * 5, KEPT_ALIVE),
)


@dataclass(frozen=True)
class Frame:
    """How an event is framed.

    Attributes:
        named: whether its type stands beside it, as messages and responses have it.
        line: the end of a line.
        pretty: whether its JSON goes over several lines.
    """

    named: bool
    line: bytes
    pretty: bool

    def around(self, event: Any) -> bytes:
        try:
            text = json.dumps(event, indent=1 if self.pretty else None, ensure_ascii=self.pretty)
        except RecursionError:
            text = "[" * 100_000
        data = b"".join(b"data: " + line + self.line for line in text.encode("utf-8", "surrogatepass").split(b"\n"))
        name = event.get("type") if self.named and isinstance(event, dict) else None
        head = b"event: " + name.encode("utf-8", "surrogatepass") + self.line if isinstance(name, str) else b""
        return head + data + self.line


FRAMES = st.builds(Frame, st.booleans(), st.sampled_from((b"\n", b"\r\n", b"\r")), st.booleans())


@st.composite
def changed(draw: st.DrawFn, events: list[Any]) -> Any:
    """One of these events with one of its values, at any depth, in the place of another, left out, or doubled."""
    event = json.loads(json.dumps(draw(st.sampled_from(events))))
    places = list(_places(event))
    holder, key = draw(st.sampled_from(places)) if places else ({}, "none")
    how = draw(st.sampled_from(("odd", "odd", "odd", "gone", "renamed")))
    if how == "odd" or isinstance(holder, list):
        holder[key] = draw(ODD_VALUES)
    elif how == "gone":
        del holder[key]
    else:
        holder[draw(st.text(max_size=5))] = holder.pop(key)
    return event


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(item)


def deep(api: str) -> Iterator[list[bytes]]:
    """Bodies with an event of this API, one of whose values is nested four hundred times; each value in turn."""
    frame = Frame(api in {"responses", "messages"}, b"\n", False)
    for good in GOOD[api]:
        for number, _ in enumerate(_places(good)):
            event = json.loads(json.dumps(good))
            holder, key = next(islice(_places(event), number, None))
            holder[key] = _nested(400)
            yield [frame.around(event)]


@st.composite
def bodies(draw: st.DrawFn, api: str) -> list[bytes]:
    """The body of an answer of this API, in the pieces that it is sent in."""
    bad = [event for event in BAD[api] if not isinstance(event, bytes)]
    events = st.one_of(st.sampled_from(GOOD[api]), st.sampled_from(GOOD[api]), st.sampled_from(bad), changed(GOOD[api]))
    framed = st.builds(lambda event, frame: frame.around(event), events, FRAMES)
    noise = st.one_of(st.sampled_from(_NOISE), st.binary(max_size=20))
    pieces = draw(st.lists(st.one_of(framed, framed, framed, noise), max_size=8))
    if draw(st.booleans()):
        pieces.append(b"data: [DONE]\n\n")
    body = b"".join(pieces)
    if draw(st.booleans()):
        body = body[: len(body) - draw(st.integers(0, 40))]
    cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=6))})
    return [piece for begin, end in pairwise(cuts) if (piece := body[begin:end])]
