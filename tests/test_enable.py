"""Switching on and off: once is enough, off is as if it had never been on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import openai
import pytest

import tokentape
from openai_drivers import ChatDriver
from programs import CLIENT, Program
from tape_reader import TapeReader
from tokentape.testing import Finish, ProviderServer, Script, Text

IMPORT_TIME = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
OFF = """
import threading
from openai import _base_client

before = [vars(openai.Stream)["__stream__"], vars(_base_client.SyncAPIClient)["request"]]
tokentape.enable()
assert "".join(chunk.choices[0].delta.content or "" for chunk in ask()) == "Hello"
assert [vars(openai.Stream)["__stream__"], vars(_base_client.SyncAPIClient)["request"]] == before
assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
assert "wrapt" not in type(before[0]).__module__
"""


@pytest.mark.scenario("capture/Enabled twice")
def test_enabled_twice_is_enabled_once(
    server: ProviderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    tokentape.enable(db=tmp_path / "tape.db", stall_ms=200)
    tokentape.enable(stall_ms=900)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all(word in warning for word in ("stall_ms", "200", "900"))

    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client:
        list(driver.send(client))
    tape = TapeReader(tmp_path / "tape.db")
    call = tape.call()
    assert (call["stall_threshold_ms"], call["chunk_count"], call["event_count"]) == (200, 3, 2)
    assert [row["token"] for row in tape.tokens()] == ["Hel", "lo"]


def test_the_same_values_again_are_worth_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_STALL_MS", "500")
    tokentape.enable(db=tmp_path / "tape.db")
    tokentape.enable()
    tokentape.enable(db=str(tmp_path / "tape.db"), stall_ms=500, content="redacted")
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_other_values_than_the_environments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_STALL_MS", "500")
    tokentape.enable(db=tmp_path / "tape.db")
    tokentape.enable(stall_ms=900)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all(word in warning for word in ("stall_ms", "500", "900"))


def test_disabled_is_as_before_and_can_be_enabled_again(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([Text("Hel"), Text("lo"), Finish("stop")], repeat=True))
    driver = ChatDriver()
    original = vars(openai.Stream)["__stream__"]
    threads = threading.active_count()
    with driver.client(server.url, asynchronous=False) as client:
        tokentape.enable(db=tmp_path / "tape.db")
        list(driver.send(client))
        tokentape.disable()
        assert vars(openai.Stream)["__stream__"] is original
        # Of the threads that are left, one answers this connection.
        assert threading.active_count() <= threads + 1
        list(driver.send(client))
        tokentape.enable(db=tmp_path / "tape.db")
        list(driver.send(client))
        tokentape.disable()
    assert [call["event_count"] for call in TapeReader(tmp_path / "tape.db").calls()] == [2, 2]


def test_disable_and_flush_while_off_do_nothing() -> None:
    tokentape.disable()
    assert tokentape.flush(0.01) is True
    assert tokentape.status()["recording"] is False


@pytest.mark.scenario("capture/Disabled by environment")
@pytest.mark.parametrize("command", [(), (sys.executable, "-m", "tokentape", "run")], ids=["enable", "tokentape run"])
def test_disabled_by_environment(server: ProviderServer, tmp_path: Path, command: tuple[str, ...]) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    program = Program(tmp_path, CLIENT + OFF, server=server.url, environment={"TOKENTAPE_DISABLED": "1"})
    ran = program.run(*command)
    assert ran.returncode == 0, ran.stderr
    assert not program.tape.exists()
    assert not Path(os.environ["XDG_DATA_HOME"]).exists()


def test_the_program_that_is_disabled_would_be_recorded_otherwise(server: ProviderServer, tmp_path: Path) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    program = Program(tmp_path, CLIENT + OFF, server=server.url)
    assert "AssertionError" in program.run().stderr
    assert program.rows("select status from llm_calls") == [{"status": "completed"}]


@pytest.mark.scenario("capture/Import alone")
def test_import_brings_in_no_sdk() -> None:
    code = (
        "import sys, tokentape\n"
        "sdks = 'openai anthropic httpx httpx2 requests langchain_core llama_index sqlite_utils asyncio'.split()\n"
        "print([name for name in sdks if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.scenario("capture/Import alone")
def test_import_takes_at_most_twice_as_long_as_pluggys() -> None:
    def best(module: str) -> float:
        command = [sys.executable, "-c", IMPORT_TIME.format(module)]
        return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(7))

    # A busy machine can be slow in all seven; it is not slow each time we try.
    assert any(best("tokentape") <= 2 * best("pluggy") for _ in range(3))


def test_a_tape_that_cannot_be_one_is_refused_in_one_line(
    server: ProviderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table notes (text)")
    connection.close()
    bytes_before = other.read_bytes()
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    tokentape.enable(db=other)
    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client:
        assert "".join(map(driver.text, driver.send(client))) == "Hello"
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("tokentape")]
    assert line == f"tokentape: not recording: {other} is a database of another application; choose another file"
    assert other.read_bytes() == bytes_before
