"""How the command line says numbers, draws a call, and makes text safe for a terminal."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape import words
from tokentape.cli.drawing import BUSY, EVENTS, OWN, UNKNOWN, WAITING, timeline
from tokentape.cli.terminal import one_line, safe
from tokentape.models import FINAL_STATUSES, KINDS


def row(**columns: Any) -> dict[str, Any]:
    """A row of the tape; columns that are not given are NULL."""
    return defaultdict(lambda: None, columns)


def stall(index: int, cause: str, position: str = "middle", **times: int) -> dict[str, Any]:
    return {
        "token_index": index,
        "cause": cause,
        "position": position,
        "blocked_us": 0,
        "wait_us": 0,
        "gap_us": 0,
    } | times


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0.04, "0.0 ms"),
        (2.34, "2.3 ms"),
        (9.96, "10 ms"),
        (99.4, "99 ms"),
        (99.6, "0.1 s"),
        (8100, "8.1 s"),
        (99_940, "99.9 s"),
        (184_000, "184 s"),
    ],
)
def test_duration_takes_the_unit_that_reads_best(ms: float, said: str) -> None:
    assert words.duration(ms) == said


@pytest.mark.scenario("cli/First token explained")
def test_first_token_after_two_refusals_names_retries_headers_and_first_chunk() -> None:
    call = row(
        first_token_latency_ms=8100,
        first_chunk_latency_ms=8100,
        headers_latency_ms=6600,
        retry_ms=6200,
        retries=2,
        response_meta_json=json.dumps({"retry_statuses": [429, 429]}),
    )
    assert words.first_token(call) == "first token 8.1 s = 6.2 retries (2 × 429) + 0.4 headers + 1.5 first chunk"


def test_retries_without_known_statuses_are_counted() -> None:
    call = row(first_token_latency_ms=900, first_chunk_latency_ms=900, headers_latency_ms=700, retry_ms=500, retries=3)
    assert words.first_token(call) == "first token 0.9 s = 0.5 retries (3) + 0.2 headers + 0.2 first chunk"


def test_first_token_behind_an_empty_first_chunk_has_a_piece_of_its_own() -> None:
    call = row(first_token_latency_ms=3400, first_chunk_latency_ms=400, headers_latency_ms=200, retry_ms=1, retries=0)
    assert words.first_token(call) == "first token 3.4 s = 0.2 headers + 0.2 first chunk + 3.0 first content"


def test_first_token_of_a_stream_without_headers_stands_alone() -> None:
    assert words.first_token(row(first_token_latency_ms=51, first_chunk_latency_ms=51)) == "first token 51 ms"
    assert words.first_token(row()) is None


@given(st.lists(st.floats(0, 200_000), min_size=4, max_size=4))
def test_pieces_of_the_first_token_add_up(times: list[float]) -> None:
    retry, headers, chunk, token = sorted(times)
    call = row(
        first_token_latency_ms=token,
        first_chunk_latency_ms=chunk,
        headers_latency_ms=headers,
        retry_ms=retry,
        retries=1,
    )
    _, _, sum_of_pieces = str(words.first_token(call)).partition(" = ")
    shown = sum(float(piece.split()[0]) for piece in sum_of_pieces.split(" + ") if piece)
    unit = 1 if token < 99.5 else 1000
    assert shown == pytest.approx(token / unit, abs=0.51 if 9.95 <= token < 99.5 else 0.051)


@pytest.mark.scenario("cli/Pair for a thinking model")
def test_thinking_model_has_a_pair_of_first_times() -> None:
    both = row(first_token_latency_ms=400, first_output_token_latency_ms=9100)
    assert words.thinking(both) == "first 0.4 s (thinking), answer 9.1 s"
    assert words.thinking(row(first_token_latency_ms=400)) == "first 0.4 s (thinking), no answer"
    assert words.thinking(row(first_token_latency_ms=400, first_output_token_latency_ms=400)) is None
    assert words.thinking(row()) is None


@pytest.mark.scenario("cli/Unknown rate")
def test_rate_is_in_tokens_only_where_their_number_is_known() -> None:
    known = row(token_count=45, event_count=41, tokens_per_second=19.5, events_per_second=17.8)
    assert words.amount(known) == "45 tokens, 19.5 tok/s, in 41 events"
    assert words.amount(row(event_count=41, events_per_second=17.8)) == "41 events, 17.8 events/s"
    assert words.amount(row(event_count=0)) == "0 events"
    assert words.rate(known) == "19.5 tok/s"
    assert words.rate(row(events_per_second=17.8)) == "17.8 events/s"


def test_stall_says_where_how_long_and_whose_time_it_was() -> None:
    assert words.stall(stall(11, "own", gap_us=4_200_000), 41) == "4.2 s before event 12/41: in your code"
    assert words.stall(stall(3, "upstream", "tail", gap_us=3_000_000), 3) == (
        "3.0 s after the last event: waiting (provider or network)"
    )
    assert words.stall(stall(0, "blocked", "tail", gap_us=3_000_000), 0) == "3.0 s without any event: event loop busy"


def test_outcome_has_status_reason_duration_and_error() -> None:
    assert words.outcome(row(status="completed", finish_reason="stop", duration_ms=12_300)) == (
        "completed (stop) after 12.3 s"
    )
    failed = row(
        status="error", duration_ms=500, error_type="RateLimitError", error_message="slow down", http_status=429
    )
    assert words.outcome(failed) == "error after 0.5 s: RateLimitError: slow down (HTTP 429)"
    assert words.outcome(row(status="running")) == "running"


def test_call_in_flight_says_how_long_it_has_been_silent() -> None:
    call = row(model="gpt-x", silent_for_ms=184_200.0, event_count=212)
    assert words.in_flight(call) == "gpt-x: waiting 184 s, 212 events so far"


@pytest.mark.scenario("cli/Summary")
def test_run_in_one_line() -> None:
    run = {"call_count": 3, "slowest_first_token_ms": 2100.0}
    one = [{"cause": "upstream", "stall_count": 1, "gap_ms": 4200.0}]
    two = [*one, {"cause": "own", "stall_count": 2, "gap_ms": 3000.0}]
    assert words.summary({**run, "stalls": one}) == "3 calls, slowest first token 2.1 s, 1 stall (upstream 4.2 s)"
    assert words.summary({**run, "stalls": two}) == (
        "3 calls, slowest first token 2.1 s, 3 stalls (upstream 4.2 s, own 3.0 s)"
    )
    assert words.summary({"call_count": 1, "slowest_first_token_ms": None, "stalls": []}) == "1 call"


def test_billed_tokens_name_cached_and_reasoning_ones() -> None:
    call = row(input_tokens=1200, cached_input_tokens=1000, output_tokens=45, reasoning_tokens=0)
    assert words.usage(call) == "billed: input 1,200 tokens (1,000 cached), output 45 tokens"
    assert words.usage(row()) is None


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (999, "999 B"), (4096, "4.1 kB"), (1_234_567, "1.2 MB"), (5e9, "5.0 GB")]
)
def test_size_of_a_file(size: float, said: str) -> None:
    assert words.size(size) == said


@pytest.mark.scenario("cli/Timeline in one line")
def test_timeline_tells_waiting_from_own_code_and_a_busy_loop() -> None:
    arrivals = [(1_000_000, 1_000_000), (4_000_000, 3_000_000), (7_000_000, 0), (10_000_000, 3_000_000)]
    stalls = [
        stall(1, "upstream", wait_us=3_000_000),
        stall(2, "own"),
        stall(3, "blocked", wait_us=3_000_000, blocked_us=3_000_000),
    ]
    drawn = timeline(arrivals, stalls, 10_000_000, 100)
    assert len(drawn.line) == 100
    assert " waiting 3.0 s " in drawn.line
    assert " in your code 3.0 s " in drawn.line
    assert drawn.marks == WAITING * 10 + EVENTS + WAITING * 29 + EVENTS + OWN * 29 + EVENTS + BUSY * 28 + EVENTS
    assert drawn.legend == "· waiting  ~ event loop busy  = in your code  ▄ events"


def test_stall_shorter_than_a_cell_is_drawn_all_the_same() -> None:
    arrivals = [(i * 1_000_000, 1_000_000 if i else 0) for i in range(1000)]
    arrivals[500] = (500_000_000, 0)
    drawn = timeline(arrivals, [stall(500, "own")], 1_000_000_000, 20)
    assert drawn.marks == EVENTS * 9 + OWN + EVENTS * 10


def test_nobody_is_blamed_for_gaps_of_events_fed_by_hand() -> None:
    drawn = timeline([(0, 0), (5_000_000, 0)], [stall(1, "unknown")], 5_000_000, 10, by_hand=True)
    assert drawn.marks == EVENTS + UNKNOWN * 8 + EVENTS


def test_tail_is_drawn_where_it_was_a_stall_and_blank_elsewhere() -> None:
    silent = timeline([(0, 0)], [stall(1, "upstream", "tail", wait_us=3_000_000)], 3_000_000, 10)
    assert silent.marks == EVENTS + WAITING * 9
    assert timeline([(0, 0)], [], 3_000_000, 10).marks == EVENTS + " " * 9
    assert timeline([], [stall(0, "upstream", "tail", wait_us=3_000_000)], 3_000_000, 5).marks == WAITING * 5


@given(
    st.lists(st.tuples(st.integers(0, 10_000_000), st.floats(0, 1)), max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["upstream", "own", "blocked", "unknown"])), max_size=4),
    st.integers(0, 10_000_000),
    st.integers(1, 130),
)
def test_timeline_has_exactly_its_width(
    gaps: list[tuple[int, float]], causes: list[tuple[int, str]], tail: int, width: int
) -> None:
    arrivals, at = [], 0
    for gap, share in gaps:
        at += gap
        arrivals.append((at, int(gap * share)))
    stalls = [stall(index, cause, wait_us=1000, blocked_us=500) for index, cause in dict(causes).items()]
    drawn = timeline(arrivals, stalls, at + tail, width)
    assert (len(drawn.line), len(drawn.marks)) == (width, width)


def test_control_characters_and_direction_marks_are_escaped_and_markup_is_left() -> None:
    assert safe("a\x1b[31m\x00\x07\x9b\r\x7f[red]b[/red]") == r"a\x1b[31m\x00\x07\x9b\r\x7f[red]b[/red]"
    assert safe("line\n\ttab é 😀 \u202egnp.exe \ud83d") == "line\n\ttab é 😀 \\u202egnp.exe \\ud83d"
    assert one_line(" two\r\n\tlines ") == " two lines "


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_character_survives(text: str) -> None:
    shown = safe(text)
    assert all(char in "\n\t" or (ord(char) >= 0x20 and not 0x7F <= ord(char) <= 0x9F) for char in shown)
    shown.encode()


@pytest.mark.parametrize(
    ("kept", "count", "content", "said"),
    [
        (
            "aggregated",
            0,
            True,
            "None of its 15 token events is left: the tape had reached its size (max_mb)",
        ),
        ("packed", 3, False, "3 of its 15 token events are left: they were packed"),
        (
            "dropped",
            1,
            False,
            "1 of its 15 token events is left: the tape could not be written, and no more could be held",
        ),
    ],
)
def test_what_is_left_of_a_call(kept, count, content, said):
    call = {"event_count": 15, "kept": {"events": kept, "event_count": count, "content": content}}

    text = "its text" if content else "no text"
    assert words.left(call) == f"{said}. Its numbers are those of all events; {text} is kept."
    assert words.left({**call, "kept": {**call["kept"], "events": "all"}}) is None


def test_what_a_call_in_flight_waits_for():
    assert words.waits_for({"event_count": 0, "silent_for_ms": 3200.0}) == "the first token, for 3.2 s"
    assert words.waits_for({"event_count": 1234, "silent_for_ms": 20.0}) == "event 1,235, for 20 ms"


def test_every_status_and_kind_has_its_word():
    assert set(words.SIGNS) == {"running", *FINAL_STATUSES}
    assert len(set(words.SIGNS.values())) == len(words.SIGNS)
    assert set(words.KINDS) == set(KINDS)
