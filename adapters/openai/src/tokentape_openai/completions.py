"""Reads chunks of the legacy completions endpoint."""

from __future__ import annotations

from typing import Any

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.reading import count, entries, text_of
from tokentape.stainless import plain

from .reading import OpenAIReading


class CompletionReader(OpenAIReading):
    """Reads `Completion` objects as they come in a stream."""

    __slots__ = ("_choices",)

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        self._choices = call.request.choices

    def read(self, chunk: Any, asked_ns: int, at_ns: int) -> None:
        """Read a `Completion`."""
        self._note_ids(getattr(chunk, "id", None), getattr(chunk, "model", None))
        fragments: list[Fragment] = []
        for choice in entries(getattr(chunk, "choices", None)):
            self._read_choice(choice, fragments)
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self._note_usage(usage)
        self._call.add_chunk(asked_ns, at_ns, fragments)

    def _read_choice(self, choice: Any, fragments: list[Fragment]) -> None:
        number = count(getattr(choice, "index", None)) or 0
        text = text_of(getattr(choice, "text", None))
        if text:
            logprobs = getattr(choice, "logprobs", None)
            tokens = entries(getattr(logprobs, "tokens", None))
            fragments.append(
                Fragment(
                    self._call.part("text", number),
                    text,
                    len(tokens) if tokens else None,
                    [plain(logprobs)] if tokens else None,
                )
            )
        reason = getattr(choice, "finish_reason", None)
        if isinstance(reason, str):
            self._call.finish_reasons[number] = reason
            self._call.terminal = len(self._call.finish_reasons) >= self._choices
