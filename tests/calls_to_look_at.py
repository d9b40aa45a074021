"""Calls with exactly known events, for tests of what a browser shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handmade import Handmade
from tokentape.metrics import Timings, compute
from tokentape.models import Part, Stall

Event = tuple[float, int, str | None]

THINKING = Part(0, "reasoning")
ANSWER = Part(1, "text")
TOOL = Part(2, "tool_args", name="search_orders")

# Pauses before these events of `LOOK`, and whose they were.
STALLS = {14: (1500.0, "upstream"), 20: (1200.0, "own"), 26: (1100.0, "blocked"), 32: (1000.0, "unknown")}


def _look() -> list[Event]:
    thoughts = ["The", " order", " first", ",", " then", " where", " it", " is", "."]
    words = ["Your", " order", " left", "\n", "our", " ware", "house", " on", " Mon", "day", ".\n\n", "It", " reached"]
    words += [" Leip", "zig", " this", " morning", ";", " the", " carrier", " has", " it", " now", ".", " =1+1", "\x1b"]
    arguments = ['{"q"', ":", ' "11', '82"', "}"]
    kinds = [(0, token) for token in thoughts] + [(1, token) for token in words] + [(2, token) for token in arguments]
    found: list[Event] = []
    at = 400.0
    for number, (part, token) in enumerate(kinds):
        if number:
            at += STALLS[number][0] if number in STALLS else 20.0
        found.append((at, part, token))
    return found


# Thinking, an answer and a tool call, with one stall of each cause.
LOOK = _look()
LOOK_PARTS = (THINKING, ANSWER, TOOL)
LOOK_MS = LOOK[-1][0] + 60


def text_of(events: Sequence[Event], count: int) -> list[str]:
    """The text of each part after so many events, in the order the parts began; parts without text are left out."""
    texts: dict[int, str] = {}
    for _, part, token in events[:count]:
        texts[part] = texts.get(part, "") + (token or "")
    return list(texts.values())


def count_at(events: Sequence[Event], ms: float) -> int:
    """How many events had come at a time."""
    return sum(at <= ms for at, _, _ in events)


def write(
    made: Handmade,
    uid: str,
    events: Sequence[Event],
    parts: Sequence[Part],
    *,
    ended_ms: float,
    causes: dict[int, str] | None = None,
    **end: Any,
) -> None:
    """Record a call with the metrics and stalls that its times have.

    Args:
        causes: whose time the stalls were that end with these events; the provider's unless told.
    """
    us = [round(ms * 1000) for ms, _, _ in events]
    waits = [at - before for at, before in zip(us, [0, *us], strict=False)]
    metrics, stalls = compute(
        Timings(
            offset_us=us,
            wait_us=waits,
            part=[part for _, part, _ in events],
            parts=parts,
            end_us=round(ended_ms * 1000),
            tail_wait_us=0,
            token_count=end.get("token_count"),
        )
    )
    told = tuple(_caused(stall, (causes or {}).get(stall.token_index)) for stall in stalls)
    made.call(uid, *events, parts=parts, ended_ms=ended_ms, **{"metrics": metrics, "stalls": told, **end})


def _caused(stall: Stall, cause: Any) -> Stall:
    us = stall.gap_us
    spent = {"own": (0, us, 0), "blocked": (us, 0, us)}.get(cause, (us, 0, 0))
    return Stall(stall.token_index, stall.position, us, *spent, cause or "upstream")


def write_look(made: Handmade, uid: str, **end: Any) -> None:
    """Record `LOOK`."""
    causes = {number: cause for number, (_, cause) in STALLS.items()}
    counted = {"token_count": 50, "token_count_source": "usage"}
    write(made, uid, LOOK, LOOK_PARTS, ended_ms=LOOK_MS, causes=causes, **{**counted, **end})
