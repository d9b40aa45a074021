"""Where the time of a run went: into models, into what was marked, or into neither, each moment counted once."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from .clock import unix_us

MODEL: Final = "model"
OUTSIDE: Final = "outside"

Row = Mapping[str, Any]


class Share(NamedTuple):
    """Time that one thing took.

    Attributes:
        kind: `model`, `outside`, or a mark's kind.
        name: the mark's name; None for the other two.
    """

    kind: str
    name: str | None
    duration_us: int


class _Span(NamedTuple):
    """A stretch of time; of those that go on at once the least in this order gets the moment."""

    order: tuple[int, int]
    start_us: int
    end_us: int
    what: tuple[str, str | None]


def shares(start_us: int, end_us: int, calls: Sequence[Row], marks: Sequence[Row]) -> list[Share]:
    """Divide the time from start to end; the shares add up to it.

    A moment in which a call is open is the model's, whatever surrounds the call. Of several marks it is that of the
    one that began last, which is the inner one where one lies within another.

    Args:
        start_us: when the run started, and `end_us` when it ended, in microseconds of the same clock as the rows.
        calls: rows with `started_unix_us` and `ended_unix_us`.
        marks: rows with `started_unix_us`, `duration_us`, `kind` and `name`.

    Returns:
        The model's share, those of the marks, the longest first, and what is outside all of them.
    """
    spans = [*map(_of_call, calls), *map(_of_mark, marks)]
    taken: dict[tuple[str, str | None], int] = {}
    for what, took in _moments(spans, start_us, end_us):
        taken[what] = taken.get(what, 0) + took
    outside = max(0, end_us - start_us) - sum(taken.values())
    ordered = sorted(taken.items(), key=lambda item: (item[0][0] != MODEL, -item[1]))
    return [*(Share(*what, took) for what, took in ordered), Share(OUTSIDE, None, outside)]


def shares_of_run(run: Row, calls: Sequence[Row], marks: Sequence[Row]) -> list[Share]:
    """Divide the time of a run; of one that has not ended, the time until now or until it was last heard of.

    Args:
        run: with `started_at` and `ended_at`.
        calls: as in `shares`; `ended_unix_us` is None while a call runs. One that is not `counted` is a framework's:
            the time of the model is that of the requests it made.
        marks: as in `shares`.
    """
    start = unix_us(run["started_at"])
    if run["ended_at"] is not None:
        end = unix_us(run["ended_at"])
    elif any(call["ended_unix_us"] is None for call in calls):
        end = time.time_ns() // 1000
    else:
        ends = [call["ended_unix_us"] for call in calls] + [m["started_unix_us"] + m["duration_us"] for m in marks]
        end = max([start, *ends])
    counted = [{**call, "ended_unix_us": call["ended_unix_us"] or end} for call in calls if call["counted"]]
    return shares(start, end, counted, marks)


def _of_call(row: Row) -> _Span:
    return _Span((0, row["started_unix_us"]), row["started_unix_us"], row["ended_unix_us"], (MODEL, None))


def _of_mark(row: Row) -> _Span:
    start = row["started_unix_us"]
    return _Span((1, -start), start, start + row["duration_us"], (row["kind"], row["name"]))


def _moments(spans: Sequence[_Span], start_us: int, end_us: int) -> Iterator[tuple[tuple[str, str | None], int]]:
    """Stretches in which nothing begins or ends, with what each belongs to."""
    waiting = sorted(spans, key=lambda span: span.start_us, reverse=True)
    edges = (at for span in spans for at in (span.start_us, span.end_us))
    times = sorted({start_us, end_us, *(at for at in edges if start_us < at < end_us)})
    going_on: list[_Span] = []
    for now, until in pairwise(times):
        while waiting and waiting[-1].start_us <= now:
            heapq.heappush(going_on, waiting.pop())
        # What is over is taken out when it comes to the front: until then it hides nothing.
        while going_on and going_on[0].end_us <= now:
            heapq.heappop(going_on)
        if going_on:
            yield going_on[0].what, until - now
