"""Reads what the provider's own chunk or answer says beside LlamaIndex's: by its fields, whatever class it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tokentape.models import Kind
from tokentape.reading import entries, field, string

_ENDED: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
# What an answer of the Responses API says before it is an answer.
_NOT_YET: Final = frozenset({"queued", "in_progress"})


class Piece(NamedTuple):
    """What a chunk adds to a part that LlamaIndex's own fields do not show piece by piece."""

    kind: Kind
    place: str | None
    text: str
    name: str | None = None
    external_id: str | None = None


def pieces_of(raw: Any) -> Iterator[Piece]:
    """Reasoning and tool arguments of events whose type says what they are: Anthropic's, and OpenAI's Responses."""
    delta = field(raw, "delta")
    match field(raw, "type"):
        case "content_block_delta" if field(delta, "type") == "input_json_delta":
            yield Piece("tool_args", str(field(raw, "index")), string(field(delta, "partial_json")) or "")
        case "response.output_item.added":
            item = field(raw, "item")
            if field(item, "type") == "function_call":
                place, name = str(field(raw, "output_index")), string(field(item, "name"))
                yield Piece("tool_args", place, "", name, string(field(item, "call_id")))
        case "response.function_call_arguments.delta":
            yield Piece("tool_args", str(field(raw, "output_index")), string(delta) or "")
        case "response.reasoning_text.delta":
            yield Piece("reasoning", f"{field(raw, 'output_index')}/{field(raw, 'content_index')}", string(delta) or "")
        case "response.reasoning_summary_text.delta":
            place = f"{field(raw, 'output_index')}/{field(raw, 'summary_index')}"
            yield Piece("reasoning", place, string(delta) or "", "summary")


def told_of(raw: Any) -> Any:
    """The object that has ids and usage: the chunk or answer itself, or the response that an event is about."""
    return field(raw, "response") or raw


def usage_of(told: Any) -> Any:
    """The usage that it has, in Groq's own place too; None where it has none."""
    return field(told, "usage") or field(field(told, "x_groq"), "usage")


def finish_of(raw: Any) -> str | None:
    """The provider's own word for why the answer ended; None while it goes on, or where it is not to be seen."""
    choices = entries(field(raw, "choices"))
    if choices:
        return string(field(choices[0], "finish_reason"))
    if field(raw, "type") in _ENDED or field(raw, "object") == "response":
        response = told_of(raw)
        status = string(field(response, "status"))
        reason = string(field(field(response, "incomplete_details"), "reason"))
        return reason or (None if status in _NOT_YET else status)
    return string(field(raw, "stop_reason")) or string(field(field(raw, "delta"), "stop_reason"))
