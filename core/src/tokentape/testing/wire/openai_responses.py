"""The OpenAI Responses API.

An item or a part is declared done as soon as another one begins and the script holds nothing more for it. The event
that ends the response carries the usage, so it goes out with the last `Finish` or `Usage` of the script.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator

from ..events import ErrorEvent, Event, Finish, Reasoning, Refusal, Role, Summary, Text, ToolArgs, ToolCall, Usage
from ..log import Request
from ..script import Script
from .base import Payload, TypedEventsWire
from .openai_common import CREATED, OpenAIWire
from .responses_items import Item, Part

_Content = Text | Refusal | Reasoning | Summary | ToolCall | ToolArgs
_ItemKey = tuple[str, int]
_PartKey = tuple[_ItemKey, tuple[str, int]]


class Responses(TypedEventsWire, OpenAIWire):
    """`POST …/responses`, and `GET …/responses/{id}?stream=true&starting_after=n`."""

    path = "/responses"
    carries = (Role, Text, Reasoning, Summary, ToolCall, ToolArgs, Refusal, Finish, Usage, ErrorEvent)

    def __init__(self, request: Request, script: Script) -> None:
        super().__init__(request, script)
        self._items: dict[_ItemKey, Item] = {}
        self._open: dict[_PartKey, Part] = {}
        content = [event for event in script.events if isinstance(event, _Content)]
        self._left = Counter(_place(event) for event in content)
        self._endings_left = sum(isinstance(event, Finish | Usage) for event in script.events)
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._error: ErrorEvent | None = None
        self._begun = False
        self._sequence_number = -1

    @classmethod
    def endpoint(cls, path: str) -> str | None:
        """`/responses`, also for the path of one response."""
        return cls.path if re.search(r"/responses(/[^/]+)?$", path) else None

    @property
    def streams(self) -> bool:
        """Whether the body, or the query of a GET, asks for a stream."""
        return super().streams or self.request.query.get("stream") == "true"

    def problem(self) -> str | None:
        """Also a tool call's arguments without the call have no form here."""
        announced: set[int] = set()
        for event in self.script.events:
            if isinstance(event, ToolCall):
                announced.add(event.index)
            if isinstance(event, ToolArgs) and event.index not in announced:
                return f"the script holds ToolArgs({event.index}, …) before ToolCall({event.index}, …): add the call"
        return super().problem()

    def frames(self, event: Event) -> Iterator[bytes]:
        """All events that one event of the script causes, announcements and completions included."""
        after = int(self.request.query.get("starting_after", -1))
        for payload in self._payloads(event):
            self._sequence_number += 1
            if self._sequence_number > after:
                yield self.frame(payload | {"sequence_number": self._sequence_number})

    def body(self) -> Payload:
        """The response as it stands at the end of the script."""
        for event in self.script.events:
            if isinstance(event, self.carries):
                deque(self._payloads(event), maxlen=0)
        deque(self._close(list(self._open), "completed"), maxlen=0)
        return self._response(self._status)

    def _payloads(self, event: Event) -> Iterator[Payload]:
        if not self._begun:
            self._begun = True
            yield {"type": "response.created", "response": self._response("in_progress")}
            yield {"type": "response.in_progress", "response": self._response("in_progress")}
        match event:
            case ErrorEvent(type, message, code):
                self._error = event
                yield {"type": "error", "code": code or type, "message": message, "param": None}
            case Finish() | Usage():
                yield from self._ending(event)
            case Text() | Refusal() | Reasoning() | Summary() | ToolCall() | ToolArgs():
                yield from self._content(event)

    def _content(self, event: _Content) -> Iterator[Payload]:
        key = _place(event)
        if key not in self._open:
            yield from self._close_finished()
            yield from self._begin(key, event)
        self._left[key] -= 1
        match event:
            case ToolArgs(_, piece) | Summary(_, piece) | Refusal(piece) | Reasoning(piece):
                yield self._open[key].delta(piece)
            case Text(piece, _, logprobs):
                yield self._open[key].delta(piece, logprobs)

    def _begin(self, key: _PartKey, event: _Content) -> Iterator[Payload]:
        item_key, (kind, number) = key
        if item_key not in self._items:
            item = self._items[item_key] = self._new_item(item_key, event)
            yield item.added()
        part = self._open[key] = self._items[item_key].new_part(kind, number)
        yield from part.added()

    def _new_item(self, key: _ItemKey, event: _Content) -> Item:
        kind, output_index = key[0], len(self._items)
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind]
        fields = {"call_id": event.id, "name": event.name} if isinstance(event, ToolCall) else {}
        # After the response's id, so that a response has the same items each time it is retrieved.
        return Item(kind, output_index, f"{prefix}_{self._id.removeprefix('resp_')}_{output_index}", **fields)

    def _close_finished(self) -> Iterator[Payload]:
        yield from self._close([key for key in self._open if not self._left[key]], "completed")

    def _close(self, keys: list[_PartKey], status: str) -> Iterator[Payload]:
        for key in keys:
            item_key = key[0]
            yield from self._open.pop(key).done()
            if not any(other[0] == item_key for other in (*self._open, *+self._left)):
                yield self._items[item_key].done(status)

    def _ending(self, event: Finish | Usage) -> Iterator[Payload]:
        self._endings_left -= 1
        if isinstance(event, Usage):
            self._usage = event
        else:
            self._finish = event.reason
        if not self._endings_left and self._finish is not None:
            self._left.clear()
            yield from self._close(list(self._open), "completed" if self._status == "completed" else "incomplete")
            yield {"type": f"response.{self._status}", "response": self._response(self._status)}

    @property
    def _status(self) -> str:
        words = {"length": "incomplete", "content_filter": "incomplete", "failed": "failed"}
        return words.get(self._finish or "stop", "completed")

    def _response(self, status: str) -> Payload:
        ended = status != "in_progress"
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self._finish or "")
        asked = self.request.json
        return {
            "id": self._id,
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": self._failure() if status == "failed" else None,
            "incomplete_details": {"reason": reason} if ended and reason else None,
            "instructions": asked.get("instructions"),
            "metadata": {},
            "model": self.model,
            "output": [item.value() for item in self._items.values()] if ended else [],
            "parallel_tool_calls": asked.get("parallel_tool_calls", True),
            "temperature": asked.get("temperature", 1.0),
            "tool_choice": asked.get("tool_choice", "auto"),
            "tools": asked.get("tools", []),
            "top_p": asked.get("top_p", 1.0),
            "usage": _usage_object(self._usage) if ended and self._usage else None,
        }

    @property
    def _id(self) -> str:
        last = self.request.path.rsplit("/", 1)[-1]
        return f"resp_{self.request.number:06d}" if last == "responses" else last

    def _failure(self) -> Payload:
        error = self._error or ErrorEvent("server_error", "scripted failure")
        return {"code": error.code or error.type, "message": error.message}


def _place(event: _Content) -> _PartKey:
    match event:
        case Text(choice=choice):
            return ("message", choice), ("output_text", 0)
        case Refusal(choice=choice):
            return ("message", choice), ("refusal", 0)
        case Reasoning(choice=choice):
            return ("reasoning", choice), ("reasoning_text", 0)
        case Summary(part):
            return ("reasoning", 0), ("summary_text", part)
        case ToolCall(index) | ToolArgs(index):
            return ("function_call", index), ("arguments", 0)


def _usage_object(usage: Usage) -> Payload:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached or 0,
            "cache_write_tokens": usage.cache_write or 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
