"""OpenAI chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..events import ErrorEvent, Event, Finish, Reasoning, Refusal, Role, Text, ToolArgs, ToolCall, Usage
from ..log import Request
from ..script import Script
from .base import sse
from .openai_common import CompletionsWire, logprob_objects


class ChatCompletions(CompletionsWire):
    """`POST …/chat/completions`, at OpenAI, at Azure and at the many servers that imitate it."""

    path = "/chat/completions"
    carries = (Role, Text, Reasoning, ToolCall, ToolArgs, Refusal, Finish, Usage, ErrorEvent)
    id_prefix = "chatcmpl"
    chunk_object = "chat.completion.chunk"
    body_object = "chat.completion"

    def __init__(self, request: Request, script: Script) -> None:
        super().__init__(request, script)
        self._introduced: set[int] = set()

    def frames(self, event: Event) -> Iterator[bytes]:
        """One chunk for every event."""
        match event:
            case Usage() | ErrorEvent():
                yield sse(self.aside(event))
            case Finish(reason, choice):
                yield sse(self.chunk({"index": choice, "delta": {}, "logprobs": None, "finish_reason": reason}))
            case Role() | Text() | Reasoning() | ToolCall() | ToolArgs() | Refusal():
                yield sse(self.chunk(self._delta_choice(event)))

    def _delta_choice(self, event: Role | Text | Reasoning | ToolCall | ToolArgs | Refusal) -> dict[str, Any]:
        delta = _delta(event)
        if event.choice not in self._introduced:  # the first delta of a choice always tells the role
            self._introduced.add(event.choice)
            delta = {"role": "assistant"} | delta
        return {"index": event.choice, "delta": delta, "logprobs": _logprobs([event]), "finish_reason": None}

    def whole_choice(self, number: int) -> dict[str, Any]:
        """One choice with its message."""
        events = self.events_of(number)
        return {
            "index": number,
            "message": _message(events),
            "logprobs": _logprobs(events),
            "finish_reason": self.finish_reason(number),
        }


def _delta(event: Event) -> dict[str, Any]:
    match event:
        case Role():
            return {"role": "assistant", "content": "", "refusal": None}
        case Text(text):
            return {"content": text}
        case Reasoning(text, field):
            return {field: text}
        case Refusal(text):
            return {"refusal": text}
        case ToolCall(index, id, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
        case ToolArgs(index, arguments):
            return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
    raise TypeError(f"no delta for {event!r}")


def _logprobs(events: Sequence[Event]) -> dict[str, Any] | None:
    objects = [item for event in events if isinstance(event, Text) for item in logprob_objects(event.logprobs)]
    return {"content": objects, "refusal": None} if objects else None


def _message(events: Sequence[Event]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _joined(event.text for event in events if isinstance(event, Text)),
        "refusal": _joined(event.text for event in events if isinstance(event, Refusal)),
    }
    for event in events:
        if isinstance(event, Reasoning):
            message[event.field] = message.get(event.field, "") + event.text
    calls = [_whole_call(event, events) for event in events if isinstance(event, ToolCall)]
    return message | {"tool_calls": calls} if calls else message


def _joined(pieces: Iterator[str]) -> str | None:
    return "".join(pieces) or None


def _whole_call(call: ToolCall, events: Sequence[Event]) -> dict[str, Any]:
    pieces = (event.arguments for event in events if isinstance(event, ToolArgs) and event.index == call.index)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(pieces)}}
