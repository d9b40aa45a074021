"""What recording adds to a whole call, and to the wait between its last chunk and the end of the loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import answers
from harness import Row, added, interleaved
from through import CHAT, MESSAGES, Surface

import tokentape

CHUNKS = 50
CALLS = 60
# After its classes have been patched the interpreter has to learn the SDK's code anew.
WARM_UP = 40


def rows() -> Iterator[Row]:
    """A call of 50 chunks, and how it ends."""
    for surface in (CHAT, MESSAGES):
        with answers.prebuilt(surface.objects(), CHUNKS, surface.sdk), tempfile.TemporaryDirectory() as folder:
            both: dict[str, list[tuple[float, float]]] = {"bare": [], "recorded": []}
            interleaved({name: partial(_note, surface, both[name], name, folder) for name in both})
        (calls, ends), (recorded_calls, recorded_ends) = (zip(*both[name], strict=True) for name in both)
        yield added(f"added per call of {CHUNKS} chunks, {surface.name}", [*calls], [*recorded_calls], 100.0, "µs")
        yield added(f"added wait after the last chunk, {surface.name}", [*ends], [*recorded_ends], 200.0, "µs")


def _note(surface: Surface, measured: list[tuple[float, float]], name: str, folder: str) -> float:
    if name == "recorded":
        tokentape.enable(db=Path(folder) / "tape.db")
    try:
        measured.append(_calls(surface))
    finally:
        tokentape.disable()
    return measured[-1][0]


def _calls(surface: Surface) -> tuple[float, float]:
    """Median of a call, and of the time between its last chunk and the end of the loop, in µs."""
    whole, ends = [], []
    with surface.make(0, False) as client:
        for _ in range(WARM_UP + CALLS):
            start = last = time.perf_counter()
            for _ in surface.ask(client, False):
                last = time.perf_counter()
            end = time.perf_counter()
            whole.append((end - start) * 1e6)
            ends.append((end - last) * 1e6)
    return median(whole[WARM_UP:]), median(ends[WARM_UP:])
