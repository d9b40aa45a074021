"""A tape of 1,000,000 token events, built once for all tests that ask for it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokentape.models import Part, TokenBatch, Usage
from tokentape.store.plugin import SQLiteStore
from values import call_value, finished, metrics_value, process_value, run_value, stall

EVENTS = 1_000_000
LONG_CALL = 10_000
CALLS = 500
MODELS = ("gpt-a", "gpt-b", "gpt-c")
STATUSES = ("completed", "completed", "completed", "error", "cancelled", "abandoned")
WORDS = (" the", " of", " stream", ",", " token", " a", "\n", " tape", " ünder", " and")
SLICE = 1_000


@pytest.fixture(scope="session")
def million(tmp_path_factory):
    """Path of the tape, and the id of a call with 10,000 events on it."""
    return build(tmp_path_factory.getbasetemp() / "million" / "tape.db")


@functools.cache
def build(path: Path) -> SimpleNamespace:
    """Write the tape through the store's own hooks: runs, nested runs, framework calls, stalls, labels, logprobs."""
    store = SQLiteStore(path, process_value(), max_buffer=EVENTS)
    for number in range(20):
        store.tokentape_run_started(run_value(f"run-{number}", parent_uid=f"run-{number - 1}" if number % 4 else None))
    per_call = (EVENTS - LONG_CALL) // (CALLS - 1)
    left = EVENTS
    for number in range(CALLS):
        size = LONG_CALL if number == CALLS // 2 else (per_call if number < CALLS - 1 else left)
        left -= size
        _record(store, number, size)
    store.tokentape_shutdown()
    return SimpleNamespace(path=path, call_id=CALLS // 2 + 1)


def _record(store: SQLiteStore, number: int, size: int) -> None:
    layer = "framework" if number % 10 == 0 else "sdk"
    call = call_value(
        f"{number:026d}",
        run_uid=f"run-{number % 20}",
        parent_uid=f"{number - 1:026d}" if number % 10 == 1 else None,
        layer=layer,
        request_model=MODELS[number % 3],
        started_unix_us=1_764_000_000_000_000 + number * 60_000_000,
        labels={"env": ("prod", "test")[number % 2], "user": str(number % 50)},
        request={"model": MODELS[number % 3], "temperature": 0.5},
    )
    store.tokentape_call_started(call)
    parts = (Part(0, "reasoning"), Part(1, "text"))
    for start in range(0, size, SLICE):
        store.tokentape_tokens(call, _batch(start, min(start + SLICE, size), parts if not start else ()))
        store.tokentape_flush()
    if number % 100 != 99:
        count = size * 2
        store.tokentape_call_finished(
            finished(
                call,
                status=STATUSES[number % len(STATUSES)],
                ended_us=size * 20_000 + 5_000,
                usage=Usage(input_tokens=100, output_tokens=count, raw={"completion_tokens": count}),
                token_count=count,
                token_count_source="usage",
                event_count=size,
                chunk_count=size + 2,
                finish_reason=json.dumps(["stop", "length"]) if number % 7 == 0 else "stop",
                parts=parts,
                stalls=(stall(size // 2), stall(size, position="tail", cause="unknown")),
                metrics=metrics_value(first_token_latency_ms=100.0 + number, inter_token_latency_ms=10.0 + number),
            )
        )
    store.tokentape_flush()


def _batch(start: int, end: int, parts: tuple[Part, ...]) -> TokenBatch:
    events = range(start, end)
    return TokenBatch(
        offset_us=[i * 20_000 + (i * 7919) % 10_000 for i in events],
        wait_us=[(i * 104_729) % 20_000 for i in events],
        part=[0 if i < 20 else 1 for i in events],
        token=[WORDS[i % 10] for i in events],
        n_tokens={0: 2},
        logprobs={0: [{"token": "a", "logprob": -0.25}]},
        parts=parts,
    )
