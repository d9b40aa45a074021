"""Eight processes of four threads on one tape that does not exist yet, while others look at it or it is damaged."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from faulty_disks import overwrite
from programs import CLIENT, Program, eventually, read
from tokentape.store import schema
from tokentape.testing import Finish, ProviderServer, Script, Text

PROCESSES, THREADS, EVENTS = 8, 4, 5
WORKER = (
    CLIENT
    + """
import json, threading, traceback

STREAMS, THREADS, EVENTS = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
faults, answers = [], []

def work():
    try:
        for _ in range(STREAMS):
            answers.append("".join(chunk.choices[0].delta.content or "" for chunk in ask() if chunk.choices))
    except BaseException:
        faults.append(traceback.format_exc())

tokentape.enable(flush_ms=50)
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=work) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
flushed = tokentape.flush(60)
store = tokentape.status()["store"]
wrong = sum(answer != "".join(f"word{i} " for i in range(EVENTS)) for answer in answers)
print(json.dumps({"faults": faults, "wrong": wrong, "answers": len(answers), "flushed": flushed,
                  "dropped": store["dropped_events"], "aside": store["set_aside"]}), flush=True)
"""
)


class Workers:
    """So many processes that start at once without a tape, and stream when they are told to."""

    def __init__(self, folder: Path, server: ProviderServer, count: int, streams: int, stack: ExitStack) -> None:
        script = Script([*(Text(f"word{i} ") for i in range(EVENTS)), Finish("stop")], repeat=True)
        server.add(script)
        program = Program(folder, WORKER, server=server.url)
        self.tape = program.tape
        command = [str(folder / "program.py"), str(streams), str(THREADS), str(EVENTS)]
        self._running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=program._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]

        for each in self._running:
            assert each.stdout.readline() == "ready\n", each.communicate()

    def start(self) -> None:
        """Let all of them go."""
        for each in self._running:
            each.stdin.write("go\n")
            each.stdin.flush()

    def running(self) -> bool:
        return any(each.poll() is None for each in self._running)

    def reports(self) -> list[dict]:
        found = []
        for each in self._running:
            out, err = each.communicate(timeout=600)
            assert each.returncode == 0, err
            assert "Traceback" not in err
            found.append(json.loads(out))
        return found


def datasette(tape: Path, stack: ExitStack) -> str:
    """The tape in plain Datasette, on a port that the system chose."""
    command = [sys.executable, "-m", "datasette", str(tape), "--port", "0", "--setting", "sql_time_limit_ms", "20000"]
    process = stack.enter_context(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.terminate)
    for line in process.stderr:
        if "running on" in line:
            return line.split("running on ")[1].split()[0]
    raise AssertionError("Datasette did not start")


@pytest.mark.scenario("storage/Eight processes of four threads")
@pytest.mark.parametrize("streams", [10, pytest.param(200, marks=pytest.mark.nightly)])
def test_nothing_is_missing_whoever_else_has_the_tape_open(
    tmp_path: Path, server: ProviderServer, streams: int
) -> None:
    """A minute for 320 streams on a busy machine, most of it for eight interpreters to import the SDK."""
    began = time.monotonic()
    with ExitStack() as stack:
        workers = Workers(tmp_path, server, PROCESSES, streams, stack)
        url = datasette(workers.tape, stack)
        reader = stack.enter_context(closing(sqlite3.connect(workers.tape, isolation_level=None)))
        reader.execute("BEGIN")
        seen = reader.execute("SELECT count(*) FROM llm_calls").fetchone()
        looked = 0
        workers.start()
        while not looked or workers.running():
            with urllib.request.urlopen(f"{url}/tape/calls.json?_size=10", timeout=60) as answer:
                assert "rows" in json.load(answer)
            looked += 1
            time.sleep(0.2)
        reports = workers.reports()
        # The reader's transaction sees what it saw at its beginning.
        assert reader.execute("SELECT count(*) FROM llm_calls").fetchone() == seen
        reader.execute("ROLLBACK")

    calls = PROCESSES * THREADS * streams
    assert [(each["faults"], each["wrong"], each["flushed"], each["dropped"]) for each in reports] == [
        ([], 0, True, 0)
    ] * PROCESSES
    assert sum(each["answers"] for each in reports) == calls
    assert read(
        workers.tape,
        "SELECT count(*) AS calls, count(DISTINCT uid) AS uids, sum(event_count) AS events, sum(dropped_count) AS "
        "dropped, sum(status = 'completed') AS completed FROM llm_calls",
    ) == [{"calls": calls, "uids": calls, "events": calls * EVENTS, "dropped": 0, "completed": calls}]
    assert read(
        workers.tape,
        "SELECT count(*) AS n FROM (SELECT group_concat(token, '') AS text FROM "
        "(SELECT * FROM llm_tokens ORDER BY call_id, token_index) GROUP BY call_id) "
        f"WHERE text = '{''.join(f'word{i} ' for i in range(EVENTS))}'",
    ) == [{"n": calls}]
    for pragma, value in (("journal_mode", "wal"), ("integrity_check", "ok"), ("user_version", schema.FORMAT)):
        assert read(workers.tape, f"PRAGMA {pragma}") == [{pragma: value}]
    assert read(workers.tape, "PRAGMA foreign_key_check") == []
    assert read(workers.tape, "SELECT name FROM _sqlite_migrations") == [{"name": "m001_first_format"}]
    assert looked > 0
    print(
        f"\n{PROCESSES} processes x {THREADS} threads x {streams} streams in {time.monotonic() - began:.0f} s, "
        f"{looked} pages of Datasette: 0 exceptions; {calls:,} calls, {calls * EVENTS:,} events, none missing"
    )


@pytest.mark.scenario("storage/Several processes notice the damage")
def test_of_several_processes_one_sets_the_tape_aside_and_all_go_on(tmp_path: Path, server: ProviderServer) -> None:
    """Half a minute on a busy machine: four interpreters import the SDK."""
    with ExitStack() as stack:
        workers = Workers(tmp_path, server, 4, 40, stack)
        workers.start()
        eventually(
            lambda: read(workers.tape, "SELECT count(*) AS n FROM llm_calls")[0]["n"], lambda n: n > 20, within=60
        )
        with closing(sqlite3.connect(workers.tape, timeout=20)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            overwrite(workers.tape, 4096)
        reports = workers.reports()

    assert [(each["faults"], each["wrong"], each["flushed"]) for each in reports] == [([], 0, True)] * 4
    moved = [path for each in reports for path in each["aside"]]
    assert len(moved) == 1
    assert [str(path) for path in tmp_path.glob("tape.db.corrupt-*") if path.name[-1].isdigit()] == moved
    assert read(workers.tape, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert (
        read(
            workers.tape,
            "SELECT id FROM llm_calls c WHERE event_count - dropped_count <> "
            "(SELECT count(*) FROM llm_tokens WHERE call_id = c.id)",
        )
        == []
    )
    assert read(workers.tape, "SELECT count(DISTINCT process_id) AS n FROM llm_calls") == [{"n": 4}]
    assert read(workers.tape, "SELECT count(*) AS n FROM llm_calls WHERE status <> 'completed'") == [{"n": 0}]
