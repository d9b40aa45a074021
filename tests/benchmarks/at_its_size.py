"""A tape at its size: how large it gets at full speed, how fast the writer is then, how late chunks of a stream are.

Full speed is the recorder filled from memory, call after call, as fast as the writer takes them. The delay of chunks is
measured as in `while_writing`, on a tape that is so far past its size that events are removed the whole time.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

from harness import Row, shown
from openai import _streaming
from while_writing import STREAMS, Delays, Spans, p99, paced, streams
from writing import EVENTS, fill, started

import tokentape
from tokentape.store.retention import Retention

MAX_MB = 64
# Calls of a thousand events: the tape would be twice its size without the cap.
CALLS = 4_000
AT_ONCE = 100
LOOK_EVERY_S = 0.005
DELAY_ROUNDS = 5
# So far past its size is the tape on which delays are measured.
TOO_LARGE_MB = 50


def rows() -> Iterator[Row]:
    """Size and speed at full load, then delays."""
    with tempfile.TemporaryDirectory() as folder:
        free, _ = _full_speed(Path(folder) / "free.db", 10_000)
        capped, largest = _full_speed(Path(folder) / "capped.db", MAX_MB)
        before, after = median(free), median(capped[len(capped) // 2 :])
        what = f"largest size on disk, WAL included, at full load and max_mb={MAX_MB}"
        yield Row(what, largest / 1e6, 80.0, "MB", f"{CALLS * EVENTS:,} events")
        what = "writer at its size, share of its speed below it"
        spread = f"{shown(after)} of {shown(before)} events/s"
        yield Row(what, after / before, 0.75, "", spread, at_least=True)
        yield _delays(Path(folder), Path(folder) / "free.db")


def _full_speed(db: Path, max_mb: int) -> tuple[list[float], int]:
    """Events a second of each hundred calls, and the most that was on disk meanwhile."""
    tokentape.enable(db=db, max_mb=max_mb, flush_ms=60_000)
    rates: list[float] = []
    with _watched(db) as largest:
        for _ in range(CALLS // AT_ONCE):
            for _ in range(AT_ONCE):
                call = started()
                call.end("completed", at_ns=fill(call, EVENTS))
            begun = time.perf_counter()
            if not tokentape.flush(120):
                raise RuntimeError(f"not written: {tokentape.status()['store']}")
            rates.append(AT_ONCE * EVENTS / (time.perf_counter() - begun))
    tokentape.disable()
    return rates, max(largest)


@contextmanager
def _watched(db: Path) -> Iterator[list[int]]:
    """Sizes of a tape with its WAL, looked at all the time."""
    sizes: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY_S):
            sizes.append(sum(path.stat().st_size for path in (db, Path(f"{db}-wal")) if path.exists()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield sizes
    finally:
        done.set()
        watcher.join()


def _delays(folder: Path, large: Path) -> Row:
    size_mb = large.stat().st_size // 1_000_000
    bare, thinning, met = [], [], 0
    with mock.patch.object(_streaming.Stream, "__stream__", paced):
        for number in range(DELAY_ROUNDS):
            bare.append(p99(late for _, late in streams()))
            db = shutil.copy(large, folder / f"{number}.db")
            delays, spans = _thinned(Path(db), size_mb - TOO_LARGE_MB)
            during = [late for due, late in delays if any(begun <= due <= ended for begun, ended in spans)]
            thinning.append(p99(during))
            met += len(during)
            Path(db).unlink()
    added = [with_us - alone for with_us, alone in zip(thinning, bare, strict=True)]
    spread = (
        f"median of {DELAY_ROUNDS} rounds, {shown(min(added))} to {shown(max(added))}; {shown(median(bare))} ms bare; "
        f"{met:,} chunks came meanwhile"
    )
    return Row(
        f"added delay of a chunk while events are removed, p99, {STREAMS} streams", median(added), 1.0, "ms", spread
    )


def _thinned(db: Path, max_mb: int) -> tuple[Delays, Spans]:
    spans: Spans = []
    original = Retention.step

    def timed(retention: Retention, *given: object) -> None:
        begun = time.perf_counter()
        original(retention, *given)  # type: ignore[arg-type]
        spans.append((begun, time.perf_counter()))

    with mock.patch.object(Retention, "step", timed):
        tokentape.enable(db=db, max_mb=max_mb)
        try:
            delays = streams()
            if not tokentape.status()["store"]["thinned_calls"]:
                raise RuntimeError("no event was removed: the delays mean nothing")
        finally:
            tokentape.disable()
    return delays, spans
