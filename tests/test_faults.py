"""Whatever fails on our side, the program gets its stream, one line is logged, and recording goes on.

What depends on an adapter is in the conformance suite; here a program streams by hand.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tape_reader import TapeReader
from tokentape import recording
from tokentape.recorder import active
from tokentape.store import schema
from tokentape.testing.conformance.faults import BreakingClock, BreakingQueue, Broken

STATUSES = ["completed", "completed"]

pytestmark = pytest.mark.usefixtures("lenient")
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def fault_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What our own loggers said, the exception of a fault included."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("tokentape")]


async def program(asynchronous: bool) -> list[Any]:
    """Streams by hand in every way there is; all that the program can see of it."""
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


SEEN = ["b", "c", "d", "e"]


@pytest.fixture
def tape(tmp_path: Path) -> TapeReader:
    """A tape that nothing is recorded to yet."""
    return TapeReader(tmp_path / "tape.db")


def enable(tape: TapeReader, **more: Any) -> None:
    tokentape.enable(db=tape.path, flush_ms=5, **more)


def statuses(tape: TapeReader) -> list[str]:
    return [call["status"] for call in tape.calls()]


@both
@pytest.mark.scenario("capture/Fault at every station")
async def test_the_clock_fails_at_one_reading_after_the_other(
    asynchronous: bool, tape: TapeReader, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, readings = 0, 1
    while wrong < readings:
        caplog.clear()
        breaking = BreakingClock()
        breaking.arm(wrong)
        enable(tape, clock=breaking.clock)
        assert await program(asynchronous) == SEEN, f"reading {wrong}"
        assert tokentape.flush(5), f"reading {wrong}"
        tokentape.disable()
        readings = breaking.readings
        # How often an event loop is asked for its time varies by one or two.
        assert len(fault_lines(caplog)) == (wrong < readings), f"reading {wrong}: {fault_lines(caplog)}"
        wrong += 1
    assert wrong > 20
    assert set(statuses(tape)) <= {"completed", "abandoned"}
    assert tape.rows("select * from llm_tokens where wait_us < 0 or wait_us > offset_us") == []


@both
@pytest.mark.scenario("capture/Fault at every station")
@pytest.mark.parametrize("takes", range(8))
async def test_the_queue_fails(
    takes: int, asynchronous: bool, tape: TapeReader, caplog: pytest.LogCaptureFixture
) -> None:
    enable(tape)
    recorder = active()
    assert recorder is not None
    recorder.queue = queue = BreakingQueue()
    queue.takes = takes
    assert await program(asynchronous) == SEEN
    tokentape.flush(5)
    tokentape.disable()
    lines = fault_lines(caplog)
    assert lines
    assert all("(Broken: queue)" in line for line in lines)
    assert len({line.partition(" failed ")[0] for line in lines}) == len(lines)
    assert recorder.open == set()


@pytest.mark.scenario("capture/Fault at every station")
@pytest.mark.parametrize("fault", [OSError("disk"), Broken("opening")], ids=repr)
async def test_opening_the_database_fails(
    fault: Exception, tape: TapeReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(sqlite3, "connect", connect)
    enable(tape)
    assert tokentape.status()["recording"] is False
    assert await program(asynchronous=False) == SEEN
    (line,) = fault_lines(caplog)
    assert str(fault) in line


@both
@pytest.mark.scenario("capture/Fault at every station")
async def test_the_database_cannot_be_opened_later_on(
    asynchronous: bool, tape: TapeReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_for_writing(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    enable(tape)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "open_for_writing", open_for_writing)
        assert await program(asynchronous) == SEEN
        assert tokentape.flush(0.3) is False
        (line,) = fault_lines(caplog)
        assert f"{tape.path} cannot be written (unable to open database file)" in line
    assert statuses(tape) == STATUSES


@both
async def test_a_thread_cannot_be_started(
    asynchronous: bool, tape: TapeReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "tokentape-writer":
            raise RuntimeError("can't start new thread")
        original(thread)

    original = threading.Thread.start
    enable(tape)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert await program(asynchronous) == SEEN
    (line,) = fault_lines(caplog)
    assert "can't start new thread" in line
    # The next call can start one, and then nothing is lost.
    assert await program(asynchronous) == SEEN
    assert statuses(tape) == STATUSES * 2


@both
async def test_how_a_chunk_is_read_by_hand_fails(
    asynchronous: bool, tape: TapeReader, caplog: pytest.LogCaptureFixture
) -> None:
    def text(item: str) -> str:
        raise Broken("text")

    enable(tape)
    if asynchronous:
        assert [item async for item in tokentape.record_stream(items, text=text)] == ["d", "e"]
    else:
        assert list(tokentape.record_stream(lambda: iter("de"), text=text)) == ["d", "e"]
    assert fault_lines(caplog) == [
        "python adapter failed (Broken: text); lost: a chunk's events. The program is not affected."
    ]
    assert (tape.call()["status"], tape.call()["event_count"]) == ("completed", 0)


@pytest.fixture
def plugins() -> Iterator[None]:
    """What the test registers is gone afterwards."""
    before = list(recording._registered)
    yield
    recording._registered[:] = before


@both
@pytest.mark.usefixtures("plugins")
async def test_a_plugin_that_fails_stops_nobody_else(
    asynchronous: bool, tape: TapeReader, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        @tokentape.hookimpl
        def tokentape_record(self) -> str:
            raise Broken("record")

        @tokentape.hookimpl
        def tokentape_tokens(self) -> None:
            raise Broken("tokens")

    tokentape.register(Failing())
    enable(tape)
    await program(asynchronous)
    assert statuses(tape) == STATUSES
    assert len(tape.tokens()) == 3 + 2
    (line,) = fault_lines(caplog)
    assert "Failing" in line


@pytest.mark.parametrize("name", ["~nobody-of-this-name/tape.db", "/" + "x" * 5000])
def test_a_path_in_the_environment_that_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_DB", name)
    tokentape.enable()
    assert tokentape.status()["recording"] is False
    assert len(fault_lines(caplog)) == 1
