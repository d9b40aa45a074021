"""Anthropic's Messages API: named events, one content block after the other.

Consecutive events of one kind are one block. What ends a message carries the usage, so it goes out with the last
`Finish` or `Usage` of the script; a `Usage` before that is a cumulative count on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ..events import ErrorEvent, Event, Finish, Ping, Reasoning, Role, Text, ToolArgs, ToolCall, Usage
from ..log import Request
from ..script import Script
from .base import Payload, TypedEventsWire

_Content = Text | Reasoning | ToolCall | ToolArgs

# Scripts name reasons as chat completions do; any other goes out as it is.
_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
# Error types by the reason phrase of the status.
_ERRORS: Final = {
    "bad_request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "not_found_error",
    "too_many_requests": "rate_limit_error",
    "internal_server_error": "api_error",
    "unknown_error": "overloaded_error",
}
# The type of each kind of block's deltas, and the field that holds a piece.
_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class Messages(TypedEventsWire):
    """`POST …/messages`, `beta.messages` included, and where Vertex AI serves the same."""

    path = "/messages"
    carries = (Role, Text, Reasoning, ToolCall, ToolArgs, Finish, Usage, ErrorEvent)
    request_id_header = "request-id"

    def __init__(self, request: Request, script: Script) -> None:
        super().__init__(request, script)
        self._blocks: list[Payload] = []
        self._key: Any = None
        self._begun = False
        self._reason: str | None = None
        self._usage = next((event for event in script.events if isinstance(event, Usage)), None)
        self._endings_left = sum(isinstance(event, Finish | Usage) for event in script.events)

    @classmethod
    def endpoint(cls, path: str) -> str | None:
        """`/messages`, also for Vertex's path of a model."""
        return cls.path if path.endswith((cls.path, ":streamRawPredict", ":rawPredict")) else None

    def problem(self) -> str | None:
        """Also a tool call's arguments have no form here but right after the call."""
        open_call: int | None = None
        for event in self.script.events:
            if isinstance(event, ToolArgs) and event.index != open_call:
                return f"the script holds ToolArgs({event.index}, …) not right after its ToolCall: move it there"
            if isinstance(event, _Content):
                open_call = event.index if isinstance(event, ToolCall | ToolArgs) else None
        return super().problem()

    def render(self, event: Event) -> Iterable[bytes]:
        """A ping is an event of its own here."""
        return (self.frame({"type": "ping"}),) if isinstance(event, Ping) else super().render(event)

    def frames(self, event: Event) -> Iterator[bytes]:
        """All events that one event of the script causes, beginnings and ends of blocks included."""
        return map(self.frame, self._payloads(event))

    def body(self) -> Payload:
        """The message as it stands at the end of the script."""
        for event in self.script.events:
            if isinstance(event, self.carries):
                for _ in self._payloads(event):
                    pass
        content = [_whole(block) for block in self._blocks]
        return self._message(content) | {"stop_reason": self._reason} | self._usage_of(_usage_object)

    @classmethod
    def error(cls, type_: str, message: str, code: str | None = None) -> Payload:
        """Anthropic's error object."""
        return {"type": "error", "error": {"type": _ERRORS.get(type_, type_), "message": message}}

    def _payloads(self, event: Event) -> Iterator[Payload]:
        match event:
            case ErrorEvent(type, message):
                yield self.error(type, message)
                return
        if not self._begun:
            self._begun = True
            yield {"type": "message_start", "message": self._message([]) | self._usage_of(_usage_at_start)}
        match event:
            case Finish() | Usage():
                yield from self._ending(event)
            case Text() | Reasoning() | ToolCall() | ToolArgs():
                yield from self._content(event)

    def _content(self, event: _Content) -> Iterator[Payload]:
        if _place(event) != self._key:
            yield from self._stop_block()
            self._key = _place(event)
            self._blocks.append(_new_block(event, f"{self.request.number:06d}"))
            yield {"type": "content_block_start", "index": self._index, "content_block": _announced(self._blocks[-1])}
        match event:
            case Text(piece) | Reasoning(piece) | ToolArgs(_, piece):
                block = self._blocks[-1]
                kind, field = _DELTAS[block["type"]]
                block["pieces"] += piece
                yield self._delta({"type": kind, field: piece})

    def _delta(self, delta: Payload) -> Payload:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self._blocks) - 1

    def _stop_block(self) -> Iterator[Payload]:
        if self._key is None:
            return
        self._key = None
        if self._blocks[-1]["type"] == "thinking":
            yield self._delta({"type": "signature_delta", "signature": "c2lnbmVk"})
        yield {"type": "content_block_stop", "index": self._index}

    def _ending(self, event: Finish | Usage) -> Iterator[Payload]:
        self._endings_left -= 1
        if isinstance(event, Usage):
            self._usage = event
        else:
            self._reason = _REASONS.get(event.reason, event.reason)
        ends = not self._endings_left and self._reason is not None
        if ends:
            yield from self._stop_block()
        if ends or isinstance(event, Usage):
            delta = {"stop_reason": self._reason if ends else None, "stop_sequence": None}
            yield {"type": "message_delta", "delta": delta} | self._usage_of(_usage_object)
        if ends:
            yield {"type": "message_stop"}

    def _message(self, content: list[Payload]) -> Payload:
        return {
            "id": f"msg_{self.request.number:06d}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _usage_of(self, form: Any) -> Payload:
        """The usage in one of its two forms; nothing where the script has none, which only imitators do."""
        return {} if self._usage is None else {"usage": form(self._usage)}


def _place(event: _Content) -> tuple[str, int]:
    match event:
        case ToolCall(index) | ToolArgs(index):
            return "tool_use", index
        case Reasoning(choice=choice):
            return "thinking", choice
        case Text(choice=choice):
            return "text", choice


def _new_block(event: _Content, message: str) -> Payload:
    match event:
        case ToolCall(_, id, name):
            return {"type": "tool_use", "id": id, "name": name, "pieces": ""}
    return {"type": _place(event)[0], "pieces": ""}


def _announced(block: Payload) -> Payload:
    return _with(block, {} if block["type"] == "tool_use" else "")


def _whole(block: Payload) -> Payload:
    pieces = block["pieces"]
    return _with(block, json.loads(pieces or "{}") if block["type"] == "tool_use" else pieces)


def _with(block: Payload, value: Any) -> Payload:
    """A block with its content where its type has it."""
    fields = {name: part for name, part in block.items() if name != "pieces"}
    match block["type"]:
        case "tool_use":
            return fields | {"input": value}
        case "thinking":
            return fields | {"thinking": value, "signature": "c2lnbmVk" if value else ""}
    return fields | {"text": value}


def _usage_at_start(usage: Usage) -> Payload:
    return _usage_object(usage) | {"output_tokens": 1, "service_tier": "standard"}


def _usage_object(usage: Usage) -> Payload:
    cached, written = usage.cached or 0, usage.cache_write or 0
    counts: Payload = {
        "input_tokens": usage.input_tokens - cached - written,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": usage.output_tokens,
    }
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning}}
    return counts if usage.reasoning is None else counts | details
