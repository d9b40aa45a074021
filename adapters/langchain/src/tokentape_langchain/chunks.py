"""Reads LangChain's chunks, of any provider: what each adds to the parts of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.reading import text_of

from .provider_tools import provider_tool

_FINISH_REASONS: Final = ("finish_reason", "stop_reason", "done_reason")
_PROVIDER: Final = "model_provider"


class ChunkReader:
    """Reads the chunks of one call. Nothing of a chunk is kept but its strings and numbers."""

    __slots__ = ("_call", "_extend", "_text_part")

    def __init__(self, call: CallRecorder) -> None:
        self._call = call
        # The list is never replaced, so its method can be looked up once.
        self._extend = call.rows.extend
        # Known once a text has come: what is nothing but more of it needs no more than an append.
        self._text_part: int | None = None

    def read(self, token: Any, chunk: Any, at_ns: int) -> None:
        """Append what a chunk adds.

        Args:
            token: its content, for models that send no chunk beside it.
            chunk: a `ChatGenerationChunk`, a `GenerationChunk`, or None.
            at_ns: when it came.
        """
        # Pydantic's models have a `__getattr__`, which makes an attribute three times as dear as a dictionary's item.
        try:
            fields = chunk.__dict__
            said = fields["message"].__dict__
            text, metadata = said["content"], said["response_metadata"]
            if (
                self._text_part is not None
                and text.__class__ is str
                and text
                and not fields["generation_info"]
                and not said["tool_call_chunks"]
                and not said["additional_kwargs"]
                # LangChain puts the provider's name on each chunk.
                and (not metadata or (len(metadata) == 1 and _PROVIDER in metadata))
            ):
                self._extend((at_ns, at_ns, self._text_part, text))
                return
        except (AttributeError, KeyError):
            pass  # a chunk of another shape, which `_read` looks at in full
        self._read(token, chunk, at_ns)

    def _read(self, token: Any, chunk: Any, at_ns: int) -> None:
        message = getattr(chunk, "message", None)
        if message is None:
            fragments: list[Fragment] = []
            self._add_content(token if chunk is None else chunk.text, fragments)
            self._call.add_chunk(at_ns, at_ns, fragments)
        elif not _is_synthetic(message, chunk):
            self._call.add_chunk(at_ns, at_ns, self._fragments(message, chunk.generation_info or {}))

    def _fragments(self, message: Any, info: Mapping[str, Any]) -> list[Fragment]:
        fragments: list[Fragment] = []
        if message.additional_kwargs:
            self._add_unofficial(message.additional_kwargs, fragments)
        self._add_content(message.content, fragments, _logprobs(info))
        for position, tool in enumerate(_tools(message)):
            add_tool(self._call, tool, position, fragments)
        note_finish(self._call, info, message.response_metadata)
        return fragments

    def _add_content(self, content: Any, fragments: list[Fragment], logprobs: list[Any] | None = None) -> None:
        if isinstance(content, str):
            if content:
                part = self._text_part = self._call.part("text")
                fragments.append(Fragment(part, content, len(logprobs) if logprobs else None, logprobs))
        elif isinstance(content, Sequence):
            for block in content:
                if isinstance(block, str):
                    self._add_content(block, fragments)
                elif isinstance(block, Mapping):
                    add_block(self._call, block, block.get("index"), fragments)

    def _add_unofficial(self, extra: Mapping[str, Any], fragments: list[Fragment]) -> None:
        """What chunks carry beside their content, as integrations have agreed to call it."""
        call = self._call
        _add(call.part, "reasoning", extra.get("reasoning_content"), None, fragments)
        _add(call.part, "refusal", extra.get("refusal"), None, fragments)
        audio, function = extra.get("audio"), extra.get("function_call")
        if isinstance(audio, Mapping):
            _add(call.part, "audio_transcript", audio.get("transcript"), None, fragments)
        if isinstance(function, Mapping):
            told = {"name": function.get("name"), "args": function.get("arguments"), "index": "function_call"}
            add_tool(call, told, 0, fragments)


def add_block(call: CallRecorder, block: Mapping[str, Any], index: Any, fragments: list[Fragment]) -> None:
    """Append what a content block adds, in LangChain's form or the provider's own.

    Args:
        call: whose parts it adds to.
        block: says in `type` what it is. Tool calls that LangChain also gives apart are passed over.
        index: number of the block within the answer, where it has one.
        fragments: appended to.
    """
    place = None if index is None else str(index)
    match block.get("type"):
        case "text":
            _add(call.part, "text", block.get("text"), place, fragments)
        case "thinking":
            # Mistral's is a list of texts.
            _add(call.part, "reasoning", text_of(block.get("thinking")), place, fragments)
        case "reasoning":
            _add(call.part, "reasoning", block.get("reasoning") or block.get("text"), place, fragments)
            for piece in block.get("summary") or ():
                _add_summary(call, piece, place, fragments)
        case "refusal":
            _add(call.part, "refusal", block.get("refusal"), place, fragments)
        case "server_tool_call_chunk":
            add_tool(call, block, 0, fragments)


def add_tool(call: CallRecorder, tool: Mapping[str, Any], position: int, fragments: list[Fragment]) -> None:
    """Append a piece of a tool call's arguments; announced without any, the call has its part all the same."""
    index, tool_id = tool.get("index"), tool.get("id") or None
    # Models that leave the index out send each tool call whole, so its id tells it from the others.
    place = str(index if index is not None else tool_id or position)
    part = call.part("tool_args", 0, place, tool.get("name") or None, tool_id)
    arguments = tool.get("args")
    if isinstance(arguments, str) and arguments:
        fragments.append(Fragment(part, arguments))


def _tools(message: Any) -> Sequence[Mapping[str, Any]]:
    """Pieces of tool calls; where LangChain gives them apart, the same stands in the content once more."""
    apart: Sequence[Mapping[str, Any]] = getattr(message, "tool_call_chunks", None) or ()
    if apart or isinstance(message.content, str):
        return apart
    return [tool for block in message.content if (tool := provider_tool(block)) is not None]


def note_finish(call: CallRecorder, *told: Mapping[str, Any], choice: int = 0) -> None:
    """Note the provider's finish reason, where one of these says it: the answer is complete then."""
    for metadata in told:
        reason = next((metadata[name] for name in _FINISH_REASONS if metadata.get(name)), None)
        if metadata.get("object") == "response":
            reason = (metadata.get("incomplete_details") or {}).get("reason") or metadata.get("status")
        if isinstance(reason, str):
            call.finish_reasons[choice] = reason
            call.terminal = True


def _add(part: Any, kind: str, text: Any, place: str | None, fragments: list[Fragment]) -> None:
    if isinstance(text, str) and text:
        fragments.append(Fragment(part(kind, 0, place), text))


def _add_summary(call: CallRecorder, piece: Any, place: str | None, fragments: list[Fragment]) -> None:
    if isinstance(piece, Mapping) and isinstance(piece.get("text"), str) and piece["text"]:
        part = call.part("reasoning", 0, f"{place or 0}/{piece.get('index', 0)}", "summary")
        fragments.append(Fragment(part, piece["text"]))


def _logprobs(info: Mapping[str, Any]) -> list[Any] | None:
    told = info.get("logprobs")
    tokens = told.get("content") if isinstance(told, Mapping) else None
    return tokens if isinstance(tokens, list) and tokens else None


def _is_synthetic(message: Any, chunk: Any) -> bool:
    """Whether LangChain made the chunk itself, to say that none follows."""
    return (
        getattr(message, "chunk_position", None) == "last"
        and not message.content
        and not message.response_metadata
        and message.usage_metadata is None
        and not chunk.generation_info
    )
