"""How much later a chunk reaches the program because the writer is at work: five busy streams, recorded and not.

A chunk's delay runs from when it was due to when the loop has it. Waking up on time is up to the machine, so only the
difference counts: between chunks that came due while the writer worked, and those of the same streams unrecorded.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest import mock

import answers
from harness import Row, shown
from openai import _streaming

import tokentape
from tokentape import recording
from tokentape.redaction import Pattern
from tokentape.writer import Writer

STREAMS = 5
PAUSE_S = 0.001
CHUNKS = 2_500
ROUNDS = 7

# Ends only after 2^n steps, for a text of n letters.
ENDLESS = Pattern("endless", r"(?:[\w .,]|[\w .,]{2})+~~")

CHUNK_OBJECTS = answers.chat_chunks()
# A generator runs on the thread that reads it: so a chunk's due time reaches the loop beside the chunk.
_latest = threading.local()

Delays = list[tuple[float, float]]
Spans = list[tuple[float, float]]


class Endless:
    """A plugin with a pattern that is never done with what these streams say."""

    @tokentape.hookimpl
    def tokentape_redactors(self) -> list[Pattern]:
        return [ENDLESS]


def rows() -> Iterator[Row]:
    """The 99th percentile of what the writer adds, and of what it adds while it searches for what never ends."""
    bare: list[float] = []
    plain: list[list[float]] = []
    endless: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(_streaming.Stream, "__stream__", paced):
        for number in range(ROUNDS):
            bare.append(p99(late for _, late in streams()))
            plain.append(_beside(Path(folder) / f"{number}.db"))
            with mock.patch.object(recording, "_registered", [Endless()]):
                endless.append(_beside(Path(folder) / f"endless-{number}.db"))
    yield _row(f"added delay of a chunk while the writer flushes, p99, {STREAMS} streams", plain, bare)
    yield _row("the same while the writer searches with a pattern that never ends", endless, bare)


def _row(what: str, beside: list[list[float]], bare: list[float]) -> Row:
    added = [p99(delays) - alone for delays, alone in zip(beside, bare, strict=True)]
    spread = (
        f"median of {ROUNDS} rounds, {shown(min(added))} to {shown(max(added))}; {shown(median(bare))} ms bare; "
        f"{sum(map(len, beside)):,} chunks met the writer"
    )
    return Row(what, median(added), 1.0, "ms", spread)


def _beside(db: Path) -> list[float]:
    """Delays of the chunks that came due while the writer worked."""
    delays, rounds = _recorded(db)
    return [late for due, late in delays if any(begun <= due <= ended for begun, ended in rounds)]


def _recorded(db: Path) -> tuple[Delays, Spans]:
    rounds: Spans = []
    original = Writer._round

    def timed(writer: Writer) -> None:
        begun = time.perf_counter()
        original(writer)
        rounds.append((begun, time.perf_counter()))

    with mock.patch.object(Writer, "_round", timed):
        tokentape.enable(db=db)
        try:
            delays = streams()
        finally:
            tokentape.disable()
    with sqlite3.connect(db) as connection:
        stored = connection.execute("SELECT count(*) FROM llm_tokens").fetchone()[0]
    if stored != len(delays):
        raise RuntimeError(f"{stored:,} of {len(delays):,} token events are on the tape: the delays mean nothing")
    return delays, rounds


def streams() -> Delays:
    """Delays of all chunks of all streams, each with when it was due, in s and ms."""
    delays: Delays = []
    with answers.client() as client:
        readers = [threading.Thread(target=_read, args=(client, delays)) for _ in range(STREAMS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    return delays


def _read(client: Any, delays: Delays) -> None:
    stream = answers.chat(client)
    for _ in stream:
        delays.append((_latest.due, (time.perf_counter() - _latest.due) * 1e3))


def paced(stream: Any) -> Iterator[Any]:
    """Hands over a chunk each time one is due, as a provider would."""
    due = time.perf_counter()
    for chunk in islice(cycle(CHUNK_OBJECTS), CHUNKS):
        due += PAUSE_S
        time.sleep(max(0.0, due - time.perf_counter()))
        _latest.due = due
        yield chunk


def p99(delays: Any) -> float:
    return quantiles(delays, n=100, method="inclusive")[98]
