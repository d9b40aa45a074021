"""Whatever fails on our side, the program gets its stream, one line is logged, and recording goes on."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from openai_drivers import ChatDriver
from tokentape import recording
from tokentape.clock import Clock
from tokentape.recorder import active
from tokentape.store import schema
from tokentape.testing import Finish, Role, Script, Text, Usage
from tokentape.testing.rig import Rig
from tokentape_openai.chat import ChatReader

SCRIPT = [Role(), *(Text(f"word{i} ") for i in range(5)), Finish("stop"), Usage(3, 5)]
STATUSES = ["completed", "abandoned", "abandoned", "completed", "completed"]


class Broken(Exception):
    """What our own code raises in these tests; no program may ever see it."""


class BreakingClock:
    """Real time, but some readings on some threads fail.

    Args:
        fails: is told how many readings came before on this thread's side, and whether it is the program's.
    """

    def __init__(self, fails: Callable[[int, bool], bool]) -> None:
        self.fails = fails
        self.readings = {True: 0, False: 0}
        self.clock = Clock(
            monotonic_ns=lambda: self._read(time.perf_counter_ns), unix_ns=lambda: self._read(time.time_ns)
        )

    def _read(self, reading: Callable[[], int]) -> int:
        programs = threading.current_thread().name != "tokentape-writer"
        self.readings[programs] += 1
        if self.fails(self.readings[programs] - 1, programs):
            raise Broken("clock")
        return reading()


def fault_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What our own loggers said, the exception of a fault included."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("tokentape")]


async def program(rig: Rig) -> list[Any]:
    """Streams in every way there is; all that the program can see of it."""
    seen: list[Any] = []
    for limit in (None, 2):
        stream = await rig.send()
        seen.append([chunk.model_dump(exclude={"id", "created"}) for chunk in await rig.read(stream, limit)])
        seen.append(await rig.close(stream))
    dropped = await rig.send()
    seen.append(rig.driver.text(await rig.next(dropped)))
    del dropped
    # The SDK's stream is a cycle, and an event loop needs a few turns to close it.
    gc.collect()
    await asyncio.sleep(0.01)
    return seen + await by_hand(rig.asynchronous)


async def by_hand(asynchronous: bool) -> list[Any]:
    seen: list[Any] = []
    with tokentape.run("a"), tokentape.label(user="17"), tokentape.mark("search"):
        with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("a")
            seen += stream.wrap(iter("bc"), events=lambda item: [("text", item)])
            stream.usage(output_tokens=3)
            stream.finish("stop")
        if asynchronous:
            async with tokentape.record_stream(items, text=str) as recorded:
                seen += [item async for item in recorded]
        else:
            with tokentape.record_stream(lambda: iter("de"), text=str) as recorded:
                seen += list(recorded)
    return seen


async def items() -> Any:
    for item in "de":
        yield item


@pytest.fixture(params=["sync", "async"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path, lenient: None) -> AsyncIterator[Rig]:
    """A server and a driver for programs that are not recorded yet, and no strict mode."""
    rig = Rig(ChatDriver(), tmp_path / "tape.db", request.param == "async")
    with rig.server:
        rig.server.add(Script(SCRIPT, repeat=True))
        yield rig
        await rig.finish()


async def expect_undisturbed(rig: Rig) -> None:
    recorded = await program(rig)
    tokentape.flush(5)
    tokentape.disable()
    assert recorded == await program(rig)


def enable(rig: Rig, **more: Any) -> None:
    tokentape.enable(db=rig.db, flush_ms=5, **more)


def fail_to_read(reader: Any, chunk: Any, asked_ns: int, at_ns: int) -> None:
    raise Broken("reading")


@pytest.mark.scenario("capture/Fault at every station")
async def test_reading_a_chunk_fails(
    bench: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    enable(bench)
    monkeypatch.setattr(ChatReader, "read", fail_to_read)
    chunks = await bench.read(await bench.send())
    assert "".join(map(bench.driver.text, chunks)) == "word0 word1 word2 word3 word4 "
    assert len(chunks) == 8
    assert fault_lines(caplog) == [
        "openai adapter failed (Broken: reading); lost: a chunk's events. The program is not affected."
    ]
    assert tokentape.status()["faults"] == {"openai adapter": {"count": 8, "last": "Broken: reading"}}
    assert (bench.call()["status"], bench.call()["event_count"]) == ("completed", 0)


@pytest.mark.scenario("capture/Fault at every station")
async def test_the_clock_fails_at_one_reading_after_the_other(bench: Rig, caplog: pytest.LogCaptureFixture) -> None:
    expected = await program(bench)
    wrong, readings = 0, 1
    while wrong < readings:
        caplog.clear()
        clock = BreakingClock(lambda reading, programs, wrong=wrong: programs and reading == wrong)
        enable(bench, clock=clock.clock)
        assert await program(bench) == expected, f"reading {wrong}"
        assert tokentape.flush(5), f"reading {wrong}"
        tokentape.disable()
        readings = clock.readings[True]
        # How often an event loop is asked for its time varies by one or two.
        assert len(fault_lines(caplog)) == (wrong < readings), f"reading {wrong}: {fault_lines(caplog)}"
        wrong += 1
    assert wrong > 50
    assert {call["status"] for call in bench.calls()} == set(STATUSES)
    assert bench.rows("select * from llm_tokens where wait_us < 0 or wait_us > offset_us") == []


class BrokenQueue(deque[Any]):
    """A queue that takes nothing more after a while."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes = takes

    def append(self, item: Any) -> None:
        if not self.takes:
            raise Broken("queue")
        self.takes -= 1
        super().append(item)


@pytest.mark.scenario("capture/Fault at every station")
@pytest.mark.parametrize("takes", range(14))
async def test_the_queue_fails(bench: Rig, takes: int, caplog: pytest.LogCaptureFixture) -> None:
    enable(bench)
    recorder = active()
    assert recorder is not None
    recorder.queue = BrokenQueue(takes)
    await expect_undisturbed(bench)
    lines = fault_lines(caplog)
    assert lines
    assert all("(Broken: queue)" in line for line in lines)
    assert len({line.partition(" failed ")[0] for line in lines}) == len(lines)
    assert recorder.open == set()


@pytest.mark.scenario("capture/Fault at every station")
@pytest.mark.parametrize(
    "fault", [sqlite3.OperationalError("unable to open database file"), OSError("disk"), Broken("opening")], ids=repr
)
async def test_opening_the_database_fails(
    bench: Rig, fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(sqlite3, "connect", connect)
    enable(bench)
    assert tokentape.status()["recording"] is False
    await expect_undisturbed(bench)
    (line,) = fault_lines(caplog)
    assert str(fault) in line


@pytest.mark.scenario("capture/Fault at every station")
async def test_the_database_cannot_be_opened_later_on(
    bench: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_for_writing(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    enable(bench)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "open_for_writing", open_for_writing)
        recorded = await program(bench)
        assert tokentape.flush(0.3) is False
        (line,) = fault_lines(caplog)
        assert f"{bench.db} cannot be written (unable to open database file)" in line
    assert [call["status"] for call in bench.calls()] == STATUSES
    tokentape.disable()
    assert recorded == await program(bench)


async def test_a_thread_cannot_be_started(
    bench: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "tokentape-writer":
            raise RuntimeError("can't start new thread")
        original(thread)

    original = threading.Thread.start
    enable(bench)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        recorded = await program(bench)
    (line,) = fault_lines(caplog)
    assert "can't start new thread" in line
    # The next call can start one, and then nothing is lost.
    assert recorded == await program(bench)
    assert [call["status"] for call in bench.calls()] == STATUSES * 2


async def test_how_a_chunk_is_read_by_hand_fails(bench: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def text(item: str) -> str:
        raise Broken("text")

    enable(bench)
    if bench.asynchronous:
        assert [item async for item in tokentape.record_stream(items, text=text)] == ["d", "e"]
    else:
        assert list(tokentape.record_stream(lambda: iter("de"), text=text)) == ["d", "e"]
    assert fault_lines(caplog) == [
        "python adapter failed (Broken: text); lost: a chunk's events. The program is not affected."
    ]
    assert (bench.call()["status"], bench.call()["event_count"]) == ("completed", 0)


@pytest.fixture
def plugins() -> Iterator[None]:
    """What the test registers is gone afterwards."""
    before = list(recording._registered)
    yield
    recording._registered[:] = before


async def test_a_plugin_that_fails_stops_nobody_else(
    bench: Rig, plugins: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        @tokentape.hookimpl
        def tokentape_record(self) -> str:
            raise Broken("record")

        @tokentape.hookimpl
        def tokentape_tokens(self) -> None:
            raise Broken("tokens")

    tokentape.register(Failing())
    enable(bench)
    await program(bench)
    assert [call["status"] for call in bench.calls()] == STATUSES
    assert len(bench.tokens()) == 5 + 2 + 3 + 2
    (line,) = fault_lines(caplog)
    assert "Failing" in line


@pytest.mark.scenario("capture/Strict mode")
async def test_strict_mode_raises_a_fault_to_the_program(bench: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    enable(bench)
    monkeypatch.setenv("TOKENTAPE_STRICT", "1")
    monkeypatch.setattr(ChatReader, "read", fail_to_read)
    stream = await bench.send()
    with pytest.raises(Broken, match="^reading$"):
        await bench.next(stream)
    await bench.close(stream)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/tape.db", "/" + "x" * 5000])
def test_a_path_in_the_environment_that_is_none(
    name: str, lenient: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_DB", name)
    tokentape.enable()
    assert tokentape.status()["recording"] is False
    assert len(fault_lines(caplog)) == 1
