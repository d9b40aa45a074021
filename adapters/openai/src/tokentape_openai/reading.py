"""What the readers of all three wire formats do alike: note ids and usage, and append what a chunk added."""

from __future__ import annotations

from typing import Any, NamedTuple

from tokentape.models import Kind
from tokentape.recorder import CallRecorder

from .usage import read_usage


class Fragment(NamedTuple):
    """What one chunk adds to one part."""

    part: int
    text: str
    n_tokens: int | None = None
    logprobs: Any = None


class Reading:
    """Base of the readers: one object a call, called once a chunk on the caller's thread."""

    __slots__ = ("_call", "_extend", "_usage")

    def __init__(self, call: CallRecorder) -> None:
        self._call = call
        # The list is never replaced, so its method can be looked up once.
        self._extend = call.rows.extend
        self._usage: Any = None

    def _note_chunk(self, at_ns: int) -> None:
        call = self._call
        call.chunks += 1
        if call.first_ns is None:
            call.first_ns = at_ns

    def _note_ids(self, response_id: Any, model: Any) -> None:
        call = self._call
        if not call.response_id and isinstance(response_id, str):
            call.response_id = response_id or None
        if not call.response_model and isinstance(model, str):
            call.response_model = model or None

    def _note_usage(self, usage: Any) -> None:
        """Keep the last usage object; some servers send one a chunk, so it is read once, on the writer thread."""
        self._usage = usage
        self._call.late = self._settle

    def _settle(self) -> None:
        self._call.usage_counts = read_usage(self._usage)
        self._usage = None

    def _append(self, fragments: list[Fragment], at_ns: int, wait_ns: int) -> None:
        """Append a chunk's fragments: several for one part are one event, the first event has the whole wait."""
        call = self._call
        wait_ns = call.take_wait(wait_ns)
        for fragment in _joined(fragments):
            call.add(at_ns, wait_ns, *fragment)
            wait_ns = 0
        call.carry_ns = wait_ns

    def _part(self, kind: Kind, choice: int = 0, index: str | None = None) -> int:
        return self._call.part(kind, choice, index)


def _joined(fragments: list[Fragment]) -> list[Fragment]:
    if len(fragments) < 2:
        return fragments
    joined: dict[int, Fragment] = {}
    for new in fragments:
        old = joined.get(new.part)
        if old is None:
            joined[new.part] = new
            continue
        known = old.n_tokens is not None and new.n_tokens is not None
        count = (old.n_tokens or 0) + (new.n_tokens or 0) if known else None
        joined[new.part] = Fragment(new.part, old.text + new.text, count, (old.logprobs or []) + (new.logprobs or []))
    return list(joined.values())


def text_of(value: Any) -> str:
    """The text of a field that should be a string: lists of parts are joined, anything else that is there is shown."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(text_of(_field(item, "text")) for item in value)
    return str(value)


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)


field = _field
