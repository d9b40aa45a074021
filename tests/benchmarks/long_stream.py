"""What a process that records one very long stream takes from the system, above one that only reads it."""

from __future__ import annotations

import os
import re
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import answers
from children import measured
from harness import Row, interleaved, shown

import tokentape

CHUNKS = 100_000
ROUNDS = 5


def rows() -> Iterator[Row]:
    """Peaks of the two processes, from the same imports."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "tape.db"
        peaks = interleaved(
            {
                "bare": lambda: measured("import long_stream; print(long_stream.peak_mb(None))"),
                "recorded": lambda: measured(f"import long_stream; print(long_stream.peak_mb({str(db)!r}))"),
            },
            ROUNDS,
        )
    bare, recorded = min(peaks["bare"]), min(peaks["recorded"])
    spread = f"peaks of {shown(bare)} and {shown(recorded)} MB, the SDK, SQLite and what else was imported included"
    yield Row(f"memory, one stream of {CHUNKS:,} chunks", recorded - bare, 20.0, "MB", spread)


def peak_mb(db: str | None) -> float:
    """Read the stream in this process; the most memory that it ever had, in MB."""
    with answers.prebuilt(answers.chat_chunks(), CHUNKS):
        if db is not None:
            tokentape.enable(db=db)
        with answers.client() as client:
            count = sum(1 for _ in answers.chat(client))
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
