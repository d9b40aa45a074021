"""Whatever fails on our side, the program gets its stream, one line is logged, and recording goes on."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

import tokentape
from tokentape import faults
from tokentape.call import CallRecorder
from tokentape.clock import Clock
from tokentape.recorder import active

from ..events import Finish, Role, Text
from ..rig import Rig
from ..script import Script
from .suite import Suite, everything, scenario

SCRIPT = Script([Role(), Text("one "), Text("two "), Finish("stop")], repeat=True)
SAID = "one two "


class Broken(Exception):
    """What our own code raises in these tests; no program may ever see it."""


class BreakingClock:
    """Real time, but one reading on the program's thread fails."""

    def __init__(self) -> None:
        self.readings = 0
        self._wrong: int | None = None
        self.clock = Clock(
            monotonic_ns=lambda: self._read(time.perf_counter_ns), unix_ns=lambda: self._read(time.time_ns)
        )

    def arm(self, wrong: int | None) -> None:
        """Fail at the reading of this number, counted from now."""
        self.readings, self._wrong = 0, wrong

    def _read(self, reading: Callable[[], int]) -> int:
        if threading.current_thread().name != "tokentape-writer":
            self.readings += 1
            if self.readings - 1 == self._wrong:
                raise Broken("clock")
        return reading()


class BreakingQueue(deque[Any]):
    """A queue that takes nothing more after a while.

    Attributes:
        takes: how much it still takes.
    """

    takes = 0

    def append(self, item: Any) -> None:
        """Add an item, or fail."""
        if not self.takes:
            raise Broken("queue")
        self.takes -= 1
        super().append(item)


class Faults(Suite):
    """Faults of the recording."""

    @pytest.fixture
    def lenient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a user's program: a fault of the recording is swallowed."""
        monkeypatch.delenv("TOKENTAPE_STRICT", raising=False)

    @pytest.mark.scenario("capture/Fault at every station")
    @scenario(uses="lenient")
    async def test_keeping_a_chunk_fails(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CallRecorder, "add_chunk", _fail)
        await self.same_unrecorded(rig, everything(self.driver), self.seen)
        self._expect_one_line(rig, "chunk")
        assert rig.call()["status"] == "completed"

    @pytest.mark.scenario("capture/Fault at every station")
    @scenario(uses="lenient")
    async def test_the_clock_fails_at_one_reading_after_the_other(self, rig: Rig) -> None:
        breaking = BreakingClock()
        rig.record(clock=breaking.clock)
        rig.server.add(SCRIPT)
        await self._expect_undisturbed(rig)
        wrong, readings = 0, breaking.readings
        assert readings > 5
        while wrong < readings:
            faults.forget()
            breaking.arm(wrong)
            await self._expect_undisturbed(rig, f"reading {wrong}")
            # How often an event loop is asked for its time varies by one or two.
            lines = rig.complaints()
            assert len(lines) == (wrong < breaking.readings), f"reading {wrong}: {lines}"
            wrong += 1
        breaking.arm(None)
        tokentape.disable()
        assert {call["status"] for call in rig.calls()} <= {"completed", "abandoned"}
        assert rig.rows("select * from llm_tokens where wait_us < 0 or wait_us > offset_us") == []

    @pytest.mark.scenario("capture/Fault at every station")
    @scenario(uses="lenient")
    async def test_the_queue_fails(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        recorder = active()
        assert recorder is not None
        # With the first call the run of the process begins.
        await self._expect_undisturbed(rig)
        assert tokentape.flush(10)
        recorder.queue = queue = BreakingQueue()
        for takes, what in enumerate(("a call that begins", "one that ends")):
            faults.forget()
            queue.takes = takes
            await self._expect_undisturbed(rig, what)
            self._expect_one_line(rig, "queue")
        queue.takes = 1_000
        assert recorder.open == set()

    @pytest.mark.scenario("capture/Fault at every station")
    @scenario(uses="lenient")
    async def test_opening_the_database_fails(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        def connect(*_: Any, **__: Any) -> Any:
            raise sqlite3.OperationalError("unable to open database file")

        rig.server.add(SCRIPT)
        tokentape.disable()
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", connect)
            rig.record()
        assert tokentape.status()["recording"] is False
        await self._expect_undisturbed(rig)
        self._expect_one_line(rig, "unable to open database file")

    @pytest.mark.scenario("capture/Strict mode")
    @scenario(uses="lenient")
    async def test_strict_mode_raises_a_fault_to_the_program(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        rig.server.add(SCRIPT)
        monkeypatch.setenv("TOKENTAPE_STRICT", "1")
        monkeypatch.setattr(CallRecorder, "add_chunk", _fail)
        async with rig.inside(await rig.send()) as stream:
            seen = await self.seen(rig, stream)
        assert seen.failure is not None
        assert seen.failure[:2] == (Broken, "chunk")
        # A framework may say so too.
        rig.complaints()

    async def _expect_undisturbed(self, rig: Rig, when: str = "") -> None:
        chunks = await rig.read(await rig.send())
        assert "".join(map(rig.driver.text, chunks)) == SAID, when

    def _expect_one_line(self, rig: Rig, what: str) -> None:
        (line,) = rig.complaints()
        assert what in line


def _fail(*_: Any, **__: Any) -> None:
    raise Broken("chunk")
