"""What recording adds to each text chunk on the caller's thread, with every field read and nothing parsed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import answers
import anthropic
import openai
from harness import Row, added, interleaved

import tokentape

CHUNKS = 2_000
# Streams in a row, of which the fastest counts: each is short enough to be left alone by the scheduler.
STREAMS = 5


@dataclass(frozen=True, slots=True)
class Surface:
    """One wire format of one SDK, with the limits (µs) of its two modes."""

    name: str
    sdk: ModuleType
    objects: Callable[[], list[Any]]
    ask: Callable[[Any], Any]
    limits: tuple[float, float] = (1.0, 1.3)


SURFACES = (
    Surface("chat", openai, answers.chat_chunks, answers.chat),
    Surface("Responses", openai, answers.responses_events, answers.responses),
    # Against the 16 µs that this SDK itself takes for an event.
    Surface("Anthropic messages", anthropic, answers.messages_events, answers.messages, (0.8, 1.1)),
)


def rows() -> Iterator[Row]:
    """Every surface, sync and async."""
    for surface in SURFACES:
        with answers.prebuilt(surface.objects(), CHUNKS, surface.sdk), tempfile.TemporaryDirectory() as folder:
            for mode, run, limit in zip(("sync", "async"), (_run, _run_async), surface.limits, strict=True):
                measured = interleaved(
                    {
                        "bare": lambda run=run, surface=surface: run(surface),
                        "recorded": lambda run=run, surface=surface: _recorded(folder, run, surface),
                    }
                )
                what = f"added per chunk, {surface.name}, {mode}"
                yield added(what, measured["bare"], measured["recorded"], limit, "µs")


def _recorded(folder: str, run: Callable[[Surface], float], surface: Surface) -> float:
    tokentape.enable(db=Path(folder) / "tape.db")
    try:
        return run(surface)
    finally:
        tokentape.disable()


def _run(surface: Surface) -> float:
    with answers.client(sdk=surface.sdk) as client:
        return min(_read(surface.ask(client)) for _ in range(STREAMS))


def _read(stream: Any) -> float:
    start = time.perf_counter()
    for _ in stream:
        pass
    return (time.perf_counter() - start) / CHUNKS * 1e6


def _run_async(surface: Surface) -> float:
    return asyncio.run(_stream_async(surface))


async def _stream_async(surface: Surface) -> float:
    async with answers.async_client(surface.sdk) as client:
        return min([await _read_async(await surface.ask(client)) for _ in range(STREAMS)])


async def _read_async(stream: Any) -> float:
    start = time.perf_counter()
    async for _ in stream:
        pass
    return (time.perf_counter() - start) / CHUNKS * 1e6
