"""One tape, many processes and many threads: nothing is lost, nothing is written twice, nobody waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
import traceback

import pytest

from tokentape.models import Part, TokenBatch
from tokentape.process import this_process
from tokentape.store import schema
from tokentape.store.plugin import SQLiteStore
from tokentape.tape import Tape
from values import call_value, finished, process_value, run_value

TEXT = Part(0, "text")
# For what takes a second on a quiet machine.
DEADLINE_S = 120
SPAWN = multiprocessing.get_context("spawn")


def batch(start, size, parts=()):
    events = range(start, start + size)
    return TokenBatch([i * 1000 for i in events], [900] * size, [0] * size, [str(i) for i in events], parts=parts)


def record(store, uid, size, step=50):
    """A call of `size` events, flushed every `step`."""
    call = call_value(uid)
    store.tokentape_call_started(call)
    for start in range(0, size, step):
        store.tokentape_tokens(call, batch(start, min(step, size - start), (TEXT,) if not start else ()))
        store.tokentape_flush()
    store.tokentape_call_finished(finished(call, parts=(TEXT,), event_count=size))
    store.tokentape_flush()


def flush_all(store):
    deadline = time.monotonic() + DEADLINE_S
    while store._committer.operations:
        assert time.monotonic() < deadline, store.health()
        store.tokentape_flush()


def write_calls(path, number, calls, events, barrier, failures):
    try:
        schema.migrations()  # what it imports is there before the start
        barrier.wait(DEADLINE_S)
        store = SQLiteStore(path, this_process(f"worker-{number}"), max_buffer=1_000_000)
        store.tokentape_run_started(run_value("SHARED"))
        for call in range(calls):
            record(store, f"{number}-{call}", events)
        flush_all(store)
        store.tokentape_shutdown()
    except BaseException:
        failures.put(traceback.format_exc())
        raise


def run_together(path, processes, calls, events, meanwhile=lambda: None):
    """Start so many writers at the same moment, and wait for them."""
    barrier, failures = SPAWN.Barrier(processes), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=write_calls, args=(path, number, calls, events, barrier, failures))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        meanwhile()
        time.sleep(0.005)
    for worker in workers:
        worker.join(DEADLINE_S)
    assert failures.empty(), failures.get()
    assert [worker.exitcode for worker in workers] == [0] * processes


def query(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def assert_whole(path, calls, events):
    assert query(path, "SELECT count(*), count(DISTINCT uid), min(event_count), max(event_count) FROM llm_calls") == [
        (calls, calls, events, events)
    ]
    assert query(
        path,
        "SELECT count(*) FROM (SELECT call_id FROM llm_tokens GROUP BY call_id "
        f"HAVING count(*) = {events} AND max(token_index) = {events - 1} AND sum(token) = {sum(range(events))})",
    ) == [(calls,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []


@pytest.mark.scenario("storage/Eight processes at once")
def test_eight_processes_start_at_once_without_a_tape(tmp_path):
    path = tmp_path / "data" / "tape.db"

    run_together(path, processes=8, calls=3, events=20)

    assert_whole(path, calls=24, events=20)
    assert query(path, "SELECT name FROM _sqlite_migrations") == [("m001_first_format",)]
    assert query(path, "SELECT uid FROM runs") == [("SHARED",)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "SELECT count(DISTINCT pid), count(*) FROM processes") == [(8, 8)]


@pytest.mark.scenario("storage/Two processes")
def test_two_processes_write_while_a_third_reads(tmp_path):
    path = tmp_path / "tape.db"
    SQLiteStore(path, process_value(), max_buffer=1)
    seen = [0]

    def read():
        with Tape.open(path) as tape:
            calls = tape.calls(10)
            assert all([event.token_index for event in tape.events(c["call_id"])] == [*range(50)] for c in calls[3:4])
            seen.append(tape.totals()["rows"]["llm_calls"])

    run_together(path, processes=2, calls=200, events=50, meanwhile=read)

    assert_whole(path, calls=400, events=50)
    assert seen == sorted(seen)


@pytest.mark.scenario("storage/Busy threads")
def test_fifty_busy_threads_do_not_starve_the_writer(tmp_path):
    store = SQLiteStore(tmp_path / "tape.db", process_value(), max_buffer=100_000)
    going, gate = True, threading.Event()

    def compute():
        gate.wait()  # beside threads that compute, starting the next one takes its time too
        number = 0
        while going:
            number = (number * 31 + 7) % 1_000_003

    threads = [threading.Thread(target=compute, daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    gate.set()
    start = time.monotonic()
    record(store, "CALL", 1000, step=500)
    took = time.monotonic() - start
    going = False
    for thread in threads:
        thread.join()
    store.tokentape_shutdown()

    assert query(store.path, "SELECT count(*), sum(token) FROM llm_tokens") == [(1000, sum(range(1000)))]
    assert store.health()["dropped_events"] == 0
    # Each of them runs for 5 ms whenever the interpreter is given up: a writer that gives it up at every row takes
    # 1,000 times 50 times 5 ms, and this one a dozen times.
    assert took < 60


def test_a_batch_takes_five_statements_and_one_with_the_end_of_its_call_six(tmp_path):
    """The interpreter is given up at each statement: their number decides how long the writer takes beside others."""
    store = SQLiteStore(tmp_path / "tape.db", process_value(), max_buffer=100_000)
    call = call_value()
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch(0, 1, (TEXT,)))
    store.tokentape_flush()
    statements = []
    store._committer._connection.set_trace_callback(lambda sql: statements.append(" ".join(sql.split()[:3])))

    for start in (1, 41, 81):
        store.tokentape_tokens(call, batch(start, 40))
    store.tokentape_flush()
    store.tokentape_tokens(call, batch(121, 10))
    store.tokentape_call_finished(finished(call, parts=(TEXT,), event_count=131))
    store.tokentape_flush()
    store.tokentape_shutdown()

    batches = " | ".join(statements).split("BEGIN IMMEDIATE | ")[1:]
    assert [one.strip(" |") for one in batches] == [
        "PRAGMA user_version | INSERT INTO llm_tokens | WITH came AS | COMMIT",
        "PRAGMA user_version | INSERT INTO llm_tokens | UPDATE llm_calls SET | INSERT INTO llm_parts | COMMIT",
    ]
    assert query(store.path, "SELECT count(*), sum(token), max(token_index) FROM llm_tokens") == [
        (131, sum(range(131)), 130)
    ]


def test_a_batch_of_many_calls_takes_as_few_statements_as_one_of_a_single_call(tmp_path):
    store = SQLiteStore(tmp_path / "tape.db", process_value(), max_buffer=100_000)
    calls = [call_value(f"CALL-{number}") for number in range(50)]
    for call in calls:
        store.tokentape_call_started(call)
    store.tokentape_flush()
    statements = []
    store._committer._connection.set_trace_callback(lambda sql: statements.append(" ".join(sql.split()[:3])))

    for start in (0, 1):
        for call in calls:
            store.tokentape_tokens(call, batch(start, 1, () if start else (TEXT,)))
        store.tokentape_flush()
    store.tokentape_shutdown()

    assert statements == [
        *[
            "BEGIN IMMEDIATE",
            "PRAGMA user_version",
            "INSERT INTO llm_parts",
            "INSERT INTO llm_tokens",
            "WITH came AS",
            "COMMIT",
        ],
        *["BEGIN IMMEDIATE", "PRAGMA user_version", "INSERT INTO llm_tokens", "WITH came AS", "COMMIT"],
    ]
    assert query(store.path, "SELECT count(*), min(event_count), max(event_count) FROM llm_calls") == [(50, 2, 2)]
    assert query(store.path, "SELECT group_concat(token) AS text, count(*) FROM llm_tokens GROUP BY call_id") == (
        [("0,1", 2)] * 50
    )


def test_one_call_that_cannot_be_stored_does_not_cost_the_others_of_its_batch(tmp_path, monkeypatch):
    monkeypatch.delenv("TOKENTAPE_STRICT", raising=False)
    store = SQLiteStore(tmp_path / "tape.db", process_value(), max_buffer=100_000)
    for number in range(3):
        call = call_value(f"CALL-{number}")
        store.tokentape_call_started(call)
        huge = TokenBatch([1], [2**70 if number == 1 else 0], [0], ["Hi"], parts=(TEXT,))
        store.tokentape_tokens(call, huge)
    store.tokentape_flush()
    store.tokentape_shutdown()

    assert query(
        store.path, "SELECT c.uid, c.event_count, t.token FROM llm_calls c LEFT JOIN llm_tokens t ON t.call_id = c.id"
    ) == [
        ("CALL-0", 1, "Hi"),
        ("CALL-1", 0, None),
        ("CALL-2", 1, "Hi"),
    ]
    assert store.health()["dropped_events"] == 1


@pytest.mark.scenario("storage/Killed in mid-stream")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_call_of_a_killed_process_is_lost_with_what_had_arrived(tmp_path):
    path = tmp_path / "tape.db"
    ready = SPAWN.Event()
    worker = SPAWN.Process(target=hang_in_mid_stream, args=(path, ready))
    worker.start()
    assert ready.wait(DEADLINE_S)
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(DEADLINE_S)

        assert tape.mark_lost() == 1

        call = tape.call("-1")
        assert (call["status"], call["event_count"], call["first_token_latency_ms"]) == ("lost", 5, 0.0)
        assert [event.token for event in tape.events(call["id"])] == ["0", "1", "2", "3", "4"]
        assert [part["content"] for part in tape.parts(call["id"])] == ["01234"]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def hang_in_mid_stream(path, ready):
    store = SQLiteStore(path, this_process("killed.py"), max_buffer=100)
    store.tokentape_call_started(call_value())
    store.tokentape_tokens(call_value(), batch(0, 5, (TEXT,)))
    store.tokentape_flush()
    ready.set()
    time.sleep(DEADLINE_S)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_forked_child_commits_survives_the_end_of_its_parents_connection(tmp_path):
    """A connection inherited over the fork would make the child's SQLite believe that it holds the parent's locks."""
    path = tmp_path / "tape.db"
    store = SQLiteStore(path, this_process("parent"), max_buffer=1000)
    record(store, "BEFORE", 10)
    store.tokentape_call_started(call_value("HELD"))
    to_child, to_parent = os.pipe(), os.pipe()

    store.before_fork()
    pid = os.fork()
    if pid == 0:
        in_child(store, to_child[0], to_parent[1])
    store.after_fork_in_parent()
    assert os.read(to_parent[0], 1) == b"1"
    record(store, "AFTER", 10)
    store.tokentape_shutdown()
    os.write(to_child[1], b"2")
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    found = query(path, "SELECT c.uid, p.name, c.event_count FROM llm_calls c JOIN processes p ON p.id = process_id")
    assert sorted(found) == [
        ("AFTER", "parent", 10),
        ("BEFORE", "parent", 10),
        ("CHILD-1", "child", 10),
        ("CHILD-2", "child", 10),
        ("HELD", "parent", 0),
    ]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def in_child(store, from_parent, to_parent):
    code = 1
    try:
        store.after_fork(this_process("child"))
        record(store, "CHILD-1", 10)
        os.write(to_parent, b"1")
        os.read(from_parent, 1)  # until the parent has closed its connection
        record(store, "CHILD-2", 10)
        store.tokentape_shutdown()
        code = 0
    finally:
        os._exit(code)


def test_a_fork_waits_for_the_commit_under_way_and_the_next_commit_for_the_fork(tmp_path):
    store = SQLiteStore(tmp_path / "tape.db", process_value(), max_buffer=1000)
    record(store, "FIRST", 10)
    store.before_fork()
    writer = threading.Thread(target=record, args=(store, "SECOND", 10))
    writer.start()
    time.sleep(0.05)
    assert query(store.path, "SELECT uid FROM llm_calls") == [("FIRST",)]

    store.after_fork_in_parent()
    writer.join(DEADLINE_S)

    assert query(store.path, "SELECT uid FROM llm_calls") == [("FIRST",), ("SECOND",)]
    store.tokentape_shutdown()
