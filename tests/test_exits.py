"""However a program ends or multiplies, what it recorded is on the tape once, and under the right process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from programs import CLIENT, Program, eventually
from tokentape.testing import Finish, ProviderServer, Script, Text, WaitFor

WORDS = [Text(f"word{i} ") for i in range(5)]
CALLS = """
select c.status, c.event_count, p.pid from llm_calls c join processes p on p.id = c.process_id order by c.id
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


def tokens(program: Program) -> dict[int, str]:
    """The text of each call, by its number."""
    rows = program.rows("select call_id, group_concat(token, '') as text from llm_tokens group by call_id")
    return {row["call_id"]: row["text"] for row in rows}


def statuses(program: Program) -> list[tuple[str, int]]:
    return [(row["status"], row["event_count"]) for row in program.rows(CALLS)]


def intact(program: Program) -> bool:
    return program.rows("pragma integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.scenario("capture/Exit in mid-stream")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('of the program')", 1),
        ("import threading; threading.Thread(target=lambda: time.sleep(0.3)).start()", 0),
    ],
    ids=["falls off the end", "sys.exit", "exception", "thread that goes on"],
)
def test_normal_exit_in_mid_stream(server: ProviderServer, tmp_path: Path, ending: str, code: int) -> None:
    never = threading.Event()
    server.add([*WORDS, WaitFor(never)])
    # Nothing is flushed by the clock: what is on the tape was written at the end.
    text = CLIENT + f"tokentape.enable(flush_ms=60_000)\nstream = ask()\ntake(stream, 5)\n{ending}\n"
    program = Program(tmp_path, text, server=server.url)
    ran = program.run()
    assert ran.returncode == code, ran.stderr
    assert statuses(program) == [("abandoned", 5)]
    assert tokens(program) == {1: "word0 word1 word2 word3 word4 "}
    assert program.rows("select status, ended_at is not null as ended from runs") == [
        {"status": "completed", "ended": 1}
    ]


@pytest.mark.scenario("capture/Never read")
def test_a_stream_that_is_never_read_until_the_exit(server: ProviderServer, tmp_path: Path) -> None:
    server.add(WORDS)
    program = Program(tmp_path, CLIENT + "tokentape.enable()\nstream = ask()\n", server=server.url)
    ran = program.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    (call,) = program.rows("select status, event_count, chunk_count, first_token_latency_ms from llm_calls")
    assert call == {"status": "abandoned", "event_count": 0, "chunk_count": 0, "first_token_latency_ms": None}
    assert tokens(program) == {}


@pytest.mark.scenario("capture/Exit in mid-stream")
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("waiting", ["for a chunk", "in its own code"])
def test_ctrl_c(server: ProviderServer, tmp_path: Path, waiting: str) -> None:
    never = threading.Event()
    server.add([*WORDS, WaitFor(never, timeout=60)])
    text = CLIENT + (
        "tokentape.enable(flush_ms=60_000)\n"
        "stream = ask()\n"
        "take(stream, 5)\n"
        "print('five', flush=True)\n" + ("next(stream)\n" if waiting == "for a chunk" else "time.sleep(60)\n")
    )
    program = Program(tmp_path, text, server=server.url)
    with program.start() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "five\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert err.endswith("KeyboardInterrupt\n")
    assert statuses(program) == [("abandoned", 5)]
    assert tokens(program) == {1: "word0 word1 word2 word3 word4 "}


@pytest.mark.scenario("capture/Written while it streams")
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_killed_process_leaves_what_was_older_than_the_flush_interval(
    server: ProviderServer, tmp_path: Path, signal_number: signal.Signals
) -> None:
    never = threading.Event()
    server.add([*WORDS, WaitFor(never, timeout=60)])
    text = (
        CLIENT
        + "tokentape.enable(flush_ms=50)\nstream = ask()\ntake(stream, 5)\nprint('five', flush=True)\nnext(stream)\n"
    )
    program = Program(tmp_path, text, server=server.url)
    with program.start() as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = eventually(lambda: statuses(program), lambda rows: rows == [("running", 5)])
        process.send_signal(signal_number)
        process.wait(30)
    assert seen == [("running", 5)]
    assert statuses(program) == [("running", 5)]
    assert tokens(program) == {1: "word0 word1 word2 word3 word4 "}
    assert intact(program)


FORK = (
    CLIENT
    + """
tokentape.enable(flush_ms=20)

def record(count):
    for _ in range(count):
        for chunk in ask():
            pass

record(2)
half_read = ask()
take(half_read, 2)
{before}
started = time.monotonic()
child = os.fork()
if not child:
    client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)
    record(3)
    done = tokentape.flush(10)
    os._exit(0 if done and time.monotonic() - started < 20 else 7)
record(1)
assert tokentape.flush(10)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
take(half_read, 4)
print(os.getpid(), child)
"""
)


@needs_fork
@pytest.mark.scenario("capture/Forked child")
@pytest.mark.parametrize("before", ["tokentape.flush(10)", ""], ids=["after a flush", "with events in the queue"])
def test_parent_and_child_record_after_a_fork(server: ProviderServer, tmp_path: Path, before: str) -> None:
    server.add(Script([*WORDS, Finish("stop")], repeat=True))
    program = Program(tmp_path, FORK.format(before=before), server=server.url)
    ran = program.run()
    assert ran.returncode == 0, ran.stderr
    parent, child = map(int, ran.stdout.split())
    rows = program.rows(CALLS)
    assert [row["pid"] for row in rows].count(parent) == 4
    assert [row["pid"] for row in rows].count(child) == 3
    assert {(row["status"], row["event_count"]) for row in rows} == {("completed", 5)}
    assert set(tokens(program).values()) == {"word0 word1 word2 word3 word4 "}
    assert len(tokens(program)) == 7
    assert [row["pid"] for row in program.rows("select pid from processes order by pid")] == sorted([parent, child])
    runs = program.rows("select p.pid, r.name from runs r join processes p on p.id = r.process_id")
    assert sorted((row["pid"], row["name"]) for row in runs) == sorted([(parent, "program.py"), (child, "program.py")])
    assert intact(program)


MULTIPROCESSING = (
    CLIENT
    + """
import multiprocessing

def work(count):
    client = globals()["client"] = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)
    if not tokentape.status()["recording"]:
        tokentape.enable(flush_ms=60_000)
    for chunk in ask():
        pass
    global half_read
    half_read = ask()
    take(half_read, 3)

if __name__ == "__main__":
    {before}
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=work, args=(1,)) for _ in range(2)]
    [child.start() for child in children]
    [child.join(30) for child in children]
    assert [child.exitcode for child in children] == [0, 0]
    print(os.getpid())
"""
)


@pytest.mark.scenario("capture/Forked child")
@pytest.mark.parametrize(
    ("method", "before"),
    [
        pytest.param(
            "fork", "tokentape.enable()\n    [chunk for chunk in ask()]", marks=needs_fork, id="fork, recording"
        ),
        pytest.param("fork", "pass", marks=needs_fork, id="fork, not recording"),
        pytest.param("spawn", "tokentape.enable()", id="spawn"),
    ],
)
def test_children_of_multiprocessing_lose_nothing(
    server: ProviderServer, tmp_path: Path, method: str, before: str
) -> None:
    server.add(Script([*WORDS, Finish("stop")], repeat=True))
    program = Program(tmp_path, MULTIPROCESSING.format(method=method, before=before), server=server.url)
    ran = program.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    parent = int(ran.stdout)
    of_children = [row for row in program.rows(CALLS) if row["pid"] != parent]
    assert len({row["pid"] for row in of_children}) == 2
    assert (
        sorted((row["status"], row["event_count"]) for row in of_children)
        == [("abandoned", 3)] * 2 + [("completed", 5)] * 2
    )
    assert sorted(tokens(program).values(), key=len)[:2] == ["word0 word1 word2 "] * 2


NO_TRACE = (
    CLIENT
    + """
tokentape.enable()
stream = ask()
take(stream, 2)
tokentape.disable()
print(sum(1 for _ in stream))
"""
)


def test_a_stream_that_outlives_the_recording(server: ProviderServer, tmp_path: Path) -> None:
    server.add([*WORDS, Finish("stop")])
    program = Program(tmp_path, NO_TRACE, server=server.url)
    ran = program.run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "4\n", "")
    assert statuses(program) == [("abandoned", 2)]
    assert tokens(program) == {1: "word0 word1 "}


def test_the_exit_does_not_wait_for_a_locked_tape_for_long(server: ProviderServer, tmp_path: Path) -> None:
    server.add([*WORDS, Finish("stop")])
    text = CLIENT + (
        "import sqlite3\n"
        "tokentape.enable(flush_ms=20)\n"
        "lock = sqlite3.connect(os.environ['TOKENTAPE_DB'])\n"
        "lock.execute('begin immediate')\n"
        "print(len(list(ask())), flush=True)\n"
    )
    program = Program(tmp_path, text, server=server.url)
    ran = program.run(timeout=30)
    assert (ran.returncode, ran.stdout) == (0, "6\n")
    lines: list[Any] = ran.stderr.splitlines()
    assert any("cannot be written" in line for line in lines)
    assert any("lost" in line for line in lines)
    assert "Traceback" not in ran.stderr


def test_nothing_is_said_when_python_starts_and_ends_with_recording_on(tmp_path: Path) -> None:
    program = Program(tmp_path, "import tokentape\ntokentape.enable()\n")
    ran = subprocess.run(
        [sys.executable, "-X", "dev", str(tmp_path / "program.py")],
        env={**os.environ, "TOKENTAPE_DB": str(program.tape)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [line for line in ran.stderr.splitlines() if "tokentape" in line] == []
