"""Reads LlamaIndex's chunks, of any provider: what each adds to the parts of an answer.

The text of a chunk is its `delta`. Where a tool's arguments stand depends on the integration: in the provider's own
event that comes along as `raw`, or in blocks that hold everything so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.models import Usage
from tokentape.reading import Reading, field, string

from .raw import Piece, finish_of, pieces_of, told_of, usage_of
from .usage import read_usage


class ChunkReader(Reading):
    """Reads the chunks of one call. Nothing of a chunk is kept but its strings and numbers."""

    __slots__ = ("_seen", "_text_part", "_typed")

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        # Known once a text has come: what is nothing but more of it needs no more than an append.
        self._text_part: int | None = None
        # How much of each tool call's arguments has come, where blocks hold everything so far.
        self._seen: dict[int, int] = {}
        # Whether the provider's own events say what the parts are.
        self._typed = False

    def read(self, chunk: Any, asked_ns: int, at_ns: int) -> None:
        """Append what a `ChatResponse` or a `CompletionResponse` adds."""
        # Pydantic's models have a `__getattr__`, which makes an attribute three times as dear as a dictionary's item.
        fields = chunk.__dict__
        delta = fields["delta"]
        if delta and self._text_part is not None and _is_plain_text(fields):
            self._extend((at_ns, at_ns, self._text_part, delta))
            return
        fragments: list[Fragment] = []
        message, raw = getattr(chunk, "message", None), chunk.raw
        self._add_reasoning(chunk, message, fragments)
        if isinstance(delta, str) and delta:
            self._text_part = self._call.part("text")
            fragments.append(Fragment(self._text_part, delta))
        for piece in pieces_of(raw):
            self._typed = True
            self._add(_named(piece, message), fragments)
        if not self._typed and message is not None:
            self._add_blocks(message.blocks, fragments)
        self._note(chunk, message)
        self._call.add_chunk(at_ns, at_ns, fragments)

    def read_end(self, response: Any) -> None:
        """Note what an answer that is complete, or its last chunk, says of itself."""
        self._note(response, getattr(response, "message", None))

    def _counts(self, usage: Any) -> Usage | None:
        return read_usage(usage)

    def _add_reasoning(self, chunk: Any, message: Any, fragments: list[Fragment]) -> None:
        """Reasoning, where integrations have agreed to put it."""
        told = chunk.additional_kwargs.get("thinking_delta")
        if not told and message is not None:
            told = message.additional_kwargs.get("thinking_delta")
        if isinstance(told, str) and told:
            fragments.append(Fragment(self._call.part("reasoning"), told))

    def _add(self, piece: Piece, fragments: list[Fragment]) -> None:
        part = self._call.part(piece.kind, 0, piece.place, piece.name, piece.external_id)
        if piece.text:
            fragments.append(Fragment(part, piece.text))

    def _add_blocks(self, blocks: Any, fragments: list[Fragment]) -> None:
        for position, block in enumerate(_tools(blocks)):
            seen, arguments = self._seen.get(position, 0), block.tool_kwargs
            # Arguments that have been parsed are not what the provider sent; only that there is such a call is known.
            text = arguments[seen:] if isinstance(arguments, str) else ""
            self._seen[position] = seen + len(text)
            self._add(Piece("tool_args", str(position), text, block.tool_name, block.tool_call_id), fragments)

    def _note(self, chunk: Any, message: Any) -> None:
        call, raw = self._call, told_of(chunk.raw)
        self._note_ids(field(raw, "id"), field(raw, "model"))
        own: Mapping[str, Any] = message.additional_kwargs if message is not None else {}
        usage = usage_of(raw) or own.get("usage") or _counted(chunk.additional_kwargs)
        if usage:
            self._note_usage(usage)
        reason = finish_of(chunk.raw) or string(own.get("stop_reason"))
        if reason is not None:
            call.finish_reasons[0] = reason
            call.terminal = True


def _tools(blocks: Any) -> list[Any]:
    return [block for block in blocks if getattr(block, "block_type", None) == "tool_call"]


def _named(piece: Piece, message: Any) -> Piece:
    """A piece of a tool's arguments with the tool's name, which Anthropic's integration has in the last block."""
    tools = _tools(message.blocks) if piece.kind == "tool_args" and piece.name is None and message is not None else []
    return piece._replace(name=tools[-1].tool_name, external_id=tools[-1].tool_call_id) if tools else piece


def _counted(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Counts as LlamaIndex's integrations name them where the provider's own object is not at hand."""
    return told if isinstance(told.get("completion_tokens"), int) else None


def _is_plain_text(fields: Mapping[str, Any]) -> bool:
    """Whether a chunk says nothing but a piece of text."""
    raw = fields["raw"]
    if fields["additional_kwargs"] or (raw is not None and _says_more(raw)):
        return False
    message = fields.get("message")
    if message is None:
        return True
    said = message.__dict__
    return len(said["blocks"]) <= 1 and not said["additional_kwargs"]


def _says_more(raw: Any) -> bool:
    """Whether the provider's own chunk has a finish reason or counts."""
    said = raw if raw.__class__ is dict else getattr(raw, "__dict__", None)
    if said is None or said.get("usage"):
        return True
    choices: Any = said.get("choices")
    return bool(choices) and (len(choices) > 1 or field(choices[0], "finish_reason") is not None)
