"""Reads events of the Responses API."""

from __future__ import annotations

from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.models import Kind
from tokentape.reading import entries, field, shown, text_of
from tokentape.stainless import plain

from .reading import OpenAIReading
from .usage import read_usage

# Event type without `.delta`: the kind of its part, and the part's second index.
_DELTAS: Final[dict[str, tuple[Kind, str | None]]] = {
    "response.output_text": ("text", "content_index"),
    "response.refusal": ("refusal", "content_index"),
    "response.reasoning_text": ("reasoning", "content_index"),
    "response.reasoning_summary_text": ("reasoning", "summary_index"),
    "response.function_call_arguments": ("tool_args", None),
    "response.mcp_call_arguments": ("tool_args", None),
    "response.mcp_call.arguments": ("tool_args", None),
    "response.custom_tool_call_input": ("tool_args", None),
    "response.code_interpreter_call_code": ("tool_args", None),
    "response.code_interpreter_call.code": ("tool_args", None),
    "response.shell_call_command": ("tool_args", "command_index"),
    "response.apply_patch_call_operation_diff": ("tool_args", None),
    "response.audio.transcript": ("audio_transcript", None),
    "response.audio_transcript": ("audio_transcript", None),
    "response.output_audio_transcript": ("audio_transcript", "content_index"),
}
# Where a `.done` event repeats the whole of what its deltas brought, or brings it for the first time.
_WHOLE: Final = ("text", "refusal", "arguments", "input", "code", "command", "diff", "transcript")
_TOOL_ITEMS: Final = frozenset(
    {
        "function_call",
        "mcp_call",
        "custom_tool_call",
        "code_interpreter_call",
        "shell_call",
        "local_shell_call",
        "apply_patch_call",
    }
)
_TEXT_DELTA: Final = "response.output_text.delta"
_NOWHERE: Final = object()


class ResponsesReader(OpenAIReading):
    """Reads `ResponseStreamEvent` objects."""

    __slots__ = ("_began", "_items", "_plain_content", "_plain_output", "_text_part")

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        self._items: dict[str, tuple[str | None, str | None]] = {}
        self._began: set[int] = set()
        # Where the text goes on that needs no more than an append.
        self._plain_output: Any = _NOWHERE
        self._plain_content: Any = None
        self._text_part = 0

    def read(self, event: Any, asked_ns: int, at_ns: int) -> None:
        """Read a `ResponseStreamEvent`."""
        try:
            fields = event.__dict__
            text = fields["delta"]
            if (
                fields["type"] == _TEXT_DELTA
                and fields["output_index"] == self._plain_output
                and fields["content_index"] == self._plain_content
                and text.__class__ is str
                and text
                and not fields["logprobs"]
            ):
                self._extend((asked_ns, at_ns, self._text_part, text))
                return
        except (AttributeError, KeyError):
            pass  # an event of another shape, which `_read` looks at field by field
        self._read(event, asked_ns, at_ns)

    def _read(self, event: Any, asked_ns: int, at_ns: int) -> None:
        self._plain_output = _NOWHERE
        kind = text_of(getattr(event, "type", None))
        name, _, last = kind.rpartition(".")
        fragments: list[Fragment] = []
        if last == "delta" and name in _DELTAS:
            self._read_delta(event, name, fragments)
        elif last == "done" and name in _DELTAS:
            self._read_whole(event, name, fragments)
        elif kind == "response.output_item.added":
            self._read_item(event)
        elif kind == "error":
            self._call.judge("error", text_of(field(event, "code")) or "error", text_of(field(event, "message")))
        else:
            self._read_response(kind, getattr(event, "response", None))
        self._call.add_chunk(asked_ns, at_ns, fragments)
        if kind == _TEXT_DELTA and fragments and not self._call.carry_ns:
            self._plain_output, self._plain_content = event.output_index, event.content_index
            self._text_part = fragments[0].part

    def _read_delta(self, event: Any, name: str, fragments: list[Fragment]) -> None:
        text = text_of(getattr(event, "delta", None))
        if text:
            part = self._part_of(event, name)
            self._began.add(part)
            logprobs = plain(entries(getattr(event, "logprobs", None))) or None
            fragments.append(Fragment(part, text, len(logprobs) if logprobs else None, logprobs))

    def _read_whole(self, event: Any, name: str, fragments: list[Fragment]) -> None:
        """Take from a `.done` event only what no delta has brought."""
        text = next((text_of(value) for value in (field(event, key) for key in _WHOLE) if value), "")
        if text:
            part = self._part_of(event, name)
            if part not in self._began:
                self._began.add(part)
                fragments.append(Fragment(part, text))

    def _read_item(self, event: Any) -> None:
        """A tool call has its part as soon as it is announced."""
        item = getattr(event, "item", None)
        index = shown(getattr(event, "output_index", None))
        kind = text_of(field(item, "type"))
        if kind in _TOOL_ITEMS:
            self._items[index] = item_name, item_id = (
                text_of(field(item, "name")) or None,
                text_of(field(item, "call_id") or field(item, "id")) or None,
            )
            if kind not in ("shell_call", "local_shell_call"):
                self._call.part("tool_args", 0, index, item_name, item_id)

    def _part_of(self, event: Any, name: str) -> int:
        kind, second = _DELTAS[name]
        index = shown(getattr(event, "output_index", None))
        inner = getattr(event, second, None) if second is not None else None
        provider_index = index if inner is None else f"{index}/{shown(inner)}"
        item_name, item_id = self._items.get(index, (None, text_of(getattr(event, "item_id", None)) or None))
        if kind != "tool_args":
            item_name = "summary" if second == "summary_index" else None
        return self._call.part(kind, 0, provider_index, item_name, item_id)

    def _read_response(self, kind: str, response: Any) -> None:
        if response is None:
            return
        call = self._call
        self._note_ids(getattr(response, "id", None), getattr(response, "model", None))
        usage = getattr(response, "usage", None)
        if usage is not None:
            self._note_usage(usage)
        tier = getattr(response, "service_tier", None)
        if isinstance(tier, str):
            call.response_meta["service_tier"] = tier
        if kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
            self._read_end(kind, response)

    def _read_end(self, kind: str, response: Any) -> None:
        call = self._call
        why = field(getattr(response, "incomplete_details", None), "reason")
        call.finish_reasons[0] = text_of(why or getattr(response, "status", None)) or kind.rpartition(".")[2]
        if kind == "response.failed":
            error = getattr(response, "error", None)
            call.judge("error", text_of(field(error, "code")) or "response.failed", text_of(field(error, "message")))
        elif kind == "response.cancelled":
            call.judge("cancelled")
        else:
            call.terminal = True


def read_body(call: CallRecorder, body: dict[str, Any]) -> None:
    """Read a response that was not streamed, from its JSON."""
    call.response_id, call.response_model = body.get("id") or None, body.get("model") or None
    call.usage_counts = read_usage(body.get("usage"))
    if isinstance(body.get("service_tier"), str):
        call.response_meta["service_tier"] = body["service_tier"]
    details = body.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    if why or body.get("status"):
        call.finish_reasons[0] = str(why or body["status"])
