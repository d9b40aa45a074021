"""What recording adds to each text chunk on the caller's thread, with every field read and nothing parsed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import answers
from harness import Row, added, interleaved

import tokentape

CHUNKS = 2_000
# Streams in a row, of which the fastest counts: each is short enough to be left alone by the scheduler.
STREAMS = 5


def rows() -> Iterator[Row]:
    """Chat and Responses, sync and async."""
    for surface, objects, ask in (
        ("chat", answers.chat_chunks(), answers.chat),
        ("Responses", answers.responses_events(), answers.responses),
    ):
        with answers.prebuilt(objects, CHUNKS), tempfile.TemporaryDirectory() as folder:
            for mode, run, limit in (("sync", _run, 1.0), ("async", _run_async, 1.3)):
                measured = interleaved(
                    {
                        "bare": lambda run=run, ask=ask: run(ask),
                        "recorded": lambda run=run, ask=ask: _recorded(folder, run, ask),
                    }
                )
                yield added(f"added per chunk, {surface}, {mode}", measured["bare"], measured["recorded"], limit, "µs")


def _recorded(folder: str, run: Callable[[Any], float], ask: Any) -> float:
    tokentape.enable(db=Path(folder) / "tape.db")
    try:
        return run(ask)
    finally:
        tokentape.disable()


def _run(ask: Any) -> float:
    with answers.client() as client:
        return min(_read(ask(client)) for _ in range(STREAMS))


def _read(stream: Any) -> float:
    start = time.perf_counter()
    for _ in stream:
        pass
    return (time.perf_counter() - start) / CHUNKS * 1e6


def _run_async(ask: Any) -> float:
    return asyncio.run(_stream_async(ask))


async def _stream_async(ask: Any) -> float:
    async with answers.async_client() as client:
        return min([await _read_async(await ask(client)) for _ in range(STREAMS)])


async def _read_async(stream: Any) -> float:
    start = time.perf_counter()
    async for _ in stream:
        pass
    return (time.perf_counter() - start) / CHUNKS * 1e6
