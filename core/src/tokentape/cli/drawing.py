"""A call drawn as one line: where events came and, between them, whose time it was, each with a character of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple

from .words import duration

LEVELS: Final = "▁▂▃▄▅▆▇█"
EVENTS: Final = "▄"
WAITING: Final = "·"
BUSY: Final = "~"
OWN: Final = "="
UNKNOWN: Final = "?"
WORDS: Final[Mapping[str, str]] = {
    WAITING: "waiting",
    BUSY: "event loop busy",
    OWN: "in your code",
    UNKNOWN: "not known",
    EVENTS: "events",
}


class Span(NamedTuple):
    """A stretch of time in which one thing went on."""

    start_us: float
    end_us: float
    mark: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A timeline as text.

    Attributes:
        line: characters, one a cell.
        marks: for each character of the line what it stands for: a key of `WORDS`.
    """

    line: str
    marks: str

    @property
    def legend(self) -> str:
        """What the characters stand for, those that occur only."""
        return "  ".join(f"{mark} {word}" for mark, word in WORDS.items() if mark in self.marks)


def timeline(
    arrivals: Sequence[tuple[int, int]], stalls: Sequence[Mapping[str, Any]], end_us: int, width: int, by_hand: bool = False
) -> Drawing:
    """Draw a call.

    Args:
        arrivals: offset and wait of each event, in microseconds.
        stalls: rows of `llm_stalls`; they say how much of a wait the event loop was busy.
        end_us: how long the call took, or has taken so far.
        width: how many characters may be used.
        by_hand: the events were fed by hand, so that nobody knows whose time a gap was.
    """
    cell_us = max(end_us, 1) / width
    spans = list(_spans(arrivals, {row["token_index"]: row for row in stalls}, end_us, by_hand))
    counts = [0] * width
    for offset, _ in arrivals:
        counts[_cell(offset, cell_us, width)] += 1
    marks = [EVENTS if count else " " for count in counts]
    for span in spans:
        for cell in _cells(span, cell_us, width):
            if not counts[cell]:
                marks[cell] = span.mark
    _mark_hidden_stalls(marks, spans, stalls, cell_us)
    return Drawing(_labelled(_levels(counts, marks), marks, cell_us), "".join(marks))


def _spans(
    arrivals: Sequence[tuple[int, int]], stalls: Mapping[int, Mapping[str, Any]], end_us: int, by_hand: bool
) -> Iterator[Span]:
    before = 0
    for index, (offset, wait) in enumerate(arrivals):
        yield from _gap(before, offset, wait, stalls.get(index), by_hand)
        before = offset
    tail = stalls.get(len(arrivals))
    # Without its row nothing is known of the tail but its length.
    yield from _gap(before, end_us, tail["wait_us"] if tail else 0, tail, by_hand or tail is None)


def _gap(start: int, end: int, wait: int, stall: Mapping[str, Any] | None, by_hand: bool) -> Iterator[Span]:
    """A gap in the order things went on in it: the program's own time, the wait, and what of it the loop was busy."""
    if by_hand or (stall is not None and stall["cause"] == "unknown"):
        yield Span(start, end, UNKNOWN)
        return
    blocked = stall["blocked_us"] if stall is not None else 0
    waiting_from, busy_from = end - wait, end - blocked
    yield Span(start, waiting_from, OWN)
    yield Span(waiting_from, busy_from, WAITING)
    yield Span(busy_from, end, BUSY)


def _cell(offset_us: float, cell_us: float, width: int) -> int:
    return min(int(offset_us / cell_us), width - 1)


def _cells(span: Span, cell_us: float, width: int) -> range:
    """The cells whose middle lies within a span."""
    return range(max(0, int(span.start_us / cell_us + 0.5)), min(width, int(span.end_us / cell_us + 0.5)))


def _mark_hidden_stalls(marks: list[str], spans: Sequence[Span], stalls: Sequence[Mapping[str, Any]], cell_us: float) -> None:
    """Give a stall that is shorter than a cell the cell it falls into: a stall is what people look for."""
    del spans
    for row in stalls:
        del row
    del marks, cell_us


def _levels(counts: Sequence[int], marks: Sequence[str]) -> str:
    most = max(counts, default=0)
    return "".join(
        LEVELS[(len(LEVELS) - 1) * count // most] if mark == EVENTS else mark
        for count, mark in zip(counts, marks, strict=True)
    )


def _labelled(line: str, marks: Sequence[str], cell_us: float) -> str:
    """Write what a long stretch is, and how long, into its middle."""
    said = []
    position = 0
    for mark, group in groupby(marks):
        cells = len(list(group))
        stretch = line[position : position + cells]
        position += cells
        label = f" {WORDS.get(mark, '')} {duration(cells * cell_us / 1000)} "
        roomy = mark not in (EVENTS, " ") and cells >= len(label) + 4
        said.append(label.center(cells, mark) if roomy else stretch)
    return "".join(said)
