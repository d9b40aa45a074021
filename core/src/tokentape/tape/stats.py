# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""Numbers over many calls: of a run, and of each model."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import floor
from typing import Any, Final

from ..store.views import COUNTED, MODEL
from .calls import METRICS, Calls
from .reader import INSIDE, STATUS, Row

P50: Final = 0.5
P95: Final = 0.95
# Columns of the totals of a run: sums, and what percentiles are taken of.
SUMS: Final = (
    "input_tokens",
    "token_count",
    "event_count",
    "dropped_count",
    "stall_count",
    "stall_excess_ms",
    "stall_wait_ms",
    "stall_hold_ms",
    "stall_blocked_ms",
)
SPREAD: Final = (
    "first_token_latency_ms",
    "first_output_token_latency_ms",
    "inter_token_latency_ms",
    "tokens_per_second",
    "decode_tokens_per_second",
    "duration_ms",
)
HISTOGRAM_BINS: Final = 16
MOST_STALLED: Final = 5

_STATS: Final = f"""{INSIDE}
SELECT c.id, c.uid, c.name, {MODEL} AS model, c.layer, {COUNTED} AS counted, {STATUS} AS status,
  c.status AS stored_status, c.streaming, c.input_tokens, c.token_count, c.token_count_source, c.event_count,
  c.dropped_count, {", ".join(f"c.{name}" for name in METRICS)}
FROM llm_calls c JOIN inside ON c.run_id = inside.id
ORDER BY c.started_unix_us, c.id
"""
_OF_MODELS: Final = f"""
SELECT c.id, c.uid, c.name, c.started_at, c.provider, {MODEL} AS model, {STATUS} AS status,
  c.status AS stored_status, c.input_tokens, c.token_count,
  c.stall_count, c.stall_excess_ms, c.first_token_latency_ms, c.inter_token_latency_ms, c.decode_tokens_per_second
FROM llm_calls c
WHERE {COUNTED}
ORDER BY c.id
"""


class Stats(Calls):
    """Questions about many calls at once."""

    def streaming_stats(self, run_uid: str, *, every: bool = False) -> Row:
        """The metrics of each call of a run, and of all of them; each token counts once.

        Args:
            every: percentiles over all calls, not only over those that completed.

        Returns:
            `run_uid`, `calls`, and `total`: counts, sums, and `…_p50` and `…_p95` of the latencies and rates.
        """
        calls = self._completed(self._rows(_STATS, {"run": run_uid, "gone": self.gone()}))
        for call in calls:
            call["streaming"], call["counted"] = bool(call["streaming"]), bool(call["counted"])
        counted = [call for call in calls if call["counted"]]
        measured = [call for call in counted if every or call["status"] == "completed"]
        total: Row = _counts(counted) | {"streaming_count": sum(call["streaming"] for call in counted)}
        total |= {name: _sum(call[name] for call in counted) for name in SUMS}
        for name in SPREAD:
            total |= _percentiles(name, [call[name] for call in measured])
        return {"run_uid": run_uid, "calls": calls, "total": total}

    def models(self, *, every: bool = False) -> list[Row]:
        """Percentiles of each model over its calls, most used first; each token counts once.

        Args:
            every: percentiles over all calls, not only over those that completed.
        """
        by_model: dict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
        for call in self._completed(self._rows(_OF_MODELS, {"gone": self.gone()})):
            by_model[call["provider"], call["model"]].append(call)
        measured = {
            model: [call for call in calls if every or call["status"] == "completed"]
            for model, calls in by_model.items()
        }
        everything = [call for calls in measured.values() for call in calls]
        # All models have the same edges, so that their histograms can be put side by side.
        latencies = _geometric(_known(call["first_token_latency_ms"] for call in everything))
        rates = _even(_known(call["decode_tokens_per_second"] for call in everything))
        found = [
            _model(provider, model, calls, measured[provider, model], latencies, rates)
            for (provider, model), calls in by_model.items()
        ]
        return sorted(found, key=lambda row: (-row["call_count"], row["model"] or "", row["provider"] or ""))


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile with linear interpolation; None of nothing.

    Args:
        values: in order.
        share: 0.0 to 1.0.
    """
    if not values:
        return None
    at = (len(values) - 1) * share
    below = floor(at)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (at - below)


def _model(
    provider: str | None,
    model: str | None,
    calls: Sequence[Row],
    measured: Sequence[Row],
    latencies: Sequence[float],
    rates: Sequence[float],
) -> Row:
    row: Row = {"provider": provider, "model": model, **_counts(calls)}
    row |= {name: _sum(call[name] for call in calls) for name in ("input_tokens", "token_count", "stall_count")}
    for name in ("first_token_latency_ms", "inter_token_latency_ms", "decode_tokens_per_second"):
        row |= _percentiles(name, [call[name] for call in measured])
    stalled = sorted((call for call in calls if call["stall_count"]), key=lambda call: -(call["stall_excess_ms"] or 0))
    return row | {
        "first_token_histogram": _histogram([call["first_token_latency_ms"] for call in measured], latencies),
        "rate_histogram": _histogram([call["decode_tokens_per_second"] for call in measured], rates),
        "most_stalled": [
            {name: call[name] for name in ("uid", "name", "started_at", "status", "stall_count", "stall_excess_ms")}
            for call in stalled[:MOST_STALLED]
        ],
    }


def _counts(calls: Sequence[Row]) -> dict[str, int]:
    statuses = Counter(call["status"] for call in calls)
    completed, running = statuses["completed"], statuses["running"]
    return {
        "call_count": len(calls),
        "completed_count": completed,
        "failed_count": len(calls) - completed - running,
        "running_count": running,
    }


def _percentiles(name: str, values: Iterable[Any]) -> dict[str, float | None]:
    """Median and 95th percentile under the names of the view `model_stats`: before `_ms`, or at the end."""
    known = sorted(_known(values))
    stem, unit = (name.removesuffix("_ms"), "_ms") if name.endswith("_ms") else (name, "")
    return {f"{stem}_p50{unit}": percentile(known, P50), f"{stem}_p95{unit}": percentile(known, P95)}


def _known(values: Iterable[Any]) -> list[float]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[Any]) -> Any:
    known = _known(values)
    return sum(known) if known else None


def _geometric(values: Sequence[float]) -> list[float]:
    """Edges that grow by one factor, from the least value to the greatest; none of nothing."""
    positive = [value for value in values if value > 0]
    if not positive:
        return _even(values)
    low, high = min(positive), max(positive)
    if low == high:
        low, high = low / 2, high * 2
    return [_short(low * (high / low) ** (number / HISTOGRAM_BINS)) for number in range(HISTOGRAM_BINS + 1)]


def _even(values: Sequence[float]) -> list[float]:
    """Edges at one distance, from 0 to the greatest value; none of nothing."""
    if not values:
        return []
    high = max(values) or 1.0
    return [_short(high * number / HISTOGRAM_BINS) for number in range(HISTOGRAM_BINS + 1)]


def _short(edge: float) -> float:
    return float(f"{edge:.6g}")


def _histogram(values: Iterable[Any], edges: Sequence[float]) -> Row:
    """How many values lie between two edges; a value on an edge is above it, the greatest in the last bin."""
    counts = [0] * max(0, len(edges) - 1)
    for value in _known(values):
        counts[bisect_right(edges, value, 1, len(edges) - 1) - 1] += 1
    return {"edges": list(edges), "counts": counts}
