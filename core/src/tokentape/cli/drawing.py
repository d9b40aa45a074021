"""A call drawn as one line: where events came and, between them, whose time it was, by a character for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..words import duration

LEVELS: Final = "▁▂▃▄▅▆▇█"
EVENTS: Final = "▄"
WAITING: Final = "·"
BUSY: Final = "~"
OWN: Final = "="
UNKNOWN: Final = "?"
REMOVED: Final = "-"
NOTHING: Final = " "
WORDS: Final[Mapping[str, str]] = {
    WAITING: "waiting",
    BUSY: "event loop busy",
    OWN: "in your code",
    UNKNOWN: "not known",
    REMOVED: "events not kept",
    EVENTS: "events",
}
_CAUSES: Final[Mapping[str, str]] = {"upstream": WAITING, "blocked": BUSY, "own": OWN, "unknown": UNKNOWN}

Row = Mapping[str, Any]


class Span(NamedTuple):
    """A stretch of time in which one thing went on; `main` where it is what made its gap a stall."""

    start_us: float
    end_us: float
    mark: str
    main: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A timeline as text.

    Attributes:
        line: what to show.
        marks: for each character of the line what it stands for: a key of `WORDS`, or a space.
    """

    line: str
    marks: str

    @property
    def legend(self) -> str:
        """What the characters stand for, those that occur only."""
        return "  ".join(f"{mark} {word}" for mark, word in WORDS.items() if mark in self.marks)


def timeline(
    arrivals: Sequence[tuple[int, int]],
    stalls: Sequence[Row],
    end_us: int,
    width: int,
    by_hand: bool = False,
    indexes: Sequence[int] | None = None,
) -> Drawing:
    """Draw a call.

    Args:
        arrivals: offset and wait of each event, in microseconds.
        stalls: rows of `llm_stalls`; they say how much of a wait the event loop was busy.
        end_us: how long the call took, or has taken so far.
        width: how many characters may be used.
        by_hand: the events were fed by hand, so that nobody knows whose time a gap was.
        indexes: the `token_index` of each event; where one is missing, events have been removed.
    """
    cell_us = max(end_us, 1) / width
    counts = [0] * width
    for offset, _ in arrivals:
        counts[_cell(offset, cell_us, width)] += 1
    marks = [EVENTS if count else NOTHING for count in counts]
    line = [_level(count, max(counts)) for count in counts]
    for span in _spans(arrivals, stalls, end_us, by_hand, indexes or range(len(arrivals))):
        cells = [cell for cell in _cells(span, cell_us, width) if not counts[cell]]
        if not cells and span.main:
            # Shorter than a cell, but what people look for: it takes the place of the events around it.
            cells = [_cell((span.start_us + span.end_us) / 2, cell_us, width)]
        for cell, shown in zip(cells, _labelled(span, len(cells)), strict=True):
            marks[cell], line[cell] = span.mark, shown
    return Drawing("".join(line), "".join(marks))


def _spans(
    arrivals: Sequence[tuple[int, int]], stalls: Sequence[Row], end_us: int, by_hand: bool, indexes: Sequence[int]
) -> Iterator[Span]:
    before, following = 0, 0
    ended_by = {row["token_index"]: row for row in stalls if row["position"] != "tail"}
    for index, (offset, wait) in zip(indexes, arrivals, strict=True):
        if index == following:
            yield from _gap(before, offset, wait, ended_by.get(index), by_hand)
        else:
            yield Span(before, offset, REMOVED, main=False)
        before, following = offset, index + 1
    tail = next((row for row in stalls if row["position"] == "tail"), None)
    # A tail that was no stall has no row: nothing is known of it but its length, and it stays blank.
    if tail is not None:
        yield from _gap(before, end_us, tail["wait_us"], tail, by_hand)


def _gap(start: int, end: int, wait: int, stall: Row | None, by_hand: bool) -> Iterator[Span]:
    """A gap in the order things went on in it: the program's own time, then the wait, at its end the busy loop."""
    main = _CAUSES[stall["cause"]] if stall is not None else None
    if by_hand or main == UNKNOWN:
        yield Span(start, end, UNKNOWN, main is not None)
        return
    asked = max(start, end - wait)
    # The stall of one choice may have begun before an event of another.
    busy = max(asked, end - (stall["blocked_us"] if stall is not None else 0))
    for since, until, mark in ((start, asked, OWN), (asked, busy, WAITING), (busy, end, BUSY)):
        if until > since:
            yield Span(since, until, mark, mark == main)


def _cell(offset_us: float, cell_us: float, width: int) -> int:
    return min(int(offset_us / cell_us), width - 1)


def _cells(span: Span, cell_us: float, width: int) -> range:
    """The cells whose middle lies within a span."""
    return range(int(span.start_us / cell_us + 0.5), min(width, int(span.end_us / cell_us + 0.5)))


def _level(count: int, most: int) -> str:
    return LEVELS[(len(LEVELS) - 1) * count // most] if count else NOTHING


def _labelled(span: Span, cells: int) -> str:
    """The span's character, so many times, with what it is and how long it took in the middle if there is room."""
    label = f" {WORDS[span.mark]} {duration((span.end_us - span.start_us) / 1000)} "
    return label.center(cells, span.mark) if cells >= len(label) + 4 else span.mark * cells
