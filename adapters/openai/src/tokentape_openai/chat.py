"""Reads chunks of chat completions, of OpenAI and of the many servers that speak its format in their own way."""

from __future__ import annotations

from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.reading import count, entries, field, shown, text_of
from tokentape.stainless import plain

from .reading import OpenAIReading
from .usage import read_usage

# Where servers put reasoning, which the format has no field for: the first that is there counts, since some send two.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")


class ChatReader(OpenAIReading):
    """Reads `ChatCompletionChunk` objects; any level of them may be missing."""

    __slots__ = ("_choices", "_plain_choice", "_text_part")

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        self._choices = call.request.choices
        # The choice whose text needs no more than an append; None while a chunk has to be looked at in full.
        self._plain_choice: int | None = None
        self._text_part = 0

    def read(self, chunk: Any, asked_ns: int, at_ns: int) -> None:
        """Read a `ChatCompletionChunk`."""
        # Pydantic's models have a `__getattr__`, which makes every attribute three times as dear as a dictionary's
        # item.
        try:
            fields = chunk.__dict__
            (choice,) = fields["choices"]
            chosen = choice.__dict__
            delta = chosen["delta"]
            said = delta.__dict__
            text = said["content"]
            if (
                chosen["index"] == self._plain_choice
                and text.__class__ is str
                and text
                and chosen["finish_reason"] is None
                and said["tool_calls"] is None
                and said["refusal"] is None
                and said["function_call"] is None
                and not delta.__pydantic_extra__
                and chosen["logprobs"] is None
                and fields["usage"] is None
            ):
                self._extend((asked_ns, at_ns, self._text_part, text))
                return
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # a chunk of another shape, which `_read` looks at level by level
        self._read(chunk, asked_ns, at_ns)

    def _read(self, chunk: Any, asked_ns: int, at_ns: int) -> None:
        self._note_ids(getattr(chunk, "id", None), getattr(chunk, "model", None))
        fragments: list[Fragment] = []
        for choice in entries(getattr(chunk, "choices", None)):
            self._read_choice(choice, fragments)
        self._read_extras(chunk)
        self._call.add_chunk(asked_ns, at_ns, fragments)
        self._choose_plain(fragments)

    def _choose_plain(self, fragments: list[Fragment]) -> None:
        """After a chunk that was nothing but text, once the ids are known, the next of its kind is simply appended."""
        call = self._call
        part = call.parts[fragments[0].part] if len(fragments) == 1 and fragments[0].logprobs is None else None
        plain_text = part is not None and part.kind == "text" and not call.carry_ns and call.response_id is not None
        self._plain_choice = part.choice if part is not None and plain_text else None
        self._text_part = part.part if part is not None else 0

    def _read_extras(self, chunk: Any) -> None:
        usage = getattr(chunk, "usage", None)
        extra = getattr(chunk, "__pydantic_extra__", None) or {}
        if usage is None and isinstance(extra.get("x_groq"), dict):
            usage = extra["x_groq"].get("usage")
        if usage is not None:
            self._note_usage(usage)
        tier = getattr(chunk, "service_tier", None)
        if isinstance(tier, str):
            self._call.response_meta["service_tier"] = tier

    def _read_choice(self, choice: Any, fragments: list[Fragment]) -> None:
        number = count(getattr(choice, "index", None)) or 0
        delta = getattr(choice, "delta", None)
        if delta is not None:
            self._read_delta(delta, number, choice, fragments)
        reason = getattr(choice, "finish_reason", None)
        if isinstance(reason, str):
            self._call.finish_reasons[number] = reason
            self._call.terminal = len(self._call.finish_reasons) >= self._choices

    def _read_delta(self, delta: Any, number: int, choice: Any, fragments: list[Fragment]) -> None:
        extra = getattr(delta, "__pydantic_extra__", None) or {}
        self._add_text(
            "reasoning", next((extra[f] for f in _REASONING_FIELDS if extra.get(f)), None), number, fragments
        )
        content = getattr(delta, "content", None)
        if isinstance(content, list):
            # Mistral's reasoning models send a list of typed parts.
            for item in content:
                thinking = field(item, "thinking")
                self._add_text("reasoning" if thinking else "text", thinking or field(item, "text"), number, fragments)
        else:
            self._add_text("text", content, number, fragments, _logprobs(choice, "content"))
        self._add_text("refusal", getattr(delta, "refusal", None), number, fragments, _logprobs(choice, "refusal"))
        self._read_tools(delta, number, fragments)
        audio = getattr(delta, "audio", None)
        if audio is not None:
            self._add_text("audio_transcript", field(audio, "transcript"), number, fragments)

    def _read_tools(self, delta: Any, number: int, fragments: list[Fragment]) -> None:
        for position, tool in enumerate(entries(getattr(delta, "tool_calls", None))):
            index = field(tool, "index")
            # Servers that leave the index out send each call whole, so its id tells it from the others.
            self._add_tool(tool, field(tool, "function") or field(tool, "custom"), number, index, position, fragments)
        function = getattr(delta, "function_call", None)
        if function is not None:
            self._add_tool(None, function, number, "function_call", 0, fragments)

    def _add_tool(
        self, tool: Any, function: Any, number: int, index: Any, position: int, fragments: list[Fragment]
    ) -> None:
        tool_id = text_of(field(tool, "id")) or None
        provider_index = shown(index if index is not None else tool_id or position)
        part = self._call.part("tool_args", number, provider_index, text_of(field(function, "name")) or None, tool_id)
        arguments = field(function, "arguments")
        text = text_of(arguments if arguments is not None else field(function, "input"))
        if text:
            fragments.append(Fragment(part, text))

    def _add_text(
        self, kind: Any, value: Any, number: int, fragments: list[Fragment], logprobs: list[Any] | None = None
    ) -> None:
        text = text_of(value)
        if text:
            fragments.append(
                Fragment(self._call.part(kind, number), text, len(logprobs) if logprobs else None, logprobs or None)
            )


def _logprobs(choice: Any, name: str) -> list[Any] | None:
    tokens = entries(getattr(getattr(choice, "logprobs", None), name, None))
    return plain(tokens) if tokens else None


def read_body(call: CallRecorder, body: dict[str, Any]) -> None:
    """Read a chat completion or completion that was not streamed, from its JSON."""
    call.response_id, call.response_model = body.get("id") or None, body.get("model") or None
    call.usage_counts = read_usage(body.get("usage"))
    if isinstance(body.get("service_tier"), str):
        call.response_meta["service_tier"] = body["service_tier"]
    for position, choice in enumerate(entries(body.get("choices"))):
        reason = field(choice, "finish_reason")
        if isinstance(reason, str):
            index = count(field(choice, "index"))
            call.finish_reasons[position if index is None else index] = reason
