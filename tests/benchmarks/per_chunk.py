"""What recording adds to each text chunk on the caller's thread, with every field read and nothing parsed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import answers
from harness import Row, added, interleaved
from through import CHAT, CHUNKS, MESSAGES, RESPONSES, Surface

import tokentape

# The limits (µs) of the two modes.
LIMITS = (
    (CHAT, (1.0, 1.3)),
    (RESPONSES, (1.0, 1.3)),
    # Against the 16 µs that this SDK itself takes for an event.
    (MESSAGES, (0.8, 1.1)),
)


def rows() -> Iterator[Row]:
    """Every surface, sync and async."""
    for surface, limits in LIMITS:
        with answers.prebuilt(surface.objects(), CHUNKS, surface.sdk), tempfile.TemporaryDirectory() as folder:
            for mode, limit in zip(("sync", "async"), limits, strict=True):
                measured = interleaved(
                    {
                        "bare": partial(surface.per_chunk, mode == "async"),
                        "recorded": partial(_recorded, folder, surface, mode),
                    }
                )
                what = f"added per chunk, {surface.name}, {mode}"
                yield added(what, measured["bare"], measured["recorded"], limit, "µs")


def _recorded(folder: str, surface: Surface, mode: str) -> float:
    tokentape.enable(db=Path(folder) / "tape.db")
    try:
        return surface.per_chunk(mode == "async")
    finally:
        tokentape.disable()
