"""Output items of the Responses API and their parts: what is announced, added to, and declared done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ..events import Logprob
from .base import Payload
from .openai_common import logprob_objects


class _Form(NamedTuple):
    """How a kind of part is spelled.

    Attributes:
        part: prefix of the events about the part, None if there are none.
        text: prefix of the events about its text.
        counter: the field that numbers it within its item, None if an item has only one.
        whole: the field that holds all of its text.
    """

    part: str | None
    text: str
    counter: str | None
    whole: str


_FORMS: Final = {
    "output_text": _Form("response.content_part", "response.output_text", "content_index", "text"),
    "refusal": _Form("response.content_part", "response.refusal", "content_index", "refusal"),
    "reasoning_text": _Form("response.content_part", "response.reasoning_text", "content_index", "text"),
    "summary_text": _Form(
        "response.reasoning_summary_part", "response.reasoning_summary_text", "summary_index", "text"
    ),
    "arguments": _Form(None, "response.function_call_arguments", None, "arguments"),
}


class Part:
    """One piece of an item: a content part, a part of a summary, or the arguments of a call.

    Args:
        kind: one of the provider's types of parts, or `arguments`.
        item: what names the item in each event.
        index: number of the part within its item.
    """

    def __init__(self, kind: str, item: Payload, index: int) -> None:
        self.kind = kind
        self._form = form = _FORMS[kind]
        self._place = item | ({form.counter: index} if form.counter else {})
        self._pieces: list[str] = []
        self._logprobs: list[Payload] = []

    def added(self) -> Iterator[Payload]:
        """The part is announced."""
        if self._form.part:
            yield {"type": f"{self._form.part}.added", **self._place, "part": self.value()}

    def delta(self, text: str, logprobs: tuple[Logprob, ...] = ()) -> Payload:
        """A piece is added."""
        objects = logprob_objects(logprobs)
        self._pieces.append(text)
        self._logprobs += objects
        return {"type": f"{self._form.text}.delta", **self._place, "delta": text} | self._with_logprobs(objects)

    def done(self) -> Iterator[Payload]:
        """The part is complete."""
        whole = {self._form.whole: self.text} | self._with_logprobs(self._logprobs)
        yield {"type": f"{self._form.text}.done", **self._place} | whole
        if self._form.part:
            yield {"type": f"{self._form.part}.done", **self._place, "part": self.value()}

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._pieces)

    def value(self) -> Payload:
        """The part as it stands in its item."""
        value = {"type": self.kind, self._form.whole: self.text}
        return value | ({"annotations": [], "logprobs": self._logprobs} if self.kind == "output_text" else {})

    def _with_logprobs(self, objects: list[Payload]) -> Payload:
        return {"logprobs": objects} if self.kind == "output_text" else {}


class Item:
    """One output item: a message, a reasoning item or a function call.

    Args:
        kind: the provider's type of item.
        output_index: its number in the response.
        item_id: its id.
        fields: what else is known when it is announced.
    """

    def __init__(self, kind: str, output_index: int, item_id: str, **fields: Any) -> None:
        self.kind = kind
        self.parts: dict[tuple[str, int], Part] = {}
        self._status = "in_progress"
        self._id = item_id
        self._output_index = output_index
        self._fields = fields

    def new_part(self, kind: str, number: int) -> Part:
        """Add a part; a content part is numbered by its position, a part of a summary by the script."""
        index = number if kind == "summary_text" else len(self.parts_of("content_index"))
        part = Part(kind, {"item_id": self._id, "output_index": self._output_index}, index)
        self.parts[kind, number] = part
        return part

    def parts_of(self, counter: str) -> list[Part]:
        """The parts that are counted under that name."""
        return [part for part in self.parts.values() if _FORMS[part.kind].counter == counter]

    def added(self) -> Payload:
        """The item is announced."""
        return {"type": "response.output_item.added", "output_index": self._output_index, "item": self.value()}

    def done(self, status: str) -> Payload:
        """The item is complete, or as complete as it will be."""
        self._status = status
        return {"type": "response.output_item.done", "output_index": self._output_index, "item": self.value()}

    def value(self) -> Payload:
        """The item as it stands in the response."""
        value = {"id": self._id, "type": self.kind, "status": self._status, **self._fields}
        content = [part.value() for part in self.parts_of("content_index")]
        match self.kind:
            case "message":
                return value | {"role": "assistant", "content": content}
            case "reasoning":
                return value | {
                    "summary": [part.value() for part in self.parts_of("summary_index")],
                    "content": content,
                }
        return value | {"arguments": "".join(part.text for part in self.parts.values())}
