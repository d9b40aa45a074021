"""The numbers of random calls against a second implementation: naive, over numpy, one definition after the other."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.metrics import Timings, compute
from tokentape.models import KINDS, Metrics, Part, Stall


def ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else float(microseconds) / 1000


class Naive:
    """All numbers of a call, as `metrics.md` words them."""

    def __init__(self, t: Timings) -> None:
        self.t = t
        # One arrival: its time, its first row, its wait, the parts it added to.
        self.chunks: list[tuple[int, int, int, list[Part]]] = []
        by_number = {part.part: part for part in t.parts}
        for row, (at, wait, number) in enumerate(zip(t.offset_us, t.wait_us, t.part, strict=True)):
            if row and wait == 0 and t.offset_us[row - 1] == at:
                self.chunks[-1][3].append(by_number[number])
            else:
                self.chunks.append((at, row, wait, [by_number[number]]))
        self.c = [at for at, *_ in self.chunks]
        self.m = len(self.c)

    def first(self, *, kinds: set[str]) -> int | None:
        matching = [at for at, _, _, parts in self.chunks if any(part.kind in kinds for part in parts)]
        return min(matching) if matching else None

    def gaps(self) -> np.ndarray[Any, Any]:
        pooled: list[int] = []
        for choice in sorted({part.choice for part in self.t.parts}):
            own = [at for at, _, _, parts in self.chunks if choice in [part.choice for part in parts]]
            pooled.extend(np.diff(own))
        return np.array(pooled, dtype=float)

    def ns(self) -> int:
        assert self.t.token_count is not None
        streamed = {part.part for *_, parts in self.chunks for part in parts if part.kind == "reasoning"}
        raw = [part for part in self.t.parts if part.part in streamed and part.name != "summary"]
        return self.t.token_count - (0 if raw else self.t.reasoning_tokens or 0)

    def n1(self) -> int:
        return 1 if self.t.first_n_tokens is None else self.t.first_n_tokens

    def waits(self) -> list[tuple[int, str, int, int, int]]:
        """Everything that could be a stall: the event that ended it, where, its start, its end, its wait."""
        found = []
        for i, (at, row, wait, _) in enumerate(self.chunks):
            found.append((row, "first" if i == 0 else "middle", self.c[i - 1] if i else 0, at, wait))
        last = self.c[-1] if self.m else 0
        return [*found, (len(self.t.offset_us), "tail", last, self.t.end_us, self.t.tail_wait_us)]

    def blocked_during(self, start: int, end: int) -> int:
        """Counted microsecond by microsecond."""
        covered = np.zeros(max(0, end - start), dtype=bool)
        for since, until in self.t.blocked:
            covered[max(0, since - start) : max(0, until - start)] = True
        return int(covered.sum())

    def stalls(self) -> list[Stall]:
        if not self.t.streaming:
            return []
        found = []
        for row, position, start, end, wait in self.waits():
            gap = end - start
            if gap < self.t.threshold_ms * 1000:
                continue
            blocked = self.blocked_during(end - wait, end)
            # Where two shares are equal, the one that blames the program's side comes first.
            shares = [("own", gap - wait), ("blocked", blocked), ("upstream", wait - blocked)]
            most = max(share for _, share in shares)
            cause = "unknown" if self.t.fed_by_hand else next(name for name, share in shares if share == most)
            found.append(Stall(row, position, gap, wait, gap - wait, blocked, cause))  # type: ignore[arg-type]
        return found

    def metrics(self) -> Metrics:
        t, c, m = self.t, self.c, self.m
        if not t.streaming:
            rate = t.token_count / (t.end_us / 1e6) if t.token_count is not None and t.end_us else None
            return Metrics(
                duration_ms=ms(t.end_us),
                headers_latency_ms=ms(t.headers_us),
                retry_ms=ms(t.attempt_us),
                tokens_per_second=rate,
            )
        gaps = self.gaps() / 1000
        n = t.token_count
        decoding = (c[-1] - c[0]) / 1e6 if m else 0.0
        has_rate = m > 0 and n is not None
        after_first = self.ns() - self.n1() if n is not None else 0
        long = [stall for stall in self.stalls() if stall.position != "first"]
        excess = [stall.gap_us / 1000 - (float(np.median(gaps)) if gaps.size else 0) for stall in long]
        upstream = [(stall.wait_us - stall.blocked_us) / stall.gap_us for stall in long]
        known = (lambda _: None) if t.fed_by_hand else float
        held = [c[i] - c[i - 1] - self.chunks[i][2] for i in range(1, m)]
        return Metrics(
            first_chunk_latency_ms=ms(t.first_chunk_us),
            first_token_latency_ms=ms(c[0]) if m else None,
            headers_latency_ms=ms(t.headers_us),
            retry_ms=ms(t.attempt_us),
            first_output_token_latency_ms=ms(self.first(kinds=set(KINDS) - {"reasoning"})),
            first_text_latency_ms=ms(self.first(kinds={"text"})),
            second_token_gap_ms=ms(c[1] - c[0]) if m >= 2 else None,
            last_token_latency_ms=ms(c[-1]) if m else None,
            duration_ms=ms(t.end_us),
            inter_chunk_p50_ms=float(np.percentile(gaps, 50)) if gaps.size else None,
            inter_chunk_p95_ms=float(np.percentile(gaps, 95)) if gaps.size else None,
            inter_chunk_p99_ms=float(np.percentile(gaps, 99)) if gaps.size else None,
            inter_chunk_max_ms=float(gaps.max()) if gaps.size else None,
            inter_chunk_mean_ms=float(gaps.mean()) if gaps.size else None,
            inter_chunk_stdev_ms=float(gaps.std()) if gaps.size else None,
            inter_token_latency_ms=decoding * 1000 / after_first if has_rate and after_first >= 1 else None,
            tokens_per_second=n / (c[-1] / 1e6) if has_rate and n is not None else None,
            decode_tokens_per_second=after_first / decoding if has_rate and decoding > 0 else None,
            events_per_second=m / (c[-1] / 1e6) if m else None,
            tail_gap_ms=ms(t.end_us - (c[-1] if m else 0)),
            stall_count=len(long),
            stall_excess_ms=sum(excess),
            stall_threshold_ms=t.threshold_ms,
            stall_wait_ms=known(np.dot(excess, upstream)),
            stall_hold_ms=known(np.dot(excess, [stall.hold_us / stall.gap_us for stall in long])),
            stall_blocked_ms=known(np.dot(excess, [stall.blocked_us / stall.gap_us for stall in long])),
            hold_ms=known(ms(sum(held))) if m >= 2 else None,
        )


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    choices = draw(st.integers(1, 3))
    kinds = st.sampled_from(KINDS)
    return [
        Part(
            number, draw(kinds), choice=draw(st.integers(0, choices - 1)), name=draw(st.sampled_from([None, "summary"]))
        )
        for number in range(draw(st.integers(1, 4)))
    ]


@st.composite
def timings(draw: st.DrawFn) -> Timings:
    """A call as a recorder makes it: waits fit into their gaps, a further row of a chunk has none."""
    known = draw(parts())
    offset, wait, part = [], [], []
    now = 0
    small = st.integers(0, 30)
    long = st.integers(0, 3000)
    for _ in range(draw(st.integers(0, 8))):
        waited = draw(st.one_of(small, long))
        # Without a wait a chunk at the same time would be a row of the one before it.
        now += waited + draw(st.one_of(small, long)) + (1 if not waited else 0)
        added = draw(st.lists(st.integers(0, len(known) - 1), min_size=1, max_size=3))
        offset += [now] * len(added)
        wait += [waited] + [0] * (len(added) - 1)
        part += added
    tail_wait = draw(st.one_of(small, long))
    end = now + tail_wait + draw(st.one_of(small, long))
    moment = st.none() | st.integers(0, end)
    edges = st.tuples(st.integers(0, end), st.integers(0, end)).map(lambda pair: (min(pair), max(pair)))
    return Timings(
        offset_us=offset,
        wait_us=wait,
        part=part,
        parts=known,
        end_us=end,
        tail_wait_us=tail_wait,
        first_chunk_us=draw(moment),
        headers_us=draw(moment),
        attempt_us=draw(moment),
        blocked=draw(st.lists(edges, max_size=5)),
        threshold_ms=draw(st.sampled_from([0.01, 0.1, 1.0, 2.5])),
        streaming=draw(st.sampled_from([True, True, True, False])),
        fed_by_hand=draw(st.sampled_from([False, False, True])),
        token_count=draw(st.none() | st.integers(0, 50)),
        reasoning_tokens=draw(st.none() | st.integers(0, 30)),
        first_n_tokens=draw(st.none() | st.integers(0, 5)),
    )


def known(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in asdict(metrics).items() if value is not None}


@pytest.mark.scenario("metrics/Against a second implementation")
@given(timings())
def test_numbers_and_stalls_are_those_of_the_naive_implementation(t: Timings) -> None:
    found, stalls = compute(t)
    naive = Naive(t)

    assert list(stalls) == naive.stalls()
    assert known(found) == pytest.approx(known(naive.metrics()), rel=1e-9, abs=1e-6)


@given(timings())
def test_shares_add_up_to_their_whole(t: Timings) -> None:
    found, stalls = compute(t)

    for stall in stalls:
        assert stall.gap_us == stall.wait_us + stall.hold_us
        assert 0 <= stall.blocked_us <= stall.wait_us
    if found.stall_excess_ms is not None and not t.fed_by_hand:
        split = (found.stall_wait_ms or 0) + (found.stall_hold_ms or 0) + (found.stall_blocked_ms or 0)
        assert math.isclose(split, found.stall_excess_ms, abs_tol=1e-6)
