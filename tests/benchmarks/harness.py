"""How everything is measured here: variants take turns, the best of fifteen counts, the collector is on as in life."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        measured: None where it could not be; `spread` then says why.
        limit: the most it may be, or the least where `at_least` is set.
        spread: how much the rounds differed.
    """

    what: str
    measured: float | None
    limit: float
    unit: str
    spread: str = ""
    at_least: bool = False

    @property
    def ok(self) -> bool | None:
        """Whether the limit is kept; None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Let the variants take turns, so that what disturbs the machine disturbs all of them.

    Args:
        variants: each runs once a round and returns what it measured.

    Returns:
        What each measured, round by round.
    """
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            measured[name].append(run())
    return measured


def added(what: str, bare: list[float], recorded: list[float], limit: float, unit: str) -> Row:
    """What recording adds: the difference of the best rounds, and as spread that of the medians."""
    by_medians = median(recorded) - median(bare)
    bare_best = f"{shown(min(bare))} {unit} bare"
    return Row(what, min(recorded) - min(bare), limit, unit, f"{shown(by_medians)} by medians; {bare_best}")


def best(what: str, measured: list[float], limit: float, unit: str, *, at_least: bool = False) -> Row:
    """The best round, and as spread the median and the worst."""
    ordered = sorted(measured, reverse=at_least)
    spread = f"median {shown(median(ordered))}, worst {shown(ordered[-1])}"
    return Row(what, ordered[0], limit, unit, spread, at_least)


def shown(value: float) -> str:
    """A number with the digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
