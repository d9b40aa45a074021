"""A tape stays at its size: what goes, what stays, who is not disturbed, and what is said about it."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tokentape
from programs import Program, eventually, read
from tokentape.cli import cli
from tokentape.models import Part, TokenBatch
from tokentape.process import this_process
from tokentape.store import retention, schema
from tokentape.store.plugin import SQLiteStore
from tokentape.store.retention import KEPT_AT_ENDS, Retention
from values import STARTED_US, call_value, finished, metrics_value, stall

TEXT = Part(0, "text")
ENDS = [*range(KEPT_AT_ENDS), *range(1000 - KEPT_AT_ENDS, 1000)]


class Filled:
    """A tape that is filled through the store, call after call."""

    def __init__(self, path: Path, max_mb: int = 2) -> None:
        self.path = path
        self.store = SQLiteStore(path, this_process("app.py"), max_buffer=1_000_000, max_mb=max_mb)
        self.count = 0

    def begin(self, events: int = 1000, **fields: Any) -> Any:
        """A call that runs."""
        call = call_value(f"{self.count:026}", **{"started_unix_us": STARTED_US + self.count * 1_000_000, **fields})
        self.count += 1
        self.store.tokentape_call_started(call)
        self.more(call, events)
        return call

    def more(self, call: Any, events: int, first: int = 0) -> None:
        """Events of a call, each with log-probabilities where it is the hundredth."""
        numbers = range(first, first + events)
        logprobs = {i: [{"token": str(i)}] for i in range(0, events, 100)}
        self.store.tokentape_tokens(
            call,
            TokenBatch(
                [i * 1000 for i in numbers],
                [900] * events,
                [0] * events,
                [f" w{i}" for i in numbers],
                logprobs=logprobs,
                parts=(TEXT,) if not first else (),
            ),
        )
        self.store.tokentape_flush()

    def end(self, call: Any, events: int = 1000, **end: Any) -> None:
        """End a call."""
        more = {"parts": (TEXT,), "event_count": events, "metrics": metrics_value(duration_ms=float(events)), **end}
        self.store.tokentape_call_finished(finished(call, **more))
        self.store.tokentape_flush()

    def calls(self, count: int, events: int = 1000, **end: Any) -> None:
        """Calls from beginning to end."""
        for _ in range(count):
            self.end(self.begin(events), events, **end)

    def work(self) -> None:
        """Flush until nothing is left to do."""
        deadline = time.monotonic() + 60
        while self.store.has_work_left:
            assert time.monotonic() < deadline
            self.store.tokentape_flush()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return read(self.path, sql)

    def kept(self, call_id: int) -> list[int]:
        """Indexes of the events of a call."""
        found = self.rows(f"select token_index from llm_tokens where call_id = {call_id} order by 1")
        return [row["token_index"] for row in found]

    @property
    def bytes(self) -> int:
        """What is on disk."""
        return sum(file.stat().st_size for file in (self.path, Path(f"{self.path}-wal")) if file.exists())


def keeper(path: Path, max_mb: int, connection: sqlite3.Connection) -> Retention:
    """What another process does to keep the tape at its size, over its connection."""
    made = Retention(path, max_mb)
    made.prepare(connection)
    return made


@pytest.fixture
def large(tmp_path: Path) -> Any:
    """A tape that its own writer finds small enough."""
    large = Filled(tmp_path / "tape.db", max_mb=1000)
    yield large
    large.store.tokentape_shutdown()


@pytest.fixture
def filled(tmp_path: Path) -> Any:
    filled = Filled(tmp_path / "tape.db")
    yield filled
    filled.store.tokentape_shutdown()


@pytest.mark.scenario("retention/Tape past its size")
def test_the_events_of_the_oldest_finished_calls_go_and_everything_else_stays(
    filled: Filled, caplog: pytest.LogCaptureFixture
) -> None:
    running = filled.begin(2000)
    filled.calls(1, stalls=(stall(500), stall(1000, position="tail")))
    before = filled.rows("select * from llm_calls where id = 2")[0]
    largest = 0
    for number in range(12):
        filled.calls(10)
        filled.more(running, 1000, 2000 + number * 1000)
        largest = max(largest, filled.bytes)
    filled.work()

    assert max(largest, filled.bytes) < 2_250_000
    kept = {row["id"]: row["events_kept"] for row in filled.rows("select id, events_kept from llm_calls")}
    aggregated = [call_id for call_id, kept in kept.items() if kept == "aggregated"]
    assert aggregated == list(range(2, 2 + len(aggregated))), "not the oldest, or one that runs"
    assert 50 < len(aggregated) < 121, "none, or all"
    assert filled.kept(2) == sorted([*ENDS, 499, 500])
    assert filled.kept(3) == ENDS
    assert filled.kept(121) == list(range(1000))
    assert filled.kept(1) == list(range(14_000))
    assert filled.rows("select * from llm_calls where id = 2")[0] == before | {"events_kept": "aggregated"}
    assert len(filled.rows("select * from llm_stalls where call_id = 2")) == 2
    text = "".join(f" w{i}" for i in range(1000))
    assert {row["content"] for row in filled.rows("select content from llm_parts where call_id > 1")} == {text}
    # Log-probabilities go with their events.
    probabilities = filled.rows("select call_id, token_index from llm_token_logprobs where call_id in (3, 121)")
    assert [(row["call_id"], row["token_index"]) for row in probabilities] == [
        (3, 0),
        *((121, i) for i in range(0, 1000, 100)),
    ]
    with closing(sqlite3.connect(filled.path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []

    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        (
            f"{filled.path} has reached its size (max_mb=2): the token events of the oldest calls are removed; "
            "their rows, numbers and texts stay."
        )
    ]
    assert filled.store.health()["thinned_calls"] == len(aggregated)
    shown = CliRunner().invoke(cli, ["status", "--db", str(filled.path)]).stdout
    assert f"To keep the tape at its size token events of {len(aggregated)} calls were removed.\n" in shown


@pytest.mark.scenario("retention/Smaller than its size")
def test_nothing_happens_below_the_size(filled: Filled, caplog: pytest.LogCaptureFixture) -> None:
    filled.calls(20)
    assert {row["events_kept"] for row in filled.rows("select events_kept from llm_calls")} == {"all"}
    assert (filled.store.has_work_left, filled.store.health()["thinned_calls"]) == (False, 0)
    assert caplog.records == []


@pytest.mark.scenario("retention/Space is given back")
def test_a_tape_that_is_far_too_large_shrinks_while_the_program_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tape.db"
    large = Filled(path, max_mb=100)
    large.calls(5, 30_000)
    large.store.tokentape_shutdown()
    assert path.stat().st_size > 5_000_000

    tokentape.enable(db=path, max_mb=2, flush_ms=20, plugins=())
    with tokentape.start_llm_stream(model="m") as stream:
        stream.add_token("Hi")
    # Nothing is recorded any more.
    size = eventually(lambda: path.stat().st_size, lambda size: size < 2_000_000)
    assert size < 2_000_000
    left = [row["n"] for row in read(path, "select count(*) n from llm_tokens where call_id < 6 group by call_id")]
    assert left[:4] == [20] * 4
    assert left[4] < 30_000


@pytest.mark.scenario("retention/What has to stay is too large")
def test_a_tape_whose_texts_alone_are_too_large_says_so_once_and_is_left(
    filled: Filled, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "cannot be kept at its size (max_mb=2): rows, texts and calls in flight alone are larger"
    for _ in range(25):
        call = filled.begin(2)
        filled.store.tokentape_tokens(call, TokenBatch([9000], [1], [0], ["x" * 100_000]))
        filled.end(call, 3)
    filled.calls(2)
    assert sum(said in record.getMessage() for record in caplog.records) == 1
    assert not filled.store.has_work_left
    assert filled.store.health()["past_max_mb"]
    # The events of what is finished later go too, and nothing is said again.
    monkeypatch.setattr(retention, "LOOK_AGAIN_S", 0.0)
    filled.calls(3)
    assert filled.kept(30) == ENDS
    assert sum(said in record.getMessage() for record in caplog.records) == 1
    shown = CliRunner().invoke(cli, ["status", "--db", str(filled.path)], env={"TOKENTAPE_MAX_MB": "2"}).stdout
    assert "It is larger than max_mb=2" in shown


@pytest.mark.scenario("retention/Several processes")
def test_whoever_finds_the_tape_locked_leaves_it_to_the_other(large: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE_S", 60.0)
    large.calls(50)
    with (
        closing(schema.open_for_writing(large.path)) as own,
        closing(schema.open_for_writing(large.path)) as theirs,
    ):
        other = keeper(large.path, 1, own)
        theirs.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        other.step(own, large.path.stat().st_size)
        assert time.monotonic() - begun < 2
        assert (other.is_due, other.thinned_calls) == (True, 0)
        theirs.execute("ROLLBACK")
        # What it needed for that it has put back.
        assert own.execute("PRAGMA busy_timeout").fetchone() == (schema.OPEN_BUSY_MS,)
        assert own.execute("PRAGMA foreign_keys").fetchone() == (1,)
        other.step(own, large.path.stat().st_size)
        assert own.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert not other.is_due
    assert other.thinned_calls > 20
    assert large.kept(1) == ENDS


@pytest.mark.scenario("retention/Several processes")
def test_processes_that_record_together_keep_the_tape_at_its_size_and_lose_nothing(tmp_path: Path) -> None:
    code = """
    import os, sys, tokentape
    tokentape.enable(db=os.environ["TOKENTAPE_DB"], max_mb=2, flush_ms=10, plugins=())
    for number in range(40):
        with tokentape.start_llm_stream(model="m") as stream:
            for i in range(1000):
                stream.add_token(f" w{i}")
    tokentape.disable()
    """
    program = Program(tmp_path, code)
    processes = [program.start() for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    calls = program.rows(
        "select events_kept, event_count, (select count(*) from llm_tokens t where t.call_id = c.id) n, "
        "(select length(content) from llm_parts p where p.call_id = c.id) chars, status from llm_calls c"
    )
    assert len(calls) == 120
    assert {(row["event_count"], row["chars"], row["status"]) for row in calls} == {(1000, 4890, "completed")}
    left = {(row["events_kept"], row["n"]) for row in calls}
    assert left >= {("all", 1000), ("aggregated", 20)}
    # The size was reached in the middle of a call.
    assert all(20 < events < 1000 for kept, events in left - {("all", 1000), ("aggregated", 20)} if kept != "all")
    assert {events for kept, events in left if kept == "all"} == {1000}
    # What the last of them to end has left, the next one does.
    after = Filled(program.tape)
    after.calls(1)
    after.work()
    after.store.tokentape_shutdown()
    assert after.bytes < 2_250_000
    with closing(sqlite3.connect(program.tape)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_what_another_process_has_removed_is_not_removed_again(large: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE_S", 60.0)
    large.calls(50)
    with closing(schema.open_for_writing(large.path)) as connection:
        first, second = (keeper(large.path, 1, connection) for _ in range(2))
        first.step(connection, large.path.stat().st_size)
        second.step(connection, large.path.stat().st_size)
    assert first.thinned_calls
    assert second.thinned_calls == 0


def test_a_long_call_that_was_left_half_way_is_finished_by_another_process(
    large: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.calls(1, 45_000)
    large.calls(20)
    monkeypatch.setattr(retention, "AT_ONCE_S", 0.0)
    with closing(schema.open_for_writing(large.path)) as connection:
        killed = keeper(large.path, 1, connection)
        killed.step(connection, large.path.stat().st_size)
        assert killed.is_due
        left = len(large.kept(1))
        assert 20 < left < 45_000
        assert large.rows("select events_kept from llm_calls where id = 1") == [{"events_kept": "aggregated"}]
        another = keeper(large.path, 1, connection)
        for _ in range(50):
            another.step(connection, large.path.stat().st_size)
    assert large.kept(1) == [*range(10), *range(44_990, 45_000)]


@pytest.mark.scenario("retention/Long call that ends late")
def test_a_call_that_ends_after_its_turn_is_found_without_waiting(filled: Filled) -> None:
    running = filled.begin(70_000)
    filled.calls(10)
    filled.work()  # everything that has ended is thinned, and looked through twice
    filled.calls(1)
    assert filled.kept(1) == list(range(70_000))
    filled.end(running, 70_000)
    for _ in range(10):
        filled.calls(10)
    assert filled.kept(1) == [*range(10), *range(69_990, 70_000)]


@pytest.mark.scenario("retention/Somebody reads for long")
def test_a_reader_that_holds_the_wal_stops_it_until_it_has_gone(filled: Filled) -> None:
    filled.calls(40)
    with closing(sqlite3.connect(filled.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM llm_calls").fetchone()
        for _ in range(30):
            filled.calls(5)
        held = filled.store.health()["thinned_calls"]
        filled.calls(5)
        assert filled.store.health()["thinned_calls"] == held
        reader.execute("COMMIT")
    for _ in range(5):
        filled.calls(2)
    filled.work()
    assert filled.store.health()["thinned_calls"] > held
    assert filled.bytes < 2_250_000


def test_a_tape_that_is_small_enough_costs_no_statement(filled: Filled) -> None:
    filled.calls(1)
    with closing(schema.open_for_writing(filled.path)) as connection:
        small_enough = keeper(filled.path, 100, connection)
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        small_enough.step(connection, filled.path.stat().st_size)
        assert statements == []


@pytest.mark.scenario("retention/Reading what is left")
def test_readers_tell_a_hole_from_a_gap(filled: Filled) -> None:
    filled.calls(80)
    timeline = filled.rows("select token_index, delta_ms from token_timeline where call_id = 1 order by 1")
    assert [row["token_index"] for row in timeline] == ENDS
    assert [row["delta_ms"] for row in timeline] == [0.0, *[1.0] * 9, None, *[1.0] * 9]

    shown = CliRunner().invoke(cli, ["show", "1", "--db", str(filled.path)]).stdout
    assert (
        "20 of its 1,000 token events are left: the tape had reached its size (max_mb). "
        "Its numbers are those of all events; its text is kept.\n"
    ) in shown
    assert "events not kept" in shown
    assert shown.endswith(f"{''.join(f' w{i}' for i in range(1000))}\n")
