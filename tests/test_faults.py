"""Whatever fails on our side, the program gets its stream, one line is logged, and recording goes on."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from openai_drivers import ChatDriver
from tape_reader import TapeReader
from tokentape.clock import Clock
from tokentape.recorder import active
from tokentape.store import schema
from tokentape.testing import Finish, ProviderServer, Role, Script, Text, Usage
from tokentape.testing.rig import Rig, resolved
from tokentape_openai.chat import ChatReader

SCRIPT = [Role(), *(Text(f"word{i} ") for i in range(5)), Finish("stop"), Usage(3, 5)]
MODES = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


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


async def program(url: str, asynchronous: bool) -> list[Any]:
    """Streams in every way there is; all that the program can see of it."""
    driver = ChatDriver()
    client = driver.client(url, asynchronous)
    rig = Rig(driver, Path(), asynchronous)
    seen: list[Any] = []
    try:
        for limit in (None, 2):
            stream = await resolved(driver.send(client))
            seen.append([chunk.model_dump(exclude={"id", "created"}) for chunk in await rig.read(stream, limit)])
            seen.append(await rig.close(stream))
            del stream
        await rig.collect()
        seen.append(await by_hand(asynchronous))
    finally:
        await resolved(client.close())
    return seen


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


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        server.add(Script(SCRIPT, repeat=True))
        yield server


async def expect_undisturbed(provider: ProviderServer, asynchronous: bool) -> None:
    recorded = await program(provider.url, asynchronous)
    tokentape.flush(5)
    tokentape.disable()
    assert recorded == await program(provider.url, asynchronous)


@pytest.mark.scenario("capture/Fault at every station")
@MODES
async def test_reading_a_chunk_fails(
    provider: ProviderServer,
    tape: TapeReader,
    asynchronous: bool,
    lenient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read(reader: Any, chunk: Any, asked_ns: int, at_ns: int) -> None:
        raise Broken("reading")

    monkeypatch.setattr(ChatReader, "read", read)
    driver = ChatDriver()
    rig = Rig(driver, tape.path, asynchronous)
    client = driver.client(provider.url, asynchronous)
    chunks = await rig.read(await resolved(driver.send(client)))
    await resolved(client.close())
    assert "".join(map(driver.text, chunks)) == "".join(f"word{i} " for i in range(5))
    assert len(chunks) == 8
    assert fault_lines(caplog) == [
        "openai adapter failed (Broken: reading); lost: a chunk's events. The program is not affected."
    ]
    assert tokentape.status()["faults"] == {"openai adapter": {"count": 8, "last": "Broken: reading"}}
    assert (tape.call()["status"], tape.call()["event_count"]) == ("completed", 0)


@pytest.mark.scenario("capture/Fault at every station")
@MODES
async def test_the_clock_fails_at_one_reading_after_the_other(
    provider: ProviderServer, tmp_path: Path, asynchronous: bool, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    expected = await program(provider.url, asynchronous)
    breaking = BreakingClock(lambda reading, programs: False)
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=5, clock=breaking.clock)
    assert await program(provider.url, asynchronous) == expected
    tokentape.disable()
    in_all = breaking.readings[True]
    assert in_all > 50

    for wrong in range(in_all + 3):
        caplog.clear()
        breaking = BreakingClock(lambda reading, programs, wrong=wrong: programs and reading == wrong)
        tokentape.enable(db=tmp_path / "tape.db", flush_ms=5, clock=breaking.clock)
        assert await program(provider.url, asynchronous) == expected, f"reading {wrong}"
        assert tokentape.flush(5), f"reading {wrong}"
        tokentape.disable()
        assert len(fault_lines(caplog)) == (breaking.readings[True] > wrong), f"reading {wrong}: {fault_lines(caplog)}"
    tape = TapeReader(tmp_path / "tape.db")
    assert tape.rows("select uid from llm_calls where status = 'running'") == []
    assert tape.rows("select * from llm_tokens where wait_us < 0 or wait_us > offset_us") == []


@pytest.mark.scenario("capture/Fault at every station")
@MODES
@pytest.mark.parametrize("whose", ["the program's", "the writer's", "both"])
async def test_the_clock_fails_for_good(
    provider: ProviderServer,
    tmp_path: Path,
    asynchronous: bool,
    whose: str,
    lenient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sides = {"the program's": [True], "the writer's": [False], "both": [True, False]}[whose]
    breaking = BreakingClock(lambda reading, programs: programs in sides and reading > 15)
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=5, clock=breaking.clock)
    await expect_undisturbed(provider, asynchronous)
    lines = fault_lines(caplog)
    assert 1 <= len(lines) <= 4
    assert all("(Broken: clock)" in line for line in lines)
    assert len({line.partition(" failed ")[0] for line in lines}) == len(lines)
    assert [thread.name for thread in threading.enumerate() if thread.name == "tokentape-writer"] == []


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
@MODES
@pytest.mark.parametrize("takes", range(12))
async def test_the_queue_fails(
    provider: ProviderServer,
    tmp_path: Path,
    asynchronous: bool,
    takes: int,
    lenient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=5)
    recorder = active()
    assert recorder is not None
    recorder.queue = BrokenQueue(takes)
    await expect_undisturbed(provider, asynchronous)
    lines = fault_lines(caplog)
    assert lines
    assert all("(Broken: queue)" in line for line in lines)
    assert len({line.partition(" failed ")[0] for line in lines}) == len(lines)
    assert recorder.open == set()


@pytest.mark.scenario("capture/Fault at every station")
@MODES
@pytest.mark.parametrize(
    "fault", [sqlite3.OperationalError("unable to open database file"), OSError("disk"), Broken("opening")], ids=repr
)
async def test_opening_the_database_fails(
    provider: ProviderServer,
    tmp_path: Path,
    asynchronous: bool,
    fault: Exception,
    lenient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(sqlite3, "connect", connect)
    tokentape.enable(db=tmp_path / "tape.db")
    assert tokentape.status()["recording"] is False
    await expect_undisturbed(provider, asynchronous)
    (line,) = fault_lines(caplog)
    assert str(fault) in line


@pytest.mark.scenario("capture/Fault at every station")
@MODES
async def test_the_database_cannot_be_opened_later_on(
    provider: ProviderServer,
    tmp_path: Path,
    asynchronous: bool,
    lenient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def open_for_writing(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=5)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "open_for_writing", open_for_writing)
        recorded = await program(provider.url, asynchronous)
        assert tokentape.flush(0.3) is False
        (line,) = fault_lines(caplog)
        assert "cannot be written (unable to open database file)" in line
        assert "tape.db" in line
    assert [call["status"] for call in tape.calls()] == ["completed", "abandoned", "completed", "completed"]
    tokentape.disable()
    assert recorded == await program(provider.url, asynchronous)


@MODES
async def test_a_thread_cannot_be_started(
    provider: ProviderServer,
    tmp_path: Path,
    asynchronous: bool,
    lenient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "tokentape-writer":
            raise RuntimeError("can't start new thread")
        original(thread)

    original = threading.Thread.start
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=5)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        recorded = await program(provider.url, asynchronous)
    (line,) = fault_lines(caplog)
    assert "can't start new thread" in line
    # The next call can start one, and then nothing is lost.
    assert recorded == await program(provider.url, asynchronous)
    assert [call["status"] for call in tape.calls()] == ["completed", "abandoned", "completed", "completed"] * 2


@MODES
async def test_how_a_chunk_is_read_by_hand_fails(
    tape: TapeReader, asynchronous: bool, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    def text(item: str) -> str:
        raise Broken("text")

    if asynchronous:
        assert [item async for item in tokentape.record_stream(items, text=text)] == ["d", "e"]
    else:
        assert list(tokentape.record_stream(lambda: iter("de"), text=text)) == ["d", "e"]
    assert len(fault_lines(caplog)) == 1
    assert tape.call()["status"] == "completed"


async def test_a_plugin_that_fails_stops_nobody_else(
    provider: ProviderServer, tape: TapeReader, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        @tokentape.hookimpl
        def tokentape_record(self) -> str:
            raise Broken("record")

        @tokentape.hookimpl
        def tokentape_tokens(self) -> None:
            raise Broken("tokens")

    from tokentape import recording

    before = list(recording._registered)
    try:
        tokentape.register(Failing())
        await program(provider.url, asynchronous=False)
        assert [call["status"] for call in tape.calls()] == ["completed", "abandoned", "completed", "completed"]
        assert len(tape.tokens()) == 5 + 2 + 3 + 2
    finally:
        recording._registered[:] = before
    (line,) = fault_lines(caplog)
    assert "Failing" in line


@pytest.mark.scenario("capture/Strict mode")
@MODES
async def test_strict_mode_raises_a_fault_to_the_program(
    provider: ProviderServer,
    tape: TapeReader,
    asynchronous: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(reader: Any, chunk: Any, asked_ns: int, at_ns: int) -> None:
        raise Broken("reading")

    monkeypatch.setenv("TOKENTAPE_STRICT", "1")
    monkeypatch.setattr(ChatReader, "read", read)
    driver = ChatDriver()
    rig = Rig(driver, tape.path, asynchronous)
    client = driver.client(provider.url, asynchronous)
    stream = await resolved(driver.send(client))
    with pytest.raises(Broken, match="^reading$"):
        await rig.next(stream)
    await rig.close(stream)
    await resolved(client.close())


@pytest.mark.parametrize("name", ["~nobody-of-this-name/tape.db", "/" + "x" * 5000])
def test_a_path_in_the_environment_that_is_none(
    name: str, lenient: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_DB", name)
    tokentape.enable()
    assert tokentape.status()["recording"] is False
    assert len(fault_lines(caplog)) == 1
