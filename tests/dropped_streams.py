"""A program that drops streams half-read, with whatever version of an SDK it finds, and says as JSON what happened.

Usage: python dropped_streams.py SDK [TAPE]

Nothing is recorded where no tape is named. Python's collector is off until the end, so that what is released earlier is
released by its last reference going away.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import tokentape
from surfaces import use
from tape_reader import TapeReader
from tokentape.testing import ProviderServer, Script, Text
from tokentape.testing.rig import resolved

DRIVERS = {"openai": "ChatDriver", "anthropic": "MessagesDriver"}
ANSWER = Script([Text("one "), Text("two "), Text("three"), (60.0, Text("late"))], repeat=True)
# After one chunk Anthropic has announced the message and said nothing yet.
CHUNKS = (1, 3)
# An asynchronous stream is closed by a task of its loop.
TURNS = 50


def main(sdk: str, tape: Path | None) -> None:
    driver = getattr(import_module(f"{sdk}_drivers"), DRIVERS[sdk])()
    if tape is not None:
        tokentape.enable(db=tape)
    gc.collect()
    gc.disable()
    found: dict[str, Any] = {"version": import_module(sdk).__version__}
    with ProviderServer() as server:
        server.add(ANSWER)
        for asynchronous in (False, True):
            found["async" if asynchronous else "sync"] = use(
                driver.client(server.url, asynchronous), lambda client: dropped(driver, client, tape)
            )
    json.dump(found, sys.stdout)


async def dropped(driver: Any, client: Any, tape: Path | None) -> list[Any]:
    """For each stream whether it was released, and its call's status: at once, and after the collector has run."""
    found = []
    for count in CHUNKS:
        stream = await resolved(driver.send(client))
        response = weakref.ref(stream.response)
        asynchronous = hasattr(stream, "__anext__")
        for _ in range(count):
            await anext(stream) if asynchronous else next(stream)
        del stream
        turns = TURNS if asynchronous else 0
        at_once, status = await is_released(response, turns), status_on(tape)
        gc.collect()
        found.append({"released": [at_once, await is_released(response, turns)], "status": [status, status_on(tape)]})
    return found


async def is_released(response: weakref.ref[Any], turns: int) -> bool:
    """Whether an HTTP response is closed or gone, at the latest after so many turns of the loop."""
    for _ in range(turns):
        if _is_closed(response()):
            break
        await asyncio.sleep(0.01)
    return _is_closed(response())


def _is_closed(response: Any) -> bool:
    return response is None or response.is_closed


def status_on(tape: Path | None) -> str | None:
    """The status of the newest call."""
    return None if tape is None else TapeReader(tape).calls()[-1]["status"]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else None)
