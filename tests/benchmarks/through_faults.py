"""How late a chunk reaches the program while the tape cannot be written: locked for a minute, or its disk full as long.

A chunk's delay runs from when it was due to when the loop has it, as in `while_writing`. Waking up on time is up to the
machine, so the same streams are measured unrecorded before and after, and the difference counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

import pytest
from harness import Row, shown
from openai import _streaming
from while_writing import CHUNKS, PAUSE_S, STREAMS, p99, paced, streams

import tokentape
from faulty_disks import locked_by_another_process, small_disk

FAULT_S = 60
ROUND_S = CHUNKS * PAUSE_S
ROUNDS = round(FAULT_S / ROUND_S)

Fault = Callable[[Path], AbstractContextManager[None]]


def rows() -> Iterator[Row]:
    """The 99th percentile of what each of them adds."""
    with mock.patch.object(_streaming.Stream, "__stream__", paced):
        yield _row("the tape is locked", _locked)
        yield _row("its disk is full", _full)


def _row(what: str, fault: Fault) -> Row:
    what = f"added delay of a chunk while {what} for {FAULT_S} s, p99, {STREAMS} streams"
    try:
        with tempfile.TemporaryDirectory() as folder:
            before = _rounds(ROUNDS // 4)
            with fault(Path(folder)):
                through = _rounds(ROUNDS)
                held = tokentape.status()["store"]
                if held["last_error"] is None:
                    return Row(what, None, 1.0, "ms", "the tape could be written all the time")
            after = _rounds(ROUNDS // 4)
    except pytest.skip.Exception as reason:
        return Row(what, None, 1.0, "ms", str(reason))
    bare = [*before, *after]
    spread = (
        f"median of {ROUNDS} rounds, worst {shown(max(through) - median(bare))}; {shown(median(bare))} ms bare; "
        f"{held['pending_events']:,} events held, {held['dropped_events']:,} dropped"
    )
    return Row(what, median(through) - median(bare), 1.0, "ms", spread)


def _rounds(count: int) -> list[float]:
    return [p99(late for _, late in streams()) for _ in range(count)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _recording(folder / "tape.db"), locked_by_another_process(folder / "tape.db"):
        yield


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    with small_disk(folder / "disk") as disk, _recording(disk.folder / "tape.db"):
        disk.fill()
        yield
        disk.empty()


@contextmanager
def _recording(db: Path) -> Iterator[None]:
    tokentape.enable(db=db)
    tokentape.flush()
    try:
        yield
    finally:
        tokentape.disable()
