"""Reading over a connection that belongs to somebody else, and as one moment while others write."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from handmade import TEXT, Handmade
from tokentape.errors import NotATape, TapeError
from tokentape.tape import Tape
from values import call_value


@pytest.fixture
def made(tmp_path):
    made = Handmade(tmp_path / "tape.db")
    made.run()
    made.call("CALL", (1, 0, "Hel"), (2, 0, "lo"))
    yield made
    made.close()


@pytest.mark.parametrize("factory", [None, sqlite3.Row, lambda cursor, row: list(row)])
def test_the_rows_of_a_borrowed_connection_may_be_of_any_kind(made, factory):
    with closing(sqlite3.connect(f"{made.path.as_uri()}?mode=ro", uri=True)) as theirs, Tape.open(made.path) as own:
        theirs.row_factory = factory
        tape = Tape.over(theirs)
        assert tape.path == made.path
        assert tape.call("CALL") == own.call("CALL")
        assert tape.events(1) == own.events(1)
        assert tape.page_of_runs(5) == own.page_of_runs(5)
        assert tape.totals() == own.totals()
        tape.close()
        assert (theirs.row_factory, theirs.in_transaction, theirs.total_changes) == (factory, False, 0)
        assert len(theirs.execute("SELECT * FROM llm_calls").fetchall()) == 1


def test_a_borrowed_connection_to_something_else_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as theirs:
        theirs.execute("CREATE TABLE mine (id)")
        with pytest.raises(NotATape, match=r"^other\.db is a database of another application"):
            Tape.over(theirs)
    with closing(sqlite3.connect(":memory:")) as theirs, pytest.raises(TapeError, match=r"^:memory: is empty"):
        Tape.over(theirs)


def test_a_snapshot_is_one_moment(made):
    with Tape.open(made.path) as tape:
        with tape.snapshot():
            before = tape.totals()
            made.call("LATER", (1, 0, "x"))
            assert tape.totals()["rows"] == before["rows"]
            with tape.snapshot():
                assert len(tape.calls()) == 1
        assert len(tape.calls()) == 2


def test_a_snapshot_in_somebody_elses_transaction_leaves_it_to_them(made):
    with closing(sqlite3.connect(made.path, isolation_level=None)) as theirs:
        theirs.execute("BEGIN")
        with Tape.over(theirs).snapshot():
            pass
        assert theirs.in_transaction


def test_text_that_is_no_utf8_is_read_and_the_connection_stays_as_it_was(made):
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("UPDATE llm_tokens SET token = CAST(x'61FF62' AS TEXT) WHERE token_index = 0")
        db.execute("UPDATE llm_parts SET content = CAST(x'EDA080' AS TEXT)")
    with closing(sqlite3.connect(made.path)) as theirs:
        tape = Tape.over(theirs)
        assert [event.token for event in tape.events(1)] == ["a\ufffdb", "lo"]
        assert tape.columns(1).token == ["a\ufffdb", "lo"]
        assert set(tape.parts(1)[0]["content"]) == {"\ufffd"}
        assert theirs.text_factory is str


def test_a_tape_that_somebody_has_locked_is_named_as_that(made):
    made.close()
    with closing(sqlite3.connect(made.path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TapeError) as found:
            Tape.open(made.path, busy_ms=50)
    assert str(found.value) == f"{made.path} is locked by another program; try again when that has finished"
    with Tape.open(made.path) as tape:
        assert len(tape.calls()) == 1


def test_a_running_call_says_what_its_events_say(made):
    made.call("GOING", (5, 0, "He"), (9, 0, "y"), running=True)
    with Tape.open(made.path) as tape:
        (row,) = tape.page_of_calls(1, status="running")
        known = {
            name: row[name] for name in ("status", "text_start", "first_token_latency_ms", "last_token_latency_ms")
        }
        assert known == {
            "status": "running",
            "text_start": "Hey",
            "first_token_latency_ms": 5.0,
            "last_token_latency_ms": 9.0,
        }
        assert row["running_for_ms"] >= row["silent_for_ms"] >= 0
        assert row["duration_ms"] is None
        assert [part["content"] for part in tape.detail(tape.find_calls("GOING")[0])["parts"]] == ["Hey"]
        made.events(call_value("GOING"), (11, 0, "!"), parts=(TEXT,))
        assert tape.find_calls("GOING")[0]["last_token_latency_ms"] == 11.0
