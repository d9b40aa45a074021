"""Whatever the batches are, the tape reads back as a naive model of it says."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.models import Part, TokenBatch
from tokentape.store import schema
from tokentape.store.plugin import SQLiteStore
from values import call_value, finished, process_value, run_value

PARTS = (Part(0, "text"), Part(1, "reasoning"), Part(2, "text", 1))
PIECES = st.text(st.sampled_from("ab\x00ü\U0001f600\ud83d\ude00\udfff"), max_size=4)
EVENT = st.tuples(
    st.integers(0, 3_000_000),
    st.integers(0, 3_000_000),
    st.integers(0, 2),
    PIECES,
    st.none() | st.integers(1, 9),
    st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)
BATCH = st.tuples(st.integers(0, 1), st.lists(EVENT, max_size=6))
STEPS = st.lists(BATCH | st.just("flush"), max_size=12)


@functools.cache
def empty_tape():
    """The bytes of a tape without rows: migrating one for every example would take most of the time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tape.db"
        schema.open_for_writing(path).close()
        return path.read_bytes()


@contextlib.contextmanager
def new_tape():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tape.db"
        path.write_bytes(empty_tape())
        yield path


def as_batch(events, parts):
    columns = [list(column) for column in zip(*events, strict=True)] or [[]] * 6
    offset, wait, part, token, n_tokens, logprobs = columns
    known = [{i: value for i, value in enumerate(column) if value is not None} for column in (n_tokens, logprobs)]
    return TokenBatch(offset, wait, part, token, *known, parts)


def whole(text):
    """Text with its surrogate pairs joined and each single one replaced, character by character."""
    out, i = [], 0
    while i < len(text):
        if "\ud800" <= text[i] <= "\udbff" and i + 1 < len(text) and "\udc00" <= text[i + 1] <= "\udfff":
            out.append(chr(0x10000 + (ord(text[i]) - 0xD800) * 0x400 + ord(text[i + 1]) - 0xDC00))
            i += 1
        else:
            out.append("\ufffd" if "\ud800" <= text[i] <= "\udfff" else text[i])
        i += 1
    return "".join(out)


def naive_tokens(events):
    """Each event as it should be stored: what ends in a high surrogate hands it to the next event of its part."""
    texts = [event[3] for event in events]
    for part in range(3):
        own = [i for i, event in enumerate(events) if event[2] == part]
        for i, following in itertools.zip_longest(own, own[1:]):
            if texts[i] and "\ud800" <= texts[i][-1] <= "\udbff" and following is not None:
                texts[i], texts[following] = texts[i][:-1], texts[i][-1] + texts[following]
    return [whole(text) for text in texts]


@given(steps=STEPS)
@settings(max_examples=120, deadline=None)
def test_any_sequence_of_batches_reads_back_as_it_came(steps):
    with new_tape() as path:
        calls = (call_value("A"), call_value("B"))
        came = ([], [])
        store = SQLiteStore(path, process_value(), max_buffer=10_000)
        store.tokentape_run_started(run_value())
        for call in calls:
            store.tokentape_call_started(call)
        for step in steps:
            if step == "flush":
                store.tokentape_flush()
            else:
                number, events = step
                store.tokentape_tokens(calls[number], as_batch(events, () if came[number] else PARTS))
                came[number].extend(events)
        for number, call in enumerate(calls):
            store.tokentape_call_finished(finished(call, parts=PARTS, event_count=len(came[number])))
        store.tokentape_flush()
        store.tokentape_shutdown()
        found = sqlite3.connect(path)

        for call_id, events in enumerate(came, start=1):
            rows = found.execute(
                "SELECT token_index, offset_us, wait_us, part, token, n_tokens FROM llm_tokens WHERE call_id = ? "
                "ORDER BY token_index",
                (call_id,),
            ).fetchall()
            texts = naive_tokens(events)
            assert rows == [
                (i, offset, wait, part, texts[i], n_tokens)
                for i, (offset, wait, part, _, n_tokens, _) in enumerate(events)
            ]
            content = dict(found.execute("SELECT part, content FROM llm_parts WHERE call_id = ?", (call_id,)))
            assert content == {
                part: whole("".join(event[3] for event in events if event[2] == part)) for part in range(3)
            }
            logprobs = found.execute("SELECT token_index FROM llm_token_logprobs WHERE call_id = ?", (call_id,))
            assert [index for (index,) in logprobs] == [i for i, event in enumerate(events) if event[5] is not None]
        found.close()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=12),
    max_buffer=st.integers(1, 40),
)
@settings(max_examples=80, deadline=None)
def test_every_event_is_stored_or_counted_as_dropped_and_the_stored_ones_are_the_oldest(sizes, max_buffer):
    """Batches of some size, each with the tape locked or not, and flushed or not."""
    with new_tape() as path:
        call = call_value()
        store = SQLiteStore(path, process_value(), max_buffer=max_buffer, busy_ms=0)
        store.tokentape_call_started(call)
        store.tokentape_flush()
        blocker = sqlite3.connect(path, isolation_level=None)
        expected, held, came = [], [], itertools.count()
        for size, locked, flushed in sizes:
            texts = [str(next(came)) for _ in range(size)]
            held += texts[: max_buffer - len(held)]
            store.tokentape_tokens(call, as_batch([(0, 0, 0, text, None, None) for text in texts], ()))
            if flushed:
                blocker.execute("BEGIN IMMEDIATE" if locked else "SELECT 1")
                store.tokentape_flush()
                if locked:
                    blocker.execute("ROLLBACK")
                else:
                    expected, held = expected + held, []
        store.tokentape_call_finished(finished(call, event_count=next(came)))
        store.tokentape_flush()
        stored = [token for (token,) in blocker.execute("SELECT token FROM llm_tokens ORDER BY token_index")]
        counted = blocker.execute("SELECT event_count, dropped_count FROM llm_calls").fetchone()
        blocker.close()
        store.tokentape_shutdown()

        assert stored == expected + held
        assert counted == (sum(size for size, _, _ in sizes), sum(size for size, _, _ in sizes) - len(stored))
