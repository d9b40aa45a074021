"""What a process that records one very long stream takes from the system, above one that only reads it."""

from __future__ import annotations

import os
import re
import resource
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import answers
from children import measured
from harness import Row, interleaved, shown
from through import CHAT, MESSAGES

import tokentape

CHUNKS = 100_000
ROUNDS = 5


# By the name that a process of its own is told.
SURFACES = {surface.adapter: surface for surface in (CHAT, MESSAGES)}


def rows() -> Iterator[Row]:
    """Peaks of the two processes, from the same imports."""
    for name, surface in SURFACES.items():
        with tempfile.TemporaryDirectory() as folder:
            tapes = {"bare": None, "recorded": str(Path(folder) / "tape.db")}
            peaks = interleaved({kind: partial(_in_a_process, name, db) for kind, db in tapes.items()}, ROUNDS)
        bare, recorded = min(peaks["bare"]), min(peaks["recorded"])
        spread = f"peaks of {shown(bare)} and {shown(recorded)} MB, the SDK, SQLite and what else was imported included"
        what = f"memory, one stream of {CHUNKS:,} chunks, {surface.name}"
        yield Row(what, recorded - bare, 20.0, "MB", spread)


def _in_a_process(name: str, db: str | None) -> float:
    return measured(f"import long_stream; print(long_stream.peak_mb({name!r}, {db!r}))")


def peak_mb(name: str, db: str | None) -> float:
    """Read the stream in this process; the most memory that it ever had, in MB."""
    surface = SURFACES[name]
    with answers.prebuilt(surface.objects(), CHUNKS, surface.sdk):
        if db is not None:
            tokentape.enable(db=db)
        with surface.make(0, False) as client:
            count = sum(1 for _ in surface.ask(client, False))
        tokentape.disable()
    if count != CHUNKS:
        raise RuntimeError(f"{count:,} of {CHUNKS:,} chunks came: the peak means nothing")
    return _own_peak_mb()


def _own_peak_mb() -> float:
    # `ru_maxrss` begins with what the process that started this one had; the kernel's own peak begins with exec.
    status = Path("/proc/self/status")
    if status.exists():
        return float(re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)[0]) * 1024 / 1e6
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
