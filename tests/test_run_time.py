"""Where the time of a run went, as `tokentape show RUN` says it: each moment once, and all of them together the run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.shares import Share, shares
from tokentape.words import time_spent


def call(start: int, end: int) -> dict[str, Any]:
    return {"started_unix_us": start, "ended_unix_us": end}


def mark(start: int, end: int, name: str = "search", kind: str = "tool") -> dict[str, Any]:
    return {"started_unix_us": start, "duration_us": end - start, "kind": kind, "name": name}


def test_model_tool_and_outside_are_told_apart() -> None:
    assert shares(0, 100, [call(10, 30), call(70, 80)], [mark(40, 60)]) == [
        Share("model", None, 30),
        Share("tool", "search", 20),
        Share("outside", None, 50),
    ]


def test_a_call_seen_by_two_layers_counts_once() -> None:
    assert shares(0, 100, [call(10, 50), call(12, 48)], []) == [Share("model", None, 40), Share("outside", None, 60)]


def test_a_model_inside_a_tool_is_the_models_time() -> None:
    assert shares(0, 100, [call(20, 60)], [mark(10, 70)]) == [
        Share("model", None, 40),
        Share("tool", "search", 20),
        Share("outside", None, 40),
    ]


def test_a_tool_inside_a_node_is_the_tools_time() -> None:
    assert shares(0, 100, [], [mark(0, 100, "agent", "node"), mark(20, 50)]) == [
        Share("node", "agent", 70),
        Share("tool", "search", 30),
        Share("outside", None, 0),
    ]


def test_tools_side_by_side_share_the_time_they_took_together() -> None:
    spent = shares(0, 100, [], [mark(0, 60, "slow"), mark(10, 30, "quick")])
    assert spent == [Share("tool", "slow", 40), Share("tool", "quick", 20), Share("outside", None, 40)]


def test_what_lies_before_or_after_the_run_does_not_count() -> None:
    spent = shares(100, 200, [call(50, 120)], [mark(190, 300), mark(300, 400, "late")])
    assert spent == [Share("model", None, 20), Share("tool", "search", 10), Share("outside", None, 70)]


SPANS = st.lists(st.tuples(st.integers(-50, 250), st.integers(0, 200)), max_size=12)


@given(calls=SPANS, marks=SPANS, length=st.integers(0, 200))
def test_shares_always_add_up_to_the_run(
    calls: list[tuple[int, int]], marks: list[tuple[int, int]], length: int
) -> None:
    spent = shares(
        0,
        length,
        [call(start, start + took) for start, took in calls],
        [mark(start, start + took, str(i)) for i, (start, took) in enumerate(marks)],
    )
    open_us = sum(any(s <= at < s + took for s, took in calls) for at in range(length))
    marked_us = sum(any(s <= at < s + took for s, took in [*calls, *marks]) for at in range(length))
    assert sum(share.duration_us for share in spent) == length
    assert sum(share.duration_us for share in spent if share.kind == "model") == open_us
    assert spent[-1] == Share("outside", None, length - marked_us)


@pytest.mark.scenario("cli/Shares of an agent")
@pytest.mark.parametrize(
    ("spent", "said"),
    [
        (
            [Share("model", None, 2_100_000), Share("tool", "search", 12_400_000), Share("outside", None, 800_000)],
            "15.3 s: model 2.1 s · tool search 12.4 s · outside 0.8 s",
        ),
        (
            [Share("model", None, 2_000_000), Share("tool", "search", 12_000_000), Share("outside", None, 1_000_000)],
            "15.0 s: model 2.0 s · tool search 12.0 s · outside 1.0 s",
        ),
        # Each a third: shown by themselves they would be 0.3 s three times, and 1.0 s together.
        (
            [Share(kind, None, 333_333) for kind in ("model", "node", "outside")],
            "1.0 s: model 0.3 s · node 0.4 s · outside 0.3 s",
        ),
        ([Share("model", None, 1_000_000), Share("outside", None, 20)], "1.0 s: model 1.0 s"),
        ([Share("model", None, 30_400), Share("outside", None, 9_600)], "40 ms: model 30 ms · outside 10 ms"),
        ([Share("outside", None, 0)], "0.0 ms"),
    ],
)
def test_what_is_shown_adds_up(spent: list[Share], said: str) -> None:
    assert time_spent(spent) == said
