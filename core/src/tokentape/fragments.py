"""What one chunk adds to the parts of a call, and how it is kept until the writer takes it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Extra(NamedTuple):
    """Stands in the part column for an event whose tokens are known."""

    part: int
    n_tokens: int | None
    logprobs: Any


class Fragment(NamedTuple):
    """What one chunk adds to one part.

    Attributes:
        part: number of the part, as `CallRecorder.part` gives it.
        text: exactly as received, not empty.
        n_tokens: how many model tokens it holds, only if that is known.
        logprobs: a list of plain values, never the SDK's objects.
    """

    part: int
    text: str
    n_tokens: int | None = None
    logprobs: list[Any] | None = None


def joined(fragments: list[Fragment]) -> list[Fragment]:
    """One fragment for each part: what a chunk adds to a part is one event, however many pieces it came in."""
    if len(fragments) <= 1:
        return fragments
    found: dict[int, Fragment] = {}
    for new in fragments:
        old = found.get(new.part)
        if old is None:
            found[new.part] = new
            continue
        known = old.n_tokens is not None and new.n_tokens is not None
        count = (old.n_tokens or 0) + (new.n_tokens or 0) if known else None
        logprobs = [*(old.logprobs or ()), *(new.logprobs or ())] or None
        found[new.part] = Fragment(new.part, old.text + new.text, count, logprobs)
    return list(found.values())
