"""How fast the writer is, from what the recorder holds to committed rows, and how much room they take."""

from __future__ import annotations

import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random

from harness import ROUNDS, Row, best

import tokentape
from tokentape.call import CallRecorder, Request
from tokentape.recorder import active

EVENTS = 1_000
CALLS = 50
# The writer is woken by us alone.
NEVER_MS = 60_000
ASKED_FOR = "email phone badge=EMP-[0-9]{6}"

PROSE = """The harbour was quiet at six in the morning. Two boats had come in during the night, and their crews
slept on deck beneath whatever they had found: a sail, a coat, three old blankets. "You're early,"
said the woman who sold coffee from a cart; she had said so every day since 1987. I paid 2.40 for a
cup, and counted 14 gulls on the wall. By half past seven the fog lifted, the market filled, and
nobody remembered that there had been any silence at all. Its rules are simple:

1. Weigh the fish before you argue.
2. Never sell to a man who whistles.
3. If it rains, charge 10% more - and carry the crates yourself.
"""
TOKENS = re.findall(r" ?[A-Za-z]{1,7}|\d{1,3}|\n+| ?[^\sA-Za-z\d]+| ", PROSE)


def rows() -> Iterator[Row]:
    """One batch, many calls, with more patterns too, and the pages they fill."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "tape.db"
        batches, rates = _measured(db)
        room = _room(db)
        _, asked_for = _measured(Path(folder) / "asked_for.db", redact=ASKED_FOR)
        yield best(f"batch of {EVENTS:,} token events committed", batches, 10.0, "ms")
        yield best("writer, one core, whole calls", rates, 200_000, "events/s", at_least=True)
        more = "writer, one core, e-mail, phone and a pattern of the user's own masked too"
        yield best(more, asked_for, 100_000, "events/s", at_least=True)
        yield room


def _measured(db: Path, **settings: str) -> tuple[list[float], list[float]]:
    """Times of one batch, and rates of whole calls, on a tape of their own, built-in secrets masked."""
    tokentape.enable(db=db, flush_ms=NEVER_MS, **settings)
    # While a call is open the writer does not go idle: nothing but a flush makes it work.
    open_throughout = started()
    try:
        return [_batch() for _ in range(ROUNDS)], [_rate() for _ in range(ROUNDS)]
    finally:
        open_throughout.end("completed")
        tokentape.disable()


def _batch() -> float:
    """Milliseconds until the events of a call that goes on are committed."""
    call = started()
    tokentape.flush()
    last_ns = fill(call, EVENTS)
    start = time.perf_counter()
    tokentape.flush()
    took = (time.perf_counter() - start) * 1e3
    call.end("completed", at_ns=last_ns)
    return took


def _rate() -> float:
    """Events a second of processor time, for calls that open, stream and end: redaction, metrics and rows included."""
    tokentape.flush()
    for _ in range(CALLS):
        call = started()
        call.end("completed", at_ns=fill(call, EVENTS))
    start = time.process_time()
    tokentape.flush()
    return CALLS * EVENTS / (time.process_time() - start)


def started() -> CallRecorder:
    recorder = active()
    call = recorder.start(Request("benchmark", "chat", "openai", "gpt-x")) if recorder is not None else None
    if call is None:
        raise RuntimeError(f"not recording: {tokentape.status()['reason']}")
    return call


def fill(call: CallRecorder, count: int) -> int:
    """Append events 5 to 35 ms apart, as a reader would; returns when the last of them came."""
    part, at = call.part("text"), call.start_ns
    random = Random(count)
    for text in islice(cycle(TOKENS), count):
        asked = at + 100_000
        at += random.randrange(5_000_000, 35_000_000)
        call.rows.extend((asked, at, part, text))
    return at


def _room(db: Path) -> Row:
    what = "stored, pages of llm_tokens by dbstat"
    connection = sqlite3.connect(db)
    try:
        pages = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'llm_tokens'").fetchone()[0]
        count, chars = connection.execute("SELECT count(*), avg(length(token)) FROM llm_tokens").fetchone()
    except sqlite3.OperationalError as missing:
        return Row(what, None, 32.0, "bytes/event", f"this SQLite cannot tell ({missing})")
    finally:
        connection.close()
    expected = ROUNDS * (1 + CALLS) * EVENTS
    if count != expected:
        raise RuntimeError(f"{count:,} of {expected:,} token events are on the tape: the rates above mean nothing")
    return Row(what, pages / count, 32.0, "bytes/event", f"{count:,} events of {chars:.1f} characters on average")
