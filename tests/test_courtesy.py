"""How long a background thread keeps the interpreter, and how long it does not ask whether others want it."""

from __future__ import annotations

import pytest

from tokentape import courtesy


class Turns:
    """A clock that only goes on while somebody sleeps, or works: getting the interpreter back takes `waits_s`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s = 0.0
        self.slept = 0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now_s += seconds + self.waits_s

    def gives_way_after(self, worked_s: float) -> bool:
        """Whether it gives way after so much more work."""
        self.now_s += worked_s
        before = self.slept
        courtesy.give_way()
        return self.slept > before


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    monkeypatch.setattr(courtesy, "time", turns)
    monkeypatch.setattr(courtesy, "_turn", courtesy._Turn())
    return turns


@pytest.mark.parametrize(
    ("waits_s", "kept_s"),
    [(0.0, 0.0001), (0.008, 0.004)],
    ids=["threads that sleep", "a thread that computes: half of what it waited"],
)
def test_it_has_the_interpreter_for_a_while_before_it_gives_way_again(
    turns: Turns, waits_s: float, kept_s: float
) -> None:
    turns.waits_s = waits_s
    assert turns.gives_way_after(0)
    assert not turns.gives_way_after(0.9 * kept_s)
    assert turns.gives_way_after(0.2 * kept_s)
    assert not courtesy.is_crowded()


def test_beside_many_it_keeps_on_for_a_second(turns: Turns) -> None:
    turns.waits_s = 0.25
    assert turns.gives_way_after(0)
    assert courtesy.is_crowded()
    assert not turns.gives_way_after(0.99)
    turns.waits_s = 0.0
    assert turns.gives_way_after(0.02)
    assert not courtesy.is_crowded()
