"""The numbers of one call, from examples worked out by hand."""

from __future__ import annotations

import time
from array import array
from dataclasses import asdict
from typing import Any

import pytest

from tokentape.metrics import Timings, compute, reasoning_hidden
from tokentape.models import Metrics, Part, Stall

TEXT = Part(0, "text")
WORKED = [100, 120, 140, 640, 660]


def timings(arrivals_ms: list[float], **given: Any) -> Timings:
    """A call with one event per arrival, in which the program was waiting all the time."""
    offsets = [round(at * 1000) for at in arrivals_ms]
    values: dict[str, Any] = {
        "offset_us": offsets,
        "wait_us": [b - a for a, b in zip([0, *offsets], offsets, strict=False)],
        "part": [0] * len(offsets),
        "parts": [TEXT],
        "end_us": offsets[-1] if offsets else 0,
        "tail_wait_us": 0,
    }
    return Timings(**values | given)


def numbers(t: Timings) -> dict[str, Any]:
    """The metrics that have a value, but for the threshold."""
    found = asdict(compute(t)[0])
    del found["stall_threshold_ms"]
    return {name: value for name, value in found.items() if value is not None}


def no_stalls() -> dict[str, float]:
    names = ("stall_count", "stall_excess_ms", "stall_wait_ms", "stall_hold_ms", "stall_blocked_ms")
    return dict.fromkeys(names, 0)


@pytest.mark.scenario("metrics/Worked example", "metrics/Rates with usage")
def test_all_numbers_of_a_worked_example() -> None:
    t = timings(
        [100, 120, 140, 640, 660],
        end_us=700_000,
        first_chunk_us=90_000,
        headers_us=80_000,
        attempt_us=5_000,
        token_count=12,
    )

    assert numbers(t) == pytest.approx(
        {
            "first_chunk_latency_ms": 90,
            "first_token_latency_ms": 100,
            "headers_latency_ms": 80,
            "retry_ms": 5,
            "first_output_token_latency_ms": 100,
            "first_text_latency_ms": 100,
            "second_token_gap_ms": 20,
            "last_token_latency_ms": 660,
            "duration_ms": 700,
            "inter_chunk_p50_ms": 20,
            "inter_chunk_p95_ms": 428,
            "inter_chunk_p99_ms": 485.6,
            "inter_chunk_max_ms": 500,
            "inter_chunk_mean_ms": 140,
            "inter_chunk_stdev_ms": 207.846,
            "inter_token_latency_ms": 50.909,
            "tokens_per_second": 18.182,
            "decode_tokens_per_second": 19.643,
            "events_per_second": 7.576,
            "tail_gap_ms": 40,
            "hold_ms": 0,
            **no_stalls(),
        },
        abs=0.001,
    )


@pytest.mark.scenario("metrics/Count not known")
def test_without_a_token_count_there_are_events_per_second_and_no_rate_per_token() -> None:
    found = compute(timings(WORKED))[0]

    assert found.events_per_second == pytest.approx(7.576, abs=0.001)
    assert (found.tokens_per_second, found.decode_tokens_per_second, found.inter_token_latency_ms) == (None, None, None)


@pytest.mark.scenario("metrics/Hidden reasoning")
@pytest.mark.parametrize("parts", [[TEXT], [Part(0, "reasoning", name="summary"), Part(1, "reasoning")]])
def test_reasoning_that_was_not_streamed_does_not_count_as_decoded(parts: list[Part]) -> None:
    t = timings(WORKED, parts=parts, token_count=12, reasoning_tokens=8)
    found = compute(t)[0]

    assert reasoning_hidden(t)
    assert found.decode_tokens_per_second == pytest.approx(5.357, abs=0.001)
    assert found.inter_token_latency_ms == pytest.approx(186.667, abs=0.001)
    assert found.tokens_per_second == pytest.approx(18.182, abs=0.001)


def test_reasoning_that_was_streamed_or_not_billed_is_not_hidden() -> None:
    assert not reasoning_hidden(timings(WORKED, parts=[Part(0, "reasoning")], reasoning_tokens=8))
    assert not reasoning_hidden(timings(WORKED, reasoning_tokens=0))
    assert not reasoning_hidden(timings(WORKED))


def test_tokens_of_the_first_event_are_not_decoded_after_it() -> None:
    found = compute(timings(WORKED, token_count=12, first_n_tokens=5))[0]

    assert found.decode_tokens_per_second == pytest.approx(7 / 0.56)
    assert found.inter_token_latency_ms == pytest.approx(80)


@pytest.mark.scenario("metrics/Four first times")
def test_each_first_time_waits_for_its_own_kind() -> None:
    kinds = [Part(0, "reasoning"), Part(1, "tool_args"), Part(2, "text")]
    found = compute(timings([200, 300, 900], part=[0, 1, 2], parts=kinds, first_chunk_us=10_000))[0]

    assert found.first_chunk_latency_ms == 10
    assert found.first_token_latency_ms == 200
    assert found.first_output_token_latency_ms == 300
    assert found.first_text_latency_ms == 900
    assert found.second_token_gap_ms == 100
    assert found.last_token_latency_ms == 900


@pytest.mark.scenario("metrics/Reasoning only")
def test_reasoning_alone_is_neither_output_nor_text() -> None:
    found = compute(timings([200, 300], parts=[Part(0, "reasoning")]))[0]

    assert found.first_token_latency_ms == 200
    assert (found.first_output_token_latency_ms, found.first_text_latency_ms) == (None, None)


@pytest.mark.scenario("metrics/Choices pooled")
def test_gaps_are_taken_per_choice_and_pooled() -> None:
    choices = [Part(0, "text", choice=0), Part(1, "text", choice=1)]
    found = compute(timings([100, 150, 300, 450], part=[0, 1, 0, 1], parts=choices))[0]

    assert (found.inter_chunk_p50_ms, found.inter_chunk_max_ms) == (250, 300)
    assert found.second_token_gap_ms == 50


def test_choices_of_one_event_each_have_no_gaps() -> None:
    choices = [Part(0, "text", choice=0), Part(1, "text", choice=1)]
    found = compute(timings([100, 1600], part=[0, 1], parts=choices))[0]

    assert (found.inter_chunk_p50_ms, found.inter_chunk_max_ms, found.second_token_gap_ms) == (None, None, 1500)
    assert (found.stall_count, found.stall_excess_ms) == (1, 1500)


@pytest.mark.scenario("metrics/One arrival")
def test_two_rows_of_one_chunk_are_one_arrival() -> None:
    t = timings(
        [100, 100, 130, 130], wait_us=[100_000, 0, 30_000, 0], part=[0, 1, 0, 1], parts=[TEXT, Part(1, "tool_args")]
    )
    found = compute(t)[0]

    assert (found.second_token_gap_ms, found.inter_chunk_p50_ms, found.inter_chunk_max_ms) == (30, 30, 30)
    assert found.events_per_second == pytest.approx(2 / 0.130)


def test_two_chunks_in_the_same_microsecond_are_two_arrivals() -> None:
    assert compute(timings([100, 100], wait_us=[100_000, 1]))[0].second_token_gap_ms == 0


def test_a_consumer_that_sleeps_shows_in_hold_and_not_in_the_wire() -> None:
    arrivals = [300, 420, 540, 1140, 1260]
    t = timings(arrivals, wait_us=[300_000, 20_000, 20_000, 500_000, 20_000], end_us=1_365_000, tail_wait_us=5_000)
    found = compute(t)[0]

    assert found.first_token_latency_ms == 300
    assert found.inter_chunk_max_ms == 600
    assert found.hold_ms == 400
    assert found.tail_gap_ms == 105


def test_rounding_never_makes_hold_negative() -> None:
    assert compute(timings([100, 120], wait_us=[100_000, 20_001]))[0].hold_ms == 0


@pytest.mark.scenario("metrics/Stall in the middle")
def test_a_stall_is_counted_with_what_it_took_beyond_the_median() -> None:
    found, stalls = compute(timings([100, 120, 140, 2140, 2160]))

    assert stalls == (Stall(3, "middle", 2_000_000, 2_000_000, 0, 0, "upstream"),)
    assert (found.stall_count, found.stall_excess_ms, found.stall_threshold_ms) == (1, 1980, 1000)


def test_a_long_first_wait_is_listed_and_not_counted() -> None:
    found, stalls = compute(timings([3010, 3030], first_chunk_us=10_000))

    assert stalls == (Stall(0, "first", 3_010_000, 3_010_000, 0, 0, "upstream"),)
    assert (found.stall_count, found.stall_excess_ms) == (0, 0)


def test_silence_before_the_end_is_a_stall_at_the_tail() -> None:
    found, stalls = compute(timings([100, 120, 150], end_us=3_150_000, tail_wait_us=3_000_000))

    assert stalls == (Stall(3, "tail", 3_000_000, 3_000_000, 0, 0, "upstream"),)
    assert (found.stall_count, found.stall_excess_ms, found.tail_gap_ms) == (1, 2975, 3000)


def test_a_call_without_any_event_is_all_tail() -> None:
    found, stalls = compute(timings([], end_us=3_000_000, tail_wait_us=3_000_000))

    assert stalls == (Stall(0, "tail", 3_000_000, 3_000_000, 0, 0, "upstream"),)
    assert (found.stall_count, found.stall_excess_ms) == (1, 3000)


def test_the_event_that_ended_a_stall_is_counted_in_rows() -> None:
    t = timings([100, 100, 2100], wait_us=[100_000, 0, 2_000_000], part=[0, 1, 0], parts=[TEXT, Part(1, "tool_args")])

    assert compute(t)[1] == (Stall(2, "middle", 2_000_000, 2_000_000, 0, 0, "upstream"),)


@pytest.mark.scenario("metrics/Shorter than the threshold")
def test_the_threshold_decides_what_is_a_stall() -> None:
    arrivals = [50, 80, 1079, 1100]

    assert compute(timings(arrivals, threshold_ms=1000.0))[0].stall_count == 0
    assert compute(timings(arrivals, threshold_ms=999.0))[0].stall_count == 1
    assert [stall.token_index for stall in compute(timings(arrivals, threshold_ms=500.0))[1]] == [2]


@pytest.mark.parametrize(
    ("wait_us", "blocked", "stall"),
    [
        (1_516_000, [(105_000, 1_600_000)], Stall(1, "middle", 1_520_000, 1_516_000, 4_000, 1_495_000, "blocked")),
        (20_000, [], Stall(1, "middle", 1_520_000, 20_000, 1_500_000, 0, "own")),
        (1_516_000, [(0, 90_000)], Stall(1, "middle", 1_520_000, 1_516_000, 4_000, 0, "upstream")),
        # While the program held the stream it did not wait for it: not every blocked moment counts.
        (20_000, [(100_000, 1_500_000)], Stall(1, "middle", 1_520_000, 20_000, 1_500_000, 0, "own")),
        # Spans that overlap, from the loop and from the writer, count once.
        (
            1_520_000,
            [(900_000, 1_700_000), (800_000, 1_000_000), (810_000, 820_000)],
            Stall(1, "middle", 1_520_000, 1_520_000, 0, 820_000, "blocked"),
        ),
    ],
    ids=["busy loop", "slow consumer", "slow server", "busy while held", "overlapping spans"],
)
def test_the_cause_is_what_took_most_of_the_gap(wait_us: int, blocked: list[tuple[int, int]], stall: Stall) -> None:
    assert compute(timings([100, 1620], wait_us=[100_000, wait_us], blocked=blocked))[1] == (stall,)


def test_nobody_is_blamed_for_events_fed_by_hand() -> None:
    found, stalls = compute(timings([100, 1620], wait_us=[0, 0], fed_by_hand=True))

    assert (found.stall_count, found.stall_excess_ms) == (1, 0)
    assert [found.hold_ms, found.stall_wait_ms, found.stall_hold_ms, found.stall_blocked_ms] == [None] * 4
    assert stalls == (Stall(1, "middle", 1_520_000, 0, 1_520_000, 0, "unknown"),)


@pytest.mark.scenario("metrics/Excess split")
def test_the_excess_is_split_as_the_gap_was() -> None:
    t = timings(
        [100, 100, 100, 2100], wait_us=[100_000, 1, 1, 1_000_000], blocked=[(1_200_000, 1_700_000)], end_us=2_100_000
    )
    found = compute(t)[0]

    assert found.stall_excess_ms == 2000
    assert (found.stall_wait_ms, found.stall_hold_ms, found.stall_blocked_ms) == (500, 1000, 500)


@pytest.mark.scenario("metrics/No content")
def test_without_content_there_is_a_duration_and_a_tail() -> None:
    t = timings([], end_us=500_000, first_chunk_us=400_000, headers_us=300_000, attempt_us=1_000, token_count=3)

    assert numbers(t) == {
        "first_chunk_latency_ms": 400,
        "headers_latency_ms": 300,
        "retry_ms": 1,
        "duration_ms": 500,
        "tail_gap_ms": 500,
        **no_stalls(),
    }


@pytest.mark.scenario("metrics/Single event")
def test_a_single_event_has_no_gaps() -> None:
    assert numbers(timings([250], token_count=1)) == {
        "first_token_latency_ms": 250,
        "first_output_token_latency_ms": 250,
        "first_text_latency_ms": 250,
        "last_token_latency_ms": 250,
        "duration_ms": 250,
        "tokens_per_second": 4,
        "events_per_second": 4,
        "tail_gap_ms": 0,
        **no_stalls(),
    }


@pytest.mark.scenario("metrics/Call without a stream")
def test_a_call_that_was_not_streamed_has_only_its_duration_and_rate() -> None:
    t = timings([], end_us=2_000_000, headers_us=1_900_000, attempt_us=1_000, token_count=40, streaming=False)

    assert compute(t) == (
        Metrics(duration_ms=2000.0, headers_latency_ms=1900.0, retry_ms=1.0, tokens_per_second=20.0),
        (),
    )


def test_a_hundred_thousand_events_take_a_moment() -> None:
    count = 100_000
    t = timings(
        [],
        offset_us=array("q", range(20_000, 20_000 * (count + 1), 20_000)),
        wait_us=array("q", [19_000]) * count,
        part=array("l", [0]) * count,
        end_us=20_000 * count,
        token_count=count,
    )
    started = time.process_time()
    found = compute(t)[0]
    # Some 50 ms where this was written: a pass that is quadratic takes minutes.
    assert time.process_time() - started < 2
    assert found.inter_chunk_p99_ms == 20
