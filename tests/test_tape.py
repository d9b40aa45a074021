"""The read side: finding calls, their parts and totals, and what dead processes left behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handmade import gone_process
from programs import read
from tokentape.clock import utc_text
from tokentape.errors import CallNotFound, TapeError
from tokentape.models import Mark, Metrics, Part, TokenBatch
from tokentape.process import is_alive, this_process
from tokentape.store import lost, schema
from tokentape.store.plugin import SQLiteStore
from tokentape.tape import Event, Tape
from values import STARTED_US, call_value, finished, metrics_value, process_value, run_value, stall

TEXT = Part(0, "text")
FIRST, SECOND, THIRD = (f"01KA000000000000000000000{digit}" for digit in "1AB")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tape.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path, this_process("app.py"), max_buffer=1000)
    store.tokentape_run_started(run_value())
    yield store
    store.tokentape_shutdown()


@pytest.fixture
def tape(store, path):
    store.tokentape_flush()
    with Tape.open(path) as tape:
        yield tape


def batch(*texts, start_us=1000, step_us=1000, parts=(TEXT,), part=0):
    offsets = [start_us + step_us * i for i in range(len(texts))]
    return TokenBatch(offsets, [step_us] * len(texts), [part] * len(texts), list(texts), parts=parts)


def record(store, call, *texts, parts=(TEXT,), **end):
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch(*texts))
    store.tokentape_call_finished(finished(call, parts=parts, event_count=len(texts), **end))
    store.tokentape_flush()


@pytest.fixture
def three(store):
    """Three calls, the newest last."""
    for number, uid in enumerate((FIRST, SECOND, THIRD)):
        call = call_value(
            uid,
            started_unix_us=STARTED_US + number,
            request_model="gpt-y" if number == 1 else "gpt-x",
            labels={"env": "prod", "n": str(number)} if number else {},
        )
        record(store, call, "a", status="error" if number == 2 else "completed", response_model=f"answered-{number}")


def test_calls_are_listed_newest_first_as_many_as_asked_for(tape, three):
    assert [call["uid"] for call in tape.calls()] == [THIRD, SECOND, FIRST]
    assert [call["uid"] for call in tape.calls(2)] == [THIRD, SECOND]


def test_calls_are_filtered_by_all_conditions_at_once(tape, three):
    def uids(**conditions):
        return [call["uid"] for call in tape.calls(**conditions)]

    assert uids(labels={"env": "prod"}) == [THIRD, SECOND]
    assert uids(labels={"env": "prod", "n": "1"}) == [SECOND]
    assert uids(labels={"env": "prod"}, status="error", model="gpt-x") == [THIRD]
    assert uids(model="answered-1") == [SECOND]
    assert (
        uids(labels={"env": "test"}) == uids(labels={"n": "7"}) == uids(status="running") == uids(model="\udcff") == []
    )


@pytest.mark.parametrize(
    ("ref", "uid"),
    [
        ("-1", THIRD),
        ("-3", FIRST),
        (SECOND, SECOND),
        (SECOND.lower(), SECOND),
        (SECOND[:-1] + "b", THIRD),
        ("2", SECOND),
        (1, FIRST),
        (" -2 ", SECOND),
    ],
)
def test_a_call_answers_to_what_points_at_it(tape, three, ref, uid):
    assert tape.call(ref)["uid"] == uid


def test_a_call_is_the_whole_row(tape, three, path):
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        assert tape.call("-1") == dict(db.execute("SELECT * FROM llm_calls WHERE id = 3").fetchone())


@pytest.mark.parametrize(
    "ref", ["zzz", "-4", "-0", "4", "99999999999999999999", "-9" * 3, "", "-", "%", "a'b", "\udcff", "٣"]
)
def test_a_reference_to_no_call_is_named(tape, three, path, ref):
    with pytest.raises(CallNotFound) as missing:
        tape.call(ref)

    assert str(missing.value) == f"no call {ref!r} on {path}; see: tokentape list"


def test_a_reference_to_several_calls_names_them(tape, three):
    with pytest.raises(CallNotFound) as ambiguous:
        tape.call("01ka")

    assert str(ambiguous.value) == f"'01ka' could be any of {FIRST}, {SECOND}, {THIRD}; give more of it"


def test_a_reference_to_many_calls_names_some(store, tape):
    for number in range(9):
        store.tokentape_call_started(call_value(f"01KA{number}"))
    store.tokentape_flush()

    with pytest.raises(CallNotFound, match=r"any of 01KA0, 01KA1, 01KA2, 01KA3, 01KA4, …; give more of it"):
        tape.call("01")


def test_events_parts_stalls_and_marks_come_in_order(store, tape):
    call = call_value()
    parts = (TEXT, Part(1, "tool_args", 0, "1/0", "search", "call_1"))
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, TokenBatch([10, 20], [5, 6], [0, 1], ["a", "{}"], {1: 3}, parts=parts))
    stalls = (stall(0, position="first"), stall(1, cause="own"))
    store.tokentape_call_finished(finished(call, parts=parts, stalls=stalls))
    for start in (2, 1):
        store.tokentape_mark(Mark("RUN", "CALL", STARTED_US + start, 7, "tool", f"search-{start}"))
    store.tokentape_flush()

    assert tape.events(1) == [Event(0, 10, 5, 0, "a", None), Event(1, 20, 6, 1, "{}", 3)]
    known = {"provider_index": None, "name": None, "external_id": None, "choice": 0}
    assert tape.parts(1) == [
        known | {"part": 0, "kind": "text", "content": "a"},
        known
        | {
            "part": 1,
            "kind": "tool_args",
            "provider_index": "1/0",
            "name": "search",
            "external_id": "call_1",
            "content": "{}",
        },
    ]
    assert [(row["token_index"], row["position"], row["cause"]) for row in tape.stalls(1)] == [
        (0, "first", "upstream"),
        (1, "middle", "own"),
    ]
    assert [mark["name"] for mark in tape.marks("RUN")] == ["search-1", "search-2"]
    assert tape.marks("OTHER") == []


def test_calls_in_flight_come_with_how_long_they_have_been_silent(store, tape):
    now_us = time.time_ns() // 1000
    for uid, since_s in (("QUIET", 60), ("CHATTY", 30)):
        call = call_value(uid, started_unix_us=now_us - since_s * 1_000_000)
        store.tokentape_call_started(call)
        if uid == "CHATTY":
            store.tokentape_tokens(call, batch("a", "b", start_us=25_000_000))
    record(store, call_value("ENDED"))

    found = tape.in_flight()

    assert [(row["uid"], row["event_count"], row["process"], row["pid"]) for row in found] == [
        ("QUIET", 0, "app.py", os.getpid()),
        ("CHATTY", 2, "app.py", os.getpid()),
    ]
    assert [60_000 <= found[0]["silent_for_ms"] < 120_000, 4_900 <= found[1]["silent_for_ms"] < 60_000] == [True, True]
    assert 30_000 <= found[1]["running_for_ms"] < 90_000


def test_totals_count_rows_drops_and_bytes_with_those_not_yet_merged(store, tape, path, three):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE llm_calls SET dropped_count = 7 WHERE id = 2")
    size = sum(file.stat().st_size for file in path.parent.iterdir() if file.name in {"tape.db", "tape.db-wal"})

    assert tape.totals() == {
        "rows": {
            "processes": 1,
            "runs": 1,
            "llm_calls": 3,
            "llm_parts": 3,
            "llm_tokens": 3,
            "llm_stalls": 0,
            "marks": 0,
        },
        "dropped_events": 7,
        "thinned_calls": 0,
        "bytes": size,
    }
    assert size > path.stat().st_size


def test_summary_of_a_run_counts_what_is_inside_it_and_each_call_once(store, tape):
    store.tokentape_run_started(run_value("INNER", parent_uid="RUN"))
    store.tokentape_run_started(run_value("OTHER"))

    def ended(uid, first_token_ms, *stalls, **fields):
        numbers = Metrics(first_token_latency_ms=first_token_ms)
        record(store, call_value(uid, **fields), stalls=stalls, metrics=numbers)

    ended("OUTER", 9000.0, stall(3, gap_us=9_000_000), layer="framework")
    ended("SDK", 2100.0, stall(0, position="first", gap_us=2_000_000), stall(3, gap_us=4_000_000), parent_uid="OUTER")
    ended("NESTED", 300.0, stall(3, cause="own", gap_us=1_500_000), stall(9, gap_us=200_000), run_uid="INNER")
    ended("ELSEWHERE", 9000.0, stall(3), run_uid="OTHER")

    assert tape.summary_of_run("RUN") == {
        "call_count": 2,
        "slowest_first_token_ms": 2100.0,
        "stalls": [
            {"cause": "upstream", "stall_count": 2, "gap_ms": 4200.0},
            {"cause": "own", "stall_count": 1, "gap_ms": 1500.0},
        ],
    }


def test_summary_of_a_run_that_recorded_nothing(tape):
    nothing = {"call_count": 0, "slowest_first_token_ms": None, "stalls": []}
    assert tape.summary_of_run("RUN") == tape.summary_of_run("UNKNOWN") == nothing


def test_a_tape_is_read_while_it_is_written(store, tape, path):
    for number in range(20):
        record(store, call_value(str(number)), "a")
        assert len(tape.calls(100)) == number + 1


def test_a_damaged_tape_is_named(store, path, three):
    store.tokentape_shutdown()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 10)

    with (
        pytest.raises(TapeError, match=r"tape\.db is damaged \(.*\); .*: tokentape recover .*tape\.db"),
        Tape.open(path) as tape,
    ):
        tape.calls()


def test_only_a_newer_tape_says_that_it_is(tape, path):
    assert not tape.is_newer
    connection = schema.open_for_writing(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    assert tape.is_newer


def leave_behind(path, process, uid="LEFT", content_level="full", texts=("He", "llo", "!"), **fields):
    """A call and its run, written by a process that then says no more."""
    store = SQLiteStore(path, process, max_buffer=1000)
    store.tokentape_run_started(run_value("RUN-" + uid))
    call = call_value(uid, run_uid="RUN-" + uid, content_level=content_level, **fields)
    store.tokentape_call_started(call)
    if texts:
        store.tokentape_tokens(call, batch(*texts, start_us=500_000, step_us=1_200_000))
    store.tokentape_flush()
    store._committer.close()


def last_seen(path, when):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE processes SET last_seen_at = ?", (when.isoformat(timespec="microseconds")[:26] + "Z",))


def test_what_a_dead_process_left_is_lost_with_the_numbers_of_what_had_arrived(path):
    leave_behind(path, gone_process())
    (before,) = read(path, "SELECT * FROM llm_calls")
    with Tape.open(path) as tape:
        seen = tape.call("LEFT"), tape.stalls(1), tape.calls()

        assert tape.mark_lost() == 1
        assert tape.mark_lost() == 0

        after = tape.call("LEFT")
        changed = {name: value for name, value in after.items() if value != before[name]}
        assert changed == {
            "status": "lost",
            "first_token_latency_ms": 500.0,
            "first_output_token_latency_ms": 500.0,
            "first_text_latency_ms": 500.0,
            "second_token_gap_ms": 1200.0,
            "last_token_latency_ms": 2900.0,
            "inter_chunk_p50_ms": 1200.0,
            "inter_chunk_p95_ms": 1200.0,
            "inter_chunk_p99_ms": 1200.0,
            "inter_chunk_max_ms": 1200.0,
            "inter_chunk_mean_ms": 1200.0,
            "inter_chunk_stdev_ms": 0.0,
            "events_per_second": 3 / 2.9,
            "hold_ms": 0.0,
            "stall_count": 2,
            "stall_excess_ms": 0.0,
            "stall_threshold_ms": 1000.0,
            "stall_wait_ms": 0.0,
            "stall_hold_ms": 0.0,
            "stall_blocked_ms": 0.0,
        }
        assert (after, tape.stalls(1), tape.calls()) == seen
        assert [part["content"] for part in tape.parts(1)] == ["Hello!"]
        assert [(row["token_index"], row["position"], row["cause"]) for row in tape.stalls(1)] == [
            (1, "middle", "unknown"),
            (2, "middle", "unknown"),
        ]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT status, ended_at FROM runs").fetchall() == [("lost", None)]


def test_gaps_of_a_lost_call_that_dropped_events_are_not_known(path):
    leave_behind(path, gone_process())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE llm_calls SET dropped_count = 2")
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1
        call = tape.call("LEFT")
        assert (call["first_token_latency_ms"], call["inter_chunk_max_ms"], call["stall_count"]) == (500.0, None, None)
        assert tape.stalls(1) == []


def test_nobody_is_blamed_for_stalls_of_a_lost_call_that_was_fed_by_hand(path):
    leave_behind(path, gone_process())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE llm_tokens SET wait_us = 0")
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1
        assert {row["cause"] for row in tape.stalls(1)} == {"unknown"}


def test_a_lost_call_whose_part_could_not_be_written_does_not_stop_the_tape(path):
    leave_behind(path, gone_process())
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM llm_parts")
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1
        assert tape.call("LEFT")["first_token_latency_ms"] == 500.0


def test_a_lost_call_without_events_has_no_numbers(path):
    leave_behind(path, gone_process(), texts=())
    with Tape.open(path) as tape:
        before = tape.call("-1")
        tape.mark_lost()
        assert tape.call("-1") == before | {"status": "lost"}


def test_a_lost_call_at_timings_gets_no_content(path):
    leave_behind(path, gone_process(), content_level="timings")
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1
        assert [part["content"] for part in tape.parts(1)] == [None]


def test_a_lost_call_knows_its_tokens_where_every_event_told(path):
    store = SQLiteStore(path, gone_process(), max_buffer=10)
    for uid, told in (("ALL", {0: 2, 1: 3}), ("SOME", {0: 2})):
        store.tokentape_call_started(call_value(uid))
        store.tokentape_tokens(call_value(uid), TokenBatch([1, 2], [1, 1], [0, 0], ["a", "b"], told, parts=(TEXT,)))
    store.tokentape_shutdown()
    store.tokentape_flush()

    with Tape.open(path) as tape:
        tape.mark_lost()
        found = [(row["token_count"], row["token_count_source"]) for row in map(tape.call, ("ALL", "SOME"))]
    assert found == [(5, "logprobs"), (None, None)]


@pytest.mark.scenario("storage/Still alive")
def test_what_a_living_process_is_doing_is_not_touched(path):
    leave_behind(path, this_process("app.py"))
    last_seen(path, datetime(2020, 1, 1, tzinfo=UTC))

    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
        assert tape.call("LEFT")["status"] == "running"


@pytest.mark.scenario("storage/Pid used again")
@pytest.mark.skipif(sys.platform != "linux", reason="needs the time at which a process started")
def test_a_pid_that_was_used_again_does_not_keep_a_call_alive(path):
    mine = this_process("app.py")
    earlier = datetime.fromisoformat(mine.pid_started_at) - timedelta(minutes=1)
    leave_behind(path, process_value(**{**vars_of(mine), "pid_started_at": utc_text(int(earlier.timestamp() * 1e6))}))

    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1


def vars_of(process):
    return {name: getattr(process, name) for name in process.__slots__}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_that_nobody_collected_counts_as_gone(path):
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        deadline = time.monotonic() + 30
        while " Z " not in Path(f"/proc/{zombie.pid}/stat").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        row = {**vars_of(this_process("z")), "pid": zombie.pid, "pid_started_at": None}
        assert not is_alive({**row, "last_seen_at": utc_text(time.time_ns() // 1000)})


@pytest.mark.parametrize(("minutes", "status"), [(9, "running"), (11, "lost")])
@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot_id": "another boot"}])
def test_another_host_is_gone_when_it_was_not_seen_for_ten_minutes(path, minutes, status, other):
    leave_behind(path, process_value(**{**vars_of(this_process("app.py")), **other}))
    last_seen(path, datetime.now(UTC) - timedelta(minutes=minutes))

    with Tape.open(path) as tape:
        tape.mark_lost()
        assert tape.call("LEFT")["status"] == status


def test_a_run_goes_on_while_a_living_process_has_calls_in_it(path):
    leave_behind(path, gone_process())
    store = SQLiteStore(path, this_process("worker.py"), max_buffer=10)
    store.tokentape_call_started(call_value("LIVE", run_uid="RUN-LEFT"))
    store.tokentape_flush()

    with sqlite3.connect(path) as db:
        statuses = db.execute("SELECT status FROM llm_calls UNION ALL SELECT status FROM runs").fetchall()
    store.tokentape_shutdown()
    assert statuses == [("lost",), ("running",), ("running",)]


def test_a_process_that_starts_recording_marks_what_others_left(path):
    leave_behind(path, gone_process())
    store = SQLiteStore(path, this_process("app.py"), max_buffer=10)
    store.tokentape_run_started(run_value())
    store.tokentape_flush()
    store.tokentape_shutdown()

    with Tape.open(path) as tape:
        assert tape.call("LEFT")["status"] == "lost"


def test_a_call_that_was_taken_for_lost_and_ends_after_all_has_its_own_end(path):
    store = SQLiteStore(path, gone_process(), max_buffer=10)
    call = call_value()
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch("a", "b", step_us=2_000_000))
    store.tokentape_flush()
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 1
        end = finished(call, parts=(TEXT,), event_count=2, stalls=(stall(1, cause="own"),), metrics=metrics_value())
        store.tokentape_call_finished(end)
        store.tokentape_flush()
        store.tokentape_shutdown()

        row = tape.call("CALL")
        assert (row["status"], row["duration_ms"]) == ("completed", metrics_value().duration_ms)
        assert [row["cause"] for row in tape.stalls(1)] == ["own"]


def test_marking_is_left_for_later_while_the_tape_is_locked(path):
    leave_behind(path, gone_process())
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
        blocker.close()
        assert tape.mark_lost() == 1


@pytest.mark.scenario("storage/Read-only tape")
def test_a_tape_that_cannot_be_written_is_read_and_left_as_it_is(path, monkeypatch):
    leave_behind(path, gone_process())
    before = path.read_bytes()
    monkeypatch.setattr(os, "access", lambda file, mode: False)

    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
        assert [call["status"] for call in tape.calls()] == ["lost"]
    assert path.read_bytes() == before


def test_a_call_that_another_process_marks_meanwhile_is_marked_once(path, monkeypatch):
    leave_behind(path, gone_process())
    compute = lost.metrics.compute

    def compute_meanwhile(timings):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE llm_calls SET status = 'lost', first_token_latency_ms = 1.0")
        return compute(timings)

    monkeypatch.setattr(lost.metrics, "compute", compute_meanwhile)
    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
        assert tape.call("-1")["first_token_latency_ms"] == 1.0


def test_a_newer_tape_is_never_marked(path):
    leave_behind(path, gone_process())
    connection = schema.open_for_writing(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with Tape.open(path) as tape:
        assert tape.mark_lost() == 0
    assert read(path, "SELECT status FROM llm_calls") == [{"status": "running"}]


def test_opening_a_tape_by_text_and_reading_a_copy(store, path, three, tmp_path):
    store.tokentape_shutdown()
    copy = shutil.copy(path, tmp_path / "a copy #1?.db")

    with Tape.open(str(copy)) as tape:
        assert len(tape.calls()) == 3


def test_this_process_is_alive_and_named_without_its_folder():
    mine = this_process("app.py")

    assert (mine.pid, mine.name, len(mine.started_at)) == (os.getpid(), "app.py", 27)
    assert is_alive({**vars_of(mine), "last_seen_at": "2020-01-01T00:00:00.000000Z"})
    if sys.platform == "linux":
        started = datetime.fromisoformat(mine.pid_started_at)
        assert timedelta(seconds=-2) < datetime.now(UTC) - started < timedelta(hours=12)
