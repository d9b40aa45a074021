"""What recording adds to each text chunk as a share of what the chunk costs the program without it.

What is added is measured with nothing parsed, where it stands out; what a chunk costs, with the bytes really parsed.
Above a framework that is what the framework takes and the SDK beneath it. Only the adapter in question records. All is
processor time of the reader's thread, which other programs do not stretch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import answers
from harness import Row, interleaved, shown
from through import LANGCHAIN, LLAMA_INDEX, MESSAGES, Surface

import tokentape

LIMIT_PERCENT = 5.0
CHUNKS = 200
FLUSH_S = 5.0
# As a surface calls its two modes.
SURFACES = (
    (MESSAGES, ("sync", "async")),
    (LANGCHAIN, ("stream", "astream")),
    (LLAMA_INDEX, ("stream_chat", "astream_chat")),
)


def rows() -> Iterator[Row]:
    """Every surface, sync and async."""
    for surface, modes in SURFACES:
        with tempfile.TemporaryDirectory() as folder:
            for asynchronous, mode in enumerate(modes):
                yield _row(surface, mode, bool(asynchronous), Path(folder) / "tape.db")


def _row(surface: Surface, mode: str, asynchronous: bool, db: Path) -> Row:
    measured = interleaved(
        {
            "parsed": lambda: surface.per_chunk(asynchronous, CHUNKS, parsed=True, clock=time.thread_time),
            "bare": lambda: _prebuilt(surface, asynchronous, None),
            "recorded": lambda: _prebuilt(surface, asynchronous, db),
        }
    )
    cost, bare, recorded = (min(measured[name]) for name in ("parsed", "bare", "recorded"))
    spread = f"{shown(recorded - bare)} µs on {shown(cost)} µs; {shown(bare)} µs with nothing parsed"
    what = f"added per chunk, {surface.name}, {mode}: of what a chunk costs"
    return Row(what, 100 * (recorded - bare) / cost, LIMIT_PERCENT, "%", spread)


def _prebuilt(surface: Surface, asynchronous: bool, db: Path | None) -> float:
    # Entered each time, since the variant beside it parses.
    with answers.prebuilt(surface.objects(), CHUNKS, surface.sdk):
        if db is not None:
            tokentape.enable(db=db, plugins=[surface.adapter])
        try:
            # The writer opens the tape with the first call, at a cost that belongs to no chunk.
            surface.per_chunk(asynchronous, CHUNKS)
            tokentape.flush(timeout=FLUSH_S)
            return surface.per_chunk(asynchronous, CHUNKS, clock=time.thread_time)
        finally:
            tokentape.disable()
