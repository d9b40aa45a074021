"""The numbers of one ended call, computed from its arrival times; `docs/metrics.md` defines each of them.

An *arrival* is a chunk with content, however many rows it made. Latencies, holds and stalls are over all arrivals of
the call. The `inter_chunk_…` gaps are taken per choice and then pooled: choices that interleave would shorten each
other's. The median that stalls are measured against is theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from operator import mul, sub
from statistics import quantiles
from typing import Any, Final, NamedTuple

from .courtesy import give_way
from .models import Cause, Metrics, Part, Position, Stall

_MS: Final = 1000
_SECOND: Final = 1_000_000

_Columns = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Everything the numbers depend on. Times are whole microseconds since the call started.

    Attributes:
        offset_us: arrival of each token event, in order.
        wait_us: time inside `next()` since the previous event; 0 for a further row of the same chunk.
        part: the part each event belongs to; every one of them is in `parts`.
        parts: all parts of the call, also those without events.
        end_us: when the stream was closed, failed or given up.
        tail_wait_us: time inside `next()` after the last event.
        first_chunk_us: the first chunk, with content or not; None if none came.
        headers_us: response headers of the attempt that succeeded; None without a response.
        attempt_us: start of that attempt; None without a response.
        blocked: spans in which the event loop or the process did not run; in any order, they may overlap.
        threshold_ms: a gap at least this long is a stall.
        streaming: False for a call that was answered at once.
        fed_by_hand: nothing is known about who held the stream up.
        token_count: output tokens, where known.
        reasoning_tokens: how many of them were billed as reasoning, where known.
        first_n_tokens: tokens in the first event, where known.
    """

    offset_us: Sequence[int]
    wait_us: Sequence[int]
    part: Sequence[int]
    parts: Sequence[Part]
    end_us: int
    tail_wait_us: int
    first_chunk_us: int | None = None
    headers_us: int | None = None
    attempt_us: int | None = None
    blocked: Sequence[tuple[int, int]] = ()
    threshold_ms: float = 1000.0
    streaming: bool = True
    fed_by_hand: bool = False
    token_count: int | None = None
    reasoning_tokens: int | None = None
    first_n_tokens: int | None = None


class _Gap(NamedTuple):
    """A time without arrivals, and the event that ended it."""

    token_index: int
    position: Position
    start_us: int
    end_us: int
    wait_us: int


def compute(t: Timings) -> tuple[Metrics, tuple[Stall, ...]]:
    """Compute the numbers and the stalls of one ended call.

    Args:
        t: its timings.

    Returns:
        Its metrics, None where one has no meaning, and its stalls in order of time: the first wait included, although
        it is not counted.
    """
    if not t.streaming:
        return Metrics(**_request(t), tokens_per_second=_rate(t.token_count, t.end_us)), ()
    rows = _arrivals(t)
    times = [t.offset_us[row] for row in rows]
    # Of a long call each of these steps takes its time.
    give_way()
    gaps = _gaps_per_choice(t, rows, times)
    give_way()
    spread = _spread(gaps)
    give_way()
    stalls = tuple(_stalls(t, rows, times))
    metrics = Metrics(
        **_request(t),
        **_latencies(t, times),
        **spread,
        **_rates(t, times),
        **_stalled(stalls, spread.get("inter_chunk_p50_ms", 0.0), is_split=not t.fed_by_hand),
        stall_threshold_ms=t.threshold_ms,
    )
    return metrics, stalls


def reasoning_hidden(t: Timings) -> bool:
    """Whether reasoning was billed but none of it streamed as it was: a summary is not raw reasoning."""
    raw = {p.part for p in t.parts if p.kind == "reasoning" and p.name != "summary"}
    return bool(t.reasoning_tokens) and raw.isdisjoint(t.part)


def _request(t: Timings) -> _Columns:
    return {"duration_ms": _ms(t.end_us), "headers_latency_ms": _ms(t.headers_us), "retry_ms": _ms(t.attempt_us)}


def _arrivals(t: Timings) -> list[int]:
    """The first row of each chunk: a further row of one has the same time and no wait of its own."""
    offset, wait = t.offset_us, t.wait_us
    later = enumerate(zip(offset, offset[1:], wait[1:], strict=False), start=1)
    return ([0] if offset else []) + [row for row, (before, now, waited) in later if waited or now != before]


def _latencies(t: Timings, times: list[int]) -> _Columns:
    if not times:
        return {"first_chunk_latency_ms": _ms(t.first_chunk_us), "tail_gap_ms": _ms(t.end_us)}
    several = len(times) > 1
    waited = sum(t.wait_us) - t.wait_us[0]
    return {
        "first_chunk_latency_ms": _ms(t.first_chunk_us),
        "first_token_latency_ms": _ms(times[0]),
        "first_output_token_latency_ms": _ms(_first(t, {p.part for p in t.parts if p.kind != "reasoning"})),
        "first_text_latency_ms": _ms(_first(t, {p.part for p in t.parts if p.kind == "text"})),
        "second_token_gap_ms": _ms(times[1] - times[0]) if several else None,
        "last_token_latency_ms": _ms(times[-1]),
        "tail_gap_ms": _ms(t.end_us - times[-1]),
        # Each offset and each wait is rounded down by itself: the difference may be a microsecond below zero.
        "hold_ms": _ms(max(0, times[-1] - times[0] - waited)) if several and not t.fed_by_hand else None,
    }


def _first(t: Timings, parts: set[int]) -> int | None:
    return next((at for at, part in zip(t.offset_us, t.part, strict=True) if part in parts), None)


def _gaps_per_choice(t: Timings, rows: list[int], times: list[int]) -> list[int]:
    choice_of = {part.part: part.choice for part in t.parts}
    if len({choice_of[part] for part in set(t.part)}) <= 1:
        return list(map(sub, times[1:], times))
    gaps = []
    previous: dict[int, int] = {}
    for row, end, now in zip(rows, [*rows[1:], len(t.part)], times, strict=True):
        for choice in {choice_of[part] for part in t.part[row:end]}:
            if choice in previous:
                gaps.append(now - previous[choice])
            previous[choice] = now
    return gaps


def _spread(gaps: list[int]) -> _Columns:
    if not gaps:
        return {}
    cuts = quantiles(gaps if len(gaps) > 1 else gaps * 2, n=100, method="inclusive")
    count, total = len(gaps), sum(gaps)
    # In whole numbers, so exact however long the call; `statistics.pstdev` takes ten times as long over fractions.
    variance = count * sum(map(mul, gaps, gaps)) - total * total
    return {
        "inter_chunk_p50_ms": cuts[49] / _MS,
        "inter_chunk_p95_ms": cuts[94] / _MS,
        "inter_chunk_p99_ms": cuts[98] / _MS,
        "inter_chunk_max_ms": max(gaps) / _MS,
        "inter_chunk_mean_ms": total / count / _MS,
        "inter_chunk_stdev_ms": sqrt(variance) / count / _MS,
    }


def _rates(t: Timings, times: list[int]) -> _Columns:
    if not times:
        return {}
    rates: _Columns = {"events_per_second": _rate(len(times), times[-1])}
    if t.token_count is not None:
        streamed = t.token_count - (t.reasoning_tokens or 0 if reasoning_hidden(t) else 0)
        after_first = streamed - (1 if t.first_n_tokens is None else t.first_n_tokens)
        decoding = times[-1] - times[0]
        rates["tokens_per_second"] = _rate(t.token_count, times[-1])
        rates["decode_tokens_per_second"] = _rate(after_first, decoding)
        rates["inter_token_latency_ms"] = decoding / after_first / _MS if after_first >= 1 else None
    return rates


def _stalls(t: Timings, rows: list[int], times: list[int]) -> Iterator[Stall]:
    blocked = _merged(t.blocked)
    for gap in _long_gaps(t, rows, times):
        length = gap.end_us - gap.start_us
        wait = min(gap.wait_us, length)
        dark = _overlap(blocked, gap.end_us - wait, gap.end_us)
        cause = "unknown" if t.fed_by_hand else _cause(wait - dark, dark, length - wait)
        yield Stall(gap.token_index, gap.position, length, wait, length - wait, dark, cause)


def _long_gaps(t: Timings, rows: list[int], times: list[int]) -> Iterator[_Gap]:
    # A gap of nothing is no stall, whatever the threshold.
    least = max(1.0, t.threshold_ms * _MS)
    before = 0
    for i, now in enumerate(times):
        if now - before >= least:
            yield _Gap(rows[i], "middle" if i else "first", before, now, t.wait_us[rows[i]])
        before = now
    if t.end_us - before >= least:
        yield _Gap(len(t.offset_us), "tail", before, t.end_us, t.tail_wait_us)


def _cause(upstream: int, blocked: int, own: int) -> Cause:
    # Where shares are equal the provider comes last: it is not blamed without evidence.
    shares: dict[Cause, int] = {"own": own, "blocked": blocked, "upstream": upstream}
    return max(shares, key=shares.__getitem__)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _overlap(spans: list[tuple[int, int]], start: int, end: int) -> int:
    """Time between `start` and `end` that is inside one of `spans`, which are in order and apart from each other."""
    total = 0
    for i in range(max(0, bisect_right(spans, (start, start)) - 1), len(spans)):
        if spans[i][0] >= end:
            break
        total += max(0, min(end, spans[i][1]) - max(start, spans[i][0]))
    return total


def _stalled(stalls: Sequence[Stall], median_ms: float, *, is_split: bool) -> _Columns:
    """Count the stalls and, where that is known, split what they took beyond the median gap as their time was split."""
    counted = [(s, s.gap_us / _MS - median_ms) for s in stalls if s.position != "first"]
    total = {"stall_count": len(counted), "stall_excess_ms": fsum(excess for _, excess in counted)}
    if not is_split:
        return total
    return total | {
        "stall_wait_ms": fsum(excess * (s.wait_us - s.blocked_us) / s.gap_us for s, excess in counted),
        "stall_hold_ms": fsum(excess * s.hold_us / s.gap_us for s, excess in counted),
        "stall_blocked_ms": fsum(excess * s.blocked_us / s.gap_us for s, excess in counted),
    }


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / _MS


def _rate(count: int | None, microseconds: int) -> float | None:
    return None if count is None or microseconds <= 0 else count * _SECOND / microseconds
