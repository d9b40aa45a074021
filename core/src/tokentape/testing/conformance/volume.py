"""What recording costs the reader, and what it leaves behind: next to nothing, and nothing."""

from __future__ import annotations

import gc
import json
import sys
import threading
import weakref
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import pytest

import tokentape
from tokentape.recorder import active

from ..events import Drop, Finish, Text
from ..rig import Rig
from .suite import Suite, scenario, words

CHUNKS: Final = 500
STREAMS: Final = 100
LONG_REPLY: Final = 2000
DRAINED, LEFT, CLOSED, FAILS, NEVER_READ = range(5)
# What our own modules may not call where the program reads.
HEAVY: Final = (
    *("json", "_json", "copy", "sqlite3", "_sqlite3", "sqlite_utils", "pluggy", "regex", "_regex", "logging", "zlib"),
    *("tokentape.writer", "tokentape.plugins", "tokentape.store", "tokentape.redaction", "tokentape.metrics"),
)
# Once a call, and it only sets an event.
LIGHT: Final = {("tokentape.writer", "Writer.notify")}


class Volume(Suite):
    """What it costs and leaves behind."""

    @pytest.mark.scenario("capture/Nothing heavy on the reader")
    @scenario()
    async def test_nothing_heavy_is_called_where_the_program_reads(self, rig: Rig) -> None:
        rig.server.add([Text("warm"), Finish("stop")], [*words(CHUNKS), Finish("stop")])
        # The first call of a process starts the writer's thread.
        await rig.read(await rig.send())
        with OurCalls() as ours:
            await rig.read(await rig.send())
        assert rig.calls()[1]["event_count"] == CHUNKS
        assert ours.seen, "the witness saw nothing of ours"
        assert ours.into(*HEAVY) <= LIGHT

    @pytest.mark.scenario("capture/Five thousand streams")
    @scenario(differs={("starts", "read"): "a stream that is never read has no row"})
    async def test_streams_of_every_ending_leave_nothing_behind(self, rig: Rig) -> None:
        before = {}
        alive: list[weakref.ref[Any]] = []
        for number in range(STREAMS):
            ending = number % 5
            if ending < NEVER_READ or rig.traits.starts == "sent":
                rig.server.add([*words(3), (0.01, Drop())] if ending == FAILS else [*words(6), Finish("stop")])
            alive.append(weakref.ref(await self._leave(rig, ending)))
            if number % 20 == 19:
                await rig.collect()
            if number == 19:
                before = await self._footprint(rig)
        assert await self._footprint(rig) == before
        assert [ref for ref in alive if ref() is not None] == []
        statuses = [call["status"] for call in rig.calls()]
        never = 0 if rig.traits.starts == "read" else STREAMS // 5
        assert {status: statuses.count(status) for status in set(statuses)} == {
            "completed": STREAMS // 5,
            "abandoned": 2 * STREAMS // 5 + never,
            "error": STREAMS // 5,
        }

    @pytest.mark.scenario("capture/Twenty megabytes of prompt")
    @scenario(options=("prompt",))
    async def test_a_prompt_of_twenty_megabytes_and_a_long_reply(self, rig: Rig) -> None:
        rig.record(prompts=True)
        rig.server.add([*words(LONG_REPLY), Finish("stop")])
        stream = await rig.send(prompt="Was für ein Satz! " * 1_100_000)
        await rig.read(stream, 1)
        assert tokentape.flush(30)
        recorder = active()
        assert recorder is not None
        # What was asked is on the tape, and not held any more.
        assert [call.request.body for call in recorder.open] == [None]
        await rig.read(stream)
        call = rig.call()
        prompt = json.loads(call["prompt_json"])
        assert (prompt["truncated"], prompt["bytes"] > 20_000_000, len(call["prompt_json"]) < 1_000_000) == (True,) * 3
        assert "Was f" in prompt["head"]
        assert (call["event_count"], call["dropped_count"], call["events_kept"]) == (LONG_REPLY, 0, "all")
        assert [part["content"] for part in rig.parts()] == ["".join(f"word{i} " for i in range(LONG_REPLY))]

    async def _leave(self, rig: Rig, ending: int) -> Any:
        """Drain it, break off, close it, let it fail, or never read it."""
        stream = await rig.send()
        if ending in {DRAINED, FAILS}:
            await self.seen(rig, stream)
        elif ending < NEVER_READ:
            await rig.read(stream, 2)
            if ending == CLOSED:
                await rig.close(stream)
        return stream

    async def _footprint(self, rig: Rig) -> dict[str, int]:
        """What the process holds once everything that was dropped is collected and written, and nobody is connected."""
        await rig.finish()
        await rig.collect()
        assert tokentape.flush(10)
        assert rig.server.wait_until_left()
        threads = [thread for thread in threading.enumerate() if "process_request" not in thread.name]
        return {"threads": len(threads), "files": open_files(), "open calls": tokentape.status()["open_calls"]}


def open_files() -> int:
    """How many files and connections this process holds; 0 where it cannot be seen."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


class OurCalls:
    """Everything that our own modules, and those of adapters, call on this thread, down to functions written in C."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self._collects = False

    def __enter__(self) -> Self:
        # What earlier tests dropped would have its finalizers called here, on whichever thread the collector runs.
        gc.collect()
        self._collects = gc.isenabled()
        gc.disable()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        if self._collects:
            gc.enable()

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_back is not None and _is_ours(frame.f_back):
            self.seen.add((str(frame.f_globals.get("__name__")), frame.f_code.co_qualname))
        elif event == "c_call" and _is_ours(frame):
            owner = getattr(argument, "__self__", None)
            module = argument.__module__ or type(owner).__module__
            self.seen.add((module, argument.__qualname__))

    def into(self, *modules: str) -> set[tuple[str, str]]:
        """Those that lead into these modules."""
        return {call for call in self.seen if any(f"{call[0]}.".startswith(f"{name}.") for name in modules)}


def _is_ours(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return module.startswith("tokentape") and not module.startswith("tokentape.testing")
