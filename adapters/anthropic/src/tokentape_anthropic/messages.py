"""Reads events of the Messages API."""

from __future__ import annotations

from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.models import Kind, Usage
from tokentape.reading import Reading, field, shown, string, text_of
from tokentape.stainless import plain

from .usage import read_usage

# Type of a delta: the field that holds its text, and the kind of its part. Signatures, citations and what was compacted
# are nothing that the model says.
_DELTAS: Final[dict[str, tuple[str, Kind]]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "reasoning"),
    "input_json_delta": ("partial_json", "tool_args"),
}
# Blocks that may begin with text; the field is named like the type.
_BLOCKS: Final[dict[str, Kind]] = {"text": "text", "thinking": "reasoning"}
_NOWHERE: Final = object()


class MessagesReader(Reading):
    """Reads `RawMessageStreamEvent` objects, those of `beta.messages` too."""

    __slots__ = ("_counted", "_plain_field", "_plain_index", "_plain_part", "_plain_type")

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        self._counted = False
        # The block whose next piece needs no more than an append, and the type and field that piece comes as.
        self._plain_index: Any = _NOWHERE
        self._plain_type = ""
        self._plain_field = "text"
        self._plain_part = 0

    def read(self, event: Any, asked_ns: int, at_ns: int) -> None:
        """Read a `RawMessageStreamEvent`."""
        try:
            fields = event.__dict__
            delta = fields["delta"].__dict__
            text = delta[self._plain_field]
            if (
                fields["index"] == self._plain_index
                and delta["type"] == self._plain_type
                and text.__class__ is str
                and text
            ):
                self._extend((asked_ns, at_ns, self._plain_part, text))
                return
        except (AttributeError, KeyError):
            pass  # an event of another shape, which `_read` looks at field by field
        self._read(event, asked_ns, at_ns)

    def _read(self, event: Any, asked_ns: int, at_ns: int) -> None:
        self._plain_index = _NOWHERE
        fragments: list[Fragment] = []
        match getattr(event, "type", None):
            case "content_block_delta":
                self._read_delta(event, fragments)
            case "content_block_start":
                self._read_block(event, fragments)
            case "message_start":
                self._read_start(getattr(event, "message", None))
            case "message_delta":
                self._read_end(event)
            case "message_stop":
                self._call.terminal = True
        self._call.add_chunk(asked_ns, at_ns, fragments)

    def _read_delta(self, event: Any, fragments: list[Fragment]) -> None:
        delta, index = getattr(event, "delta", None), getattr(event, "index", None)
        told = text_of(field(delta, "type"))
        name, kind = _DELTAS.get(told, ("", "text"))
        text = text_of(field(delta, name)) if name else ""
        if text:
            part = self._call.part(kind, 0, shown(index))
            fragments.append(Fragment(part, text))
            self._plain_index, self._plain_part = index, part
            self._plain_type, self._plain_field = told, name

    def _read_block(self, event: Any, fragments: list[Fragment]) -> None:
        """A tool call has its part as soon as it is announced."""
        block, index = getattr(event, "content_block", None), shown(getattr(event, "index", None))
        kind = text_of(field(block, "type"))
        if kind.endswith("tool_use"):
            self._call.part("tool_args", 0, index, string(field(block, "name")), string(field(block, "id")))
        elif kind in _BLOCKS and (text := text_of(field(block, kind))):
            fragments.append(Fragment(self._call.part(_BLOCKS[kind], 0, index), text))

    def _read_start(self, message: Any) -> None:
        self._note_ids(getattr(message, "id", None), getattr(message, "model", None))
        self._note_usage(getattr(message, "usage", None))

    def _read_end(self, event: Any) -> None:
        reason = field(getattr(event, "delta", None), "stop_reason")
        if isinstance(reason, str):
            self._call.finish_reasons[0] = reason
        usage = getattr(event, "usage", None)
        self._counted = self._counted or usage is not None
        self._note_usage(usage)

    def _note_usage(self, usage: Any) -> None:
        """Each count is the whole so far, and what a later object leaves out still holds."""
        said = plain(usage)
        if isinstance(said, dict):
            known = {name: value for name, value in said.items() if value is not None}
            super()._note_usage({**(self._usage or {}), **known})
            note_service_tier(self._call, known)

    def _counts(self, usage: Any) -> Usage:
        return read_usage(usage, complete=self._counted)


def note_service_tier(call: CallRecorder, usage: dict[str, Any]) -> None:
    """Keep the tier that the request was served in, which Anthropic tells with the usage."""
    tier = usage.get("service_tier")
    if isinstance(tier, str):
        call.response_meta["service_tier"] = tier


def read_body(call: CallRecorder, body: dict[str, Any]) -> None:
    """Read a message that was not streamed, from its JSON."""
    call.response_id, call.response_model = string(body.get("id")), string(body.get("model"))
    usage, reason = body.get("usage"), body.get("stop_reason")
    if isinstance(usage, dict):
        call.usage_counts = read_usage(usage, complete=True)
        note_service_tier(call, usage)
    if isinstance(reason, str):
        call.finish_reasons[0] = reason
