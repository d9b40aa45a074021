"""Masks secrets that are spread over the token events of a call.

Events leave in the order they came, so undecided text holds back all that follows it, for a limited time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final, NamedTuple, cast

from ..models import Part, TokenBatch
from .logprobs import tell_only
from .rules import BUILT_IN, LOOKBACK, Rules, Span, merged

HOLD_CHARS: Final = 4096
HOLD_US: Final = 2_000_000
# What is kept of each end of a secret that has no end: enough to recognise how it goes on.
_KEEP: Final = 256


class _Past(NamedTuple):
    """What is remembered of the events of a part that have left.

    `text` is the end of theirs, searched again from `scan` because a secret may have begun there; `marked` says that
    they already show its mark.
    """

    text: str = ""
    scan: int = 0
    marked: bool = False


class _PartView:
    """One part's share of the events at hand, as one text."""

    def __init__(self, past: _Past, rows: Sequence[int], tokens: Sequence[str], rules: Rules, final: bool) -> None:
        self._past = past
        self._rows = rows
        self._text = past.text + "".join(tokens)
        self._starts = list(accumulate(map(len, tokens), initial=len(past.text)))
        self._rules = rules
        self._spans, self._undecided = rules.scan(self._text, past.scan, final=final)
        self._leave = self._undecided

    def first_held(self, otherwise: int) -> int:
        """Row of the first event that has to stay."""
        settled = max(0, bisect_right(self._starts, self._leave) - 1)
        return self._rows[settled] if settled < len(self._rows) else otherwise

    def give_up(self) -> None:
        """Let the undecided text leave: masked whole, unless nothing in it is secret yet."""
        if not self._rules.is_public(self._text, self._undecided):
            self._spans = merged([*self._spans, Span(self._undecided, len(self._text), "undecided")])
        self._leave = len(self._text)

    def mask(self, tokens: list[str]) -> set[int]:
        """Mask the first events, as many as `tokens` has, in place; return the rows that a secret touches."""
        touched = set()
        # From the end, so that what is replaced moves nothing that is still to be replaced.
        for start, end, mark in self._marks():
            first = bisect_right(self._starts, start) - 1
            for i in range(first, bisect_left(self._starts, end)):
                row = self._rows[i]
                if row >= len(tokens):
                    break
                begin = self._starts[i]
                shown = mark if i == first else ""
                tokens[row] = tokens[row][: max(0, start - begin)] + shown + tokens[row][end - begin :]
                touched.add(row)
        return touched

    def _marks(self) -> Iterable[tuple[int, int, str]]:
        for span in reversed(self._spans):
            if span.start >= len(self._past.text):
                yield span.start, span.end, span.mark
            elif span.end > len(self._past.text):
                yield len(self._past.text), span.end, "" if self._past.marked else span.mark

    def past(self, count: int) -> _Past:
        """What to remember once the first `count` rows have left."""
        gone = bisect_left(self._rows, count)
        if not gone:
            return self._past
        cut = self._starts[gone]
        begun = [span.start for span in self._spans if span.start < cut <= span.end]
        scan = min([cut, self._undecided, *begun])
        context = self._text[max(0, scan - LOOKBACK) : scan]
        stretch = self._text[scan:cut]
        if len(stretch) > HOLD_CHARS:
            stretch = stretch[:_KEEP] + stretch[-_KEEP:]
        return _Past(context + stretch, len(context), bool(begun))


class CallRedactor:
    """Masks the token events of one call, on their way from the capture to every output.

    Times, part numbers and the number of events stay as they are. The first event that a secret touches holds the mark,
    the others lose what belongs to it.

    Args:
        rules: what to mask.
    """

    def __init__(self, rules: Rules = BUILT_IN) -> None:
        self._rules = rules
        self._held = TokenBatch((), (), (), ())
        self._pasts: dict[int, _Past] = {}

    def feed(self, batch: TokenBatch) -> TokenBatch:
        """Take the next events of the call.

        Args:
            batch: events with text.

        Returns:
            The events that may leave now, these or earlier ones, and the parts that `batch` announces.
        """
        return self._advance(_joined(self._held, _of_texts(batch)), batch.parts, final=False)

    def finish(self) -> TokenBatch:
        """Return the events that were still held: no more text will come."""
        return self._advance(self._held, (), final=True)

    def _advance(self, events: TokenBatch, announced: tuple[Part, ...], *, final: bool) -> TokenBatch:
        views = {part: self._view(events, part, final) for part in set(events.part)}
        leaving = _leaving(events, views)
        while leaving < len(events) and _held_too_long(events, leaving):
            views[events.part[leaving]].give_up()
            leaving = _leaving(events, views)
        self._held = _rebased(events, leaving, len(events))
        for part, view in views.items():
            self._pasts[part] = view.past(leaving)
        return replace(_masked(_rebased(events, 0, leaving), views.values(), self._rules), parts=announced)

    def _view(self, events: TokenBatch, part: int, final: bool) -> _PartView:
        tokens = _texts(events)
        rows: Sequence[int] = range(len(events))
        if events.part.count(part) < len(events):
            rows = [row for row, owner in enumerate(events.part) if owner == part]
            tokens = [tokens[row] for row in rows]
        return _PartView(self._pasts.get(part, _Past()), rows, tokens, self._rules, final)


def _leaving(events: TokenBatch, views: Mapping[int, _PartView]) -> int:
    return min((view.first_held(len(events)) for view in views.values()), default=0)


def _held_too_long(events: TokenBatch, first: int) -> bool:
    too_old = events.offset_us[-1] - events.offset_us[first] > HOLD_US
    return too_old or sum(map(len, _texts(events)[first:])) > HOLD_CHARS


def _masked(events: TokenBatch, views: Iterable[_PartView], rules: Rules) -> TokenBatch:
    tokens = list(_texts(events))
    touched = set().union(*(view.mask(tokens) for view in views))
    if not touched and not events.logprobs:
        return events
    logprobs = {
        row: value
        for row, value in events.logprobs.items()
        if row not in touched and tell_only(value, tokens[row], rules)
    }
    return replace(events, token=tokens if touched else events.token, logprobs=logprobs)


def _texts(events: TokenBatch) -> Sequence[str]:
    # Only the level `timings` is without text, and it has no redactor.
    return cast("Sequence[str]", events.token)


def _of_texts(batch: TokenBatch) -> TokenBatch:
    """The batch with each event that is no text replaced: it loses its text, the others lose nothing."""
    if all(isinstance(token, str) for token in batch.token):
        return batch
    return replace(batch, token=[token if isinstance(token, str) else "\ufffd" for token in batch.token])


def _joined(held: TokenBatch, batch: TokenBatch) -> TokenBatch:
    """`batch` behind the events still held."""
    if not len(held):
        return batch
    behind = len(held)
    return TokenBatch(
        [*held.offset_us, *batch.offset_us],
        [*held.wait_us, *batch.wait_us],
        [*held.part, *batch.part],
        [*held.token, *batch.token],
        {**held.n_tokens, **{row + behind: count for row, count in batch.n_tokens.items()}},
        {**held.logprobs, **{row + behind: value for row, value in batch.logprobs.items()}},
    )


def _rebased(events: TokenBatch, start: int, end: int) -> TokenBatch:
    """Events `start` to `end` of a batch, as a batch of their own."""
    if (start, end) == (0, len(events)):
        return events
    return TokenBatch(
        events.offset_us[start:end],
        events.wait_us[start:end],
        events.part[start:end],
        events.token[start:end],
        {row - start: count for row, count in events.n_tokens.items() if start <= row < end},
        {row - start: value for row, value in events.logprobs.items() if start <= row < end},
    )
