"""What a tape is: its file, its tables, and the ways in which a path can be refused."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
import sqlite_utils

from tokentape.errors import NewerTape, NotATape, TapeError
from tokentape.models import KINDS, Metrics
from tokentape.store import schema
from tokentape.store.views import VIEWS

COLUMNS = {
    "processes": "id host boot_id pid pid_started_at name started_at last_seen_at",
    "runs": "id uid parent_id process_id name status started_at ended_at metadata_json",
    "llm_calls": (
        "id uid name run_id process_id parent_id layer adapter provider server_address operation request_model "
        "response_model response_id provider_request_id streaming status finish_reason error_type error_message "
        "http_status retries started_at started_unix_us ended_at last_event_at content_level events_kept request_json "
        "prompt_json response_meta_json labels_json framework_run_id metadata_json trace_id span_id input_tokens "
        "cached_input_tokens cache_write_tokens output_tokens reasoning_tokens reasoning_hidden usage_json token_count "
        "token_count_source chunk_count event_count dropped_count in_flight_at_start "
        + " ".join(field.name for field in dataclasses.fields(Metrics))
    ),
    "llm_parts": "call_id part kind_id choice provider_index name external_id content",
    "token_kinds": "id name",
    "llm_tokens": "call_id token_index offset_us wait_us part token n_tokens",
    "llm_token_logprobs": "call_id token_index logprobs_json",
    "llm_stalls": "call_id token_index position gap_us wait_us hold_us blocked_us cause",
    "call_labels": "call_id key value",
    "marks": "id run_id call_id started_unix_us duration_us kind name",
}
KEYS = {
    "llm_parts": ["call_id", "part"],
    "llm_tokens": ["call_id", "token_index"],
    "llm_token_logprobs": ["call_id", "token_index"],
    "llm_stalls": ["call_id", "token_index"],
    "call_labels": ["call_id", "key"],
}
LINKS = {
    "processes": {},
    "runs": {"parent_id": "runs", "process_id": "processes"},
    "llm_calls": {"run_id": "runs", "process_id": "processes", "parent_id": "llm_calls"},
    "llm_parts": {"call_id": "llm_calls", "kind_id": "token_kinds"},
    "token_kinds": {},
    "llm_tokens": {"call_id": "llm_calls"},
    "llm_token_logprobs": {"call_id": "llm_tokens", "token_index": "llm_tokens"},
    "llm_stalls": {"call_id": "llm_calls"},
    "call_labels": {"call_id": "llm_calls"},
    "marks": {"run_id": "runs", "call_id": "llm_calls"},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "tape.db"


@pytest.fixture
def tape(path):
    connection = schema.open_for_writing(path)
    yield connection
    connection.close()


def table_names(db):
    return {name for name in db.table_names() if not name.startswith(("_", "sqlite_"))}


@pytest.mark.scenario("storage/New tape")
def test_new_tape_is_private_and_says_what_it_is(path):
    before = os.umask(0)
    try:
        connection = schema.open_for_writing(path)
    finally:
        os.umask(before)
    connection.execute("UPDATE token_kinds SET name = name")

    pragmas = ("journal_mode", "auto_vacuum", "application_id", "user_version", "synchronous", "foreign_keys")
    found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
    assert found == {
        "journal_mode": "wal",
        "auto_vacuum": 2,
        "application_id": 0x74617065,
        "user_version": 1,
        "synchronous": 1,
        "foreign_keys": 1,
    }
    if os.name == "posix":
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (path.parent, *path.parent.iterdir())}
        assert modes == {"data": 0o700, "tape.db": 0o600, "tape.db-wal": 0o600, "tape.db-shm": 0o600}
    connection.close()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)

    schema.open_for_writing(tmp_path / "tape.db").close()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.scenario("storage/Schema as written")
def test_schema_is_the_one_that_is_documented(tape):
    db = sqlite_utils.Database(tape)

    assert {name: set(db[name].columns_dict) for name in table_names(db)} == {
        name: set(columns.split()) for name, columns in COLUMNS.items()
    }
    assert {name: db[name].pks for name in COLUMNS} == {name: KEYS.get(name, ["id"]) for name in COLUMNS}
    assert {name: links(tape, name) for name in COLUMNS} == LINKS
    indexes = {(name, *index.columns) for name in COLUMNS for index in db[name].indexes}
    assert indexes >= {
        ("llm_calls", "run_id"),
        ("llm_calls", "parent_id"),
        ("llm_calls", "process_id"),
        ("llm_calls", "started_unix_us"),
        ("runs", "parent_id"),
        ("call_labels", "key", "value"),
    }
    assert db["llm_tokens"].schema.endswith("WITHOUT ROWID")
    assert set(db.view_names()) == set(VIEWS)
    assert [row["name"] for row in db["token_kinds"].rows_where(order_by="id")] == list(KINDS)


def links(connection, table):
    return {row[3]: row[2] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}


def test_every_link_to_a_call_has_an_index_for_deleting(tape):
    tape.execute("PRAGMA foreign_keys = ON")
    indexed = {
        (table, tape.execute(f"PRAGMA index_info({index[1]})").fetchall()[0][2])
        for table in COLUMNS
        for index in tape.execute(f"PRAGMA index_list({table})").fetchall()
    }

    linking = {(table, column) for table in COLUMNS for column in links(tape, table) if column.endswith("_id")}
    assert linking - indexed == {("llm_parts", "kind_id")}


def test_each_migration_is_noted_once(path):
    for _ in range(3):
        schema.open_for_writing(path).close()

    rows = sqlite_utils.Database(path)["_sqlite_migrations"].rows
    assert [(row["migration_set"], row["name"]) for row in rows] == [("tokentape", "m001_first_format")]


@pytest.mark.scenario("storage/Nothing pending")
def test_opening_an_up_to_date_tape_changes_nothing_and_does_not_wait_for_a_writer(path, tape):
    tape.execute("BEGIN IMMEDIATE")
    before = path.read_bytes()

    other = schema.open_for_writing(path, busy_ms=0)

    assert other.total_changes == 0
    other.close()
    tape.execute("ROLLBACK")
    assert path.read_bytes() == before


def test_switching_to_wal_waits_for_the_writer_in_the_way(path, tape):
    tape.execute("PRAGMA journal_mode = DELETE")
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: blocker.execute("ROLLBACK"))
    timer.start()

    connection = schema.open_for_writing(path, busy_ms=20_000)

    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    timer.join()
    blocker.close()
    connection.close()


def test_switching_to_wal_gives_up_in_the_end(tmp_path):
    path = tmp_path / "tape.db"
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(TapeError, match=r"tape\.db cannot be written \(database is locked\); free it"):
        schema.open_for_writing(path, busy_ms=50)
    blocker.close()


def test_a_tape_that_was_put_out_of_wal_mode_for_copying_goes_back_to_it(path, tape):
    tape.execute("PRAGMA journal_mode = DELETE")
    tape.close()

    connection = schema.open_for_writing(path)

    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def a_folder(path):
    path.mkdir()


def a_text_file(path):
    path.write_text("a text that is longer than the header of a database\n" * 50)


def an_application(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 1234")


def someones_tables(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE letters (id INTEGER)")


@pytest.mark.parametrize("opened", [schema.open_for_writing, schema.open_for_reading])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_folder, "tape.db is a folder; name a file in it, such as {path}/tape.db"),
        (a_text_file, "tape.db is not an SQLite database; choose another file"),
        (an_application, "tape.db is a database of another application; choose another file"),
        (someones_tables, "tape.db is a database of another application; choose another file"),
    ],
)
def test_what_is_not_a_tape_is_refused_and_left_as_it_was(tmp_path, make, message, opened):
    path = tmp_path / "tape.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None

    with pytest.raises(NotATape) as refusal:
        opened(path)

    assert str(refusal.value) == f"{tmp_path}/" + message.format(path=path)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [file.name for file in tmp_path.iterdir()] == ["tape.db"]


def test_a_path_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(TapeError, match=r"tape\.db cannot be made \(.*file\); choose another file"):
        schema.open_for_writing(tmp_path / "file" / "tape.db")


def test_a_tape_without_permission_is_named(tmp_path, monkeypatch):
    path = tmp_path / "tape.db"
    schema.open_for_writing(path).close()
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file) != tmp_path)

    with pytest.raises(TapeError) as refusal:
        schema.open_for_writing(path)

    assert str(refusal.value) == f"{path} cannot be written (no permission for {tmp_path}); choose another file"


def test_reading_what_is_not_there_makes_nothing(tmp_path):
    with pytest.raises(TapeError, match=r"tape\.db does not exist: nothing is recorded there yet"):
        schema.open_for_reading(tmp_path / "tape.db")

    assert list(tmp_path.iterdir()) == []


def test_reading_an_empty_file_says_that_nothing_is_recorded(tmp_path):
    (tmp_path / "tape.db").touch()

    with pytest.raises(TapeError, match=r"tape\.db is empty: nothing is recorded there yet"):
        schema.open_for_reading(tmp_path / "tape.db")


@pytest.mark.scenario("storage/Newer tape")
def test_a_newer_tape_is_read_but_not_written(path, tape):
    tape.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    tape.close()
    before = path.read_bytes()

    with pytest.raises(NewerTape, match=r"tape\.db was written by a newer version of tokentape; upgrade with: pip"):
        schema.open_for_writing(path)

    assert list(schema.open_for_reading(path).query("SELECT * FROM calls")) == []
    assert path.read_bytes() == before


def test_a_newer_tape_without_our_views_is_refused(path, tape):
    tape.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    tape.execute("DROP VIEW calls")

    with pytest.raises(NewerTape, match="newer version"):
        schema.open_for_reading(path)


@pytest.mark.parametrize("closed", [True, False])
def test_a_tape_in_a_read_only_folder_is_read(read_only_folder, closed):
    folder, lock = read_only_folder
    path = folder / "tape.db"
    connection = schema.open_for_writing(path)
    if closed:
        connection.close()
    for file in folder.iterdir():
        file.chmod(0o444)
    lock()

    db = schema.open_for_reading(path)

    assert [row["name"] for row in db.query("SELECT name FROM token_kinds ORDER BY id")] == list(KINDS)
    db.close()
    connection.close()


def test_a_read_only_folder_with_an_unmerged_wal_is_not_read_by_half(read_only_folder):
    folder, lock = read_only_folder
    path = folder / "tape.db"
    connection = schema.open_for_writing(folder / "original.db")
    for suffix in ("", "-wal"):
        copied = Path(f"{path}{suffix}")
        copied.write_bytes(Path(f"{folder / 'original.db'}{suffix}").read_bytes())
        copied.chmod(0o444)
    lock()

    with pytest.raises(TapeError, match=r"tape\.db cannot be read .*: tape\.db-wal beside it needs a folder"):
        schema.open_for_reading(path)
    connection.close()
