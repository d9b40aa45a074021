"""Whatever happens to the database, the program's stream goes on; what could not be kept is counted."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import tokentape
from faulty_disks import locked_by_another_process, overwrite, small_disk
from programs import eventually, read
from tape_reader import TapeReader
from tokentape.models import Part, TokenBatch
from tokentape.store import networks, schema
from tokentape.store.plugin import SQLiteStore
from values import call_value, finished, process_value

pytestmark = pytest.mark.usefixtures("lenient")
COUNTS = "SELECT count(*) AS n FROM llm_tokens"
# A call is whole when what it had is there or counted.
UNCOUNTED = (
    "SELECT id FROM llm_calls c WHERE status <> 'running' AND event_count - dropped_count <> "
    "(SELECT count(*) FROM llm_tokens WHERE call_id = c.id)"
)


def fork() -> None:
    """After a fork the tape is opened anew, as another process would open it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tape.db"


@pytest.fixture
def recording(path: Path) -> Iterator[Callable[..., TapeReader]]:
    """Switches recording on, to the path or another one."""

    def start(db: Path = path, **settings: Any) -> TapeReader:
        tokentape.enable(**{"db": db, "flush_ms": 20, "plugins": (), "content": "full"} | settings)
        assert tokentape.flush(10)
        return TapeReader(db)

    yield start
    tokentape.disable()


class Streamed:
    """A stream that is read piece by piece: what came has to be what was sent."""

    def __init__(self, model: str = "m") -> None:
        self.came = 0
        self.stream = tokentape.record_stream(lambda: (f"{i} " for i in range(10**9)), model=model, text=str)

    def read(self, count: int, pause_s: float = 0.0) -> None:
        for number in range(self.came, self.came + count):
            assert next(self.stream) == f"{number} "
            if pause_s and not number % 100:
                time.sleep(pause_s)
        self.came += count

    def end(self) -> None:
        self.stream.close()


def store() -> dict[str, Any]:
    health: dict[str, Any] = tokentape.status()["store"]
    return health


def failing() -> str:
    """What keeps the tape from being written, once something does."""
    return str(eventually(lambda: store()["last_error"], lambda error: error is not None))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def assert_whole(tape: Path) -> None:
    assert read(tape, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert read(tape, UNCOUNTED) == []
    assert read(tape, "SELECT call_id FROM llm_tokens GROUP BY 1 HAVING max(token_index) + 1 <> count(*)") == []


@pytest.mark.scenario("storage/Locked for a minute")
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.nightly)])
def test_a_lock_costs_no_event_that_the_buffer_can_hold(recording, path, caplog, seconds) -> None:
    tape = recording()
    streamed = Streamed()
    streamed.read(100)
    assert tokentape.flush(10)
    with locked_by_another_process(path):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            streamed.read(10)
            time.sleep(0.01)
        assert failing() == "database is locked"
        assert read(path, COUNTS) == [{"n": 100}]
        assert store()["pending_events"] <= 100_000
    streamed.read(10)
    streamed.end()
    assert tokentape.flush(60)

    call = tape.call()
    print(f"\nlocked for {seconds} s: {call['event_count']:,} events, {call['dropped_count']:,} dropped")
    assert (call["event_count"], call["dropped_count"], call["events_kept"]) == (streamed.came, 0, "all")
    assert "".join(row["token"] for row in tape.tokens()) == "".join(f"{i} " for i in range(streamed.came))
    assert_whole(path)
    said = warnings(caplog)
    assert [line.split(";")[0].split(" again")[0] for line in said] == [
        f"{path} cannot be written (database is locked)",
        f"{path} can be written",
    ]


@pytest.mark.scenario("storage/Disk full")
def test_a_full_disk_costs_what_the_buffer_cannot_hold_and_that_is_counted(recording, tmp_path, caplog) -> None:
    with small_disk(tmp_path / "disk") as disk:
        tape = recording(disk.folder / "tape.db", max_buffer=5_000)
        streamed = Streamed()
        streamed.read(100)
        assert tokentape.flush(10)
        disk.fill()
        streamed.read(5_000, pause_s=0.02)
        assert "full" in failing() or "disk I/O" in failing()
        streamed.read(10_000, pause_s=0.02)
        assert eventually(lambda: store()["dropped_events"], bool) > 0
        assert store()["pending_events"] <= 5_000
        disk.empty()
        assert tokentape.flush(30)
        streamed.read(100)
        streamed.end()
        assert tokentape.flush(30)

        call = tape.call()
        assert (call["event_count"], call["events_kept"]) == (streamed.came, "dropped")
        assert 0 < call["dropped_count"] == store()["dropped_events"] < streamed.came
        assert tape.rows(COUNTS) == [{"n": streamed.came - call["dropped_count"]}]
        assert_whole(tape.path)
        tokentape.disable()
        said = warnings(caplog)
        assert [sum(word in line for line in said) for word in ("cannot be written (", "again", "were dropped")] == [
            1,
            1,
            1,
        ]
        assert f"{call['dropped_count']} token events were dropped" in " ".join(said)


def test_a_disk_that_is_full_at_the_start_is_recorded_to_when_it_is_not(recording, tmp_path, lenient) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        disk.folder.joinpath("tape.db").touch()
        disk.fill()
        tokentape.enable(db=disk.folder / "tape.db", flush_ms=20, plugins=())
        assert tokentape.status()["recording"], tokentape.status()
        streamed = Streamed()
        streamed.read(10)
        assert failing()
        disk.empty()
        streamed.end()
        assert tokentape.flush(30)
        assert read(disk.folder / "tape.db", COUNTS) == [{"n": 10}]
        tokentape.disable()


@pytest.mark.scenario("storage/Folder that becomes read-only")
def test_a_folder_that_becomes_read_only_is_waited_for(tmp_path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = SQLiteStore(disk.folder / "tape.db", process_value(), max_buffer=15)
        call = call_value()
        store.tokentape_call_started(call)
        store.tokentape_tokens(call, TokenBatch([1], [1], [0], ["a"], parts=(Part(0, "text"),)))
        store.tokentape_flush()
        # What is open for writing keeps a file system from becoming read-only; over a fork the tape is closed.
        store.before_fork()
        store.after_fork_in_parent()
        disk.remount("ro")
        store.tokentape_tokens(call, TokenBatch([2] * 20, [1] * 20, [0] * 20, ["b"] * 20))
        store.tokentape_flush()
        assert store.health()["last_error"] is not None
        assert (store.pending_events, store.health()["dropped_events"]) == (15, 5)
        disk.remount("rw")
        store.tokentape_call_finished(finished(call, event_count=21))
        store.tokentape_flush()
        assert store.health()["last_error"] is None
        assert read(store.path, "SELECT event_count, dropped_count FROM llm_calls") == [
            {"event_count": 21, "dropped_count": 5}
        ]
        assert read(store.path, COUNTS) == [{"n": 16}]
        store.tokentape_shutdown()


@pytest.mark.scenario("storage/Deleted while it is written")
@pytest.mark.parametrize("left", [("-wal", "-shm"), ()], ids=["the database alone", "all its files"])
def test_a_tape_that_is_deleted_begins_anew_with_what_goes_on(recording, path, caplog, left) -> None:
    tape = recording()
    with tokentape.run("outer"), tokentape.run("inner"):
        streamed = Streamed()
        streamed.read(10)
        assert tokentape.flush(10)
        for side in ("", "-wal", "-shm"):
            if side not in left:
                Path(f"{path}{side}").unlink()
        streamed.read(5)
        streamed.end()
        assert tokentape.flush(10)

    assert [row["token"] for row in tape.tokens()] == [f"{i} " for i in range(10, 15)]
    call = tape.call()
    assert (call["event_count"], call["dropped_count"], call["events_kept"]) == (15, 10, "dropped")
    outer, inner = tape.rows("SELECT id, parent_id, name FROM runs WHERE name IN ('outer', 'inner') ORDER BY id")
    assert (outer["name"], inner["name"], inner["parent_id"], call["run_id"]) == (
        "outer",
        "inner",
        outer["id"],
        inner["id"],
    )
    assert_whole(path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{path} was deleted or replaced while it was recorded to; recording goes on")


@pytest.mark.scenario("storage/Replaced by something else")
@pytest.mark.parametrize("what", ["text", "another application's database"])
def test_what_is_put_in_place_of_a_tape_is_left_alone_until_it_is_gone(recording, path, tmp_path, what) -> None:
    tape = recording(max_buffer=50)
    streamed = Streamed()
    streamed.read(10)
    assert tokentape.flush(10)
    other = tmp_path / "other"
    if what == "text":
        other.write_text("letters, not a tape\n" * 500)
    else:
        with closing(sqlite3.connect(other)) as connection:
            connection.execute("CREATE TABLE letters (id INTEGER)")
    before = other.read_bytes()
    other.replace(path)
    streamed.read(10)
    assert "choose another file" in failing()
    streamed.read(100)
    assert eventually(lambda: store()["dropped_events"], lambda n: n == 60) == 60
    assert path.read_bytes() == before
    path.rename(other)
    streamed.end()
    assert tokentape.flush(10)

    assert [row["token"] for row in tape.tokens()] == [f"{i} " for i in range(10, 60)]
    assert tape.call()["dropped_count"] == 10 + 60
    assert_whole(path)


@pytest.mark.scenario("storage/Newer tape that appears")
@pytest.mark.parametrize("how", ["put in its place", "upgraded in place"])
def test_a_newer_tape_that_appears_is_not_written_to(recording, path, tmp_path, caplog, how) -> None:
    tape = recording()
    streamed = Streamed()
    streamed.read(10)
    assert tokentape.flush(10)
    if how == "put in its place":
        schema.open_for_writing(tmp_path / "newer.db").close()
        with closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
            connection.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
        (tmp_path / "newer.db").replace(path)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    before = read(path, COUNTS)
    streamed.read(10)
    assert failing() == f"{path} was written by a newer version of tokentape; upgrade with: pip install -U tokentape"
    assert read(path, COUNTS) == before
    assert sum("newer version" in line for line in warnings(caplog)) == 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.FORMAT}")
    streamed.end()
    assert tokentape.flush(10)
    assert tape.call()["event_count"] == 20
    assert_whole(path)


@pytest.mark.scenario("storage/Migration that was interrupted")
@pytest.mark.parametrize("left", ["an empty file", "a file in WAL mode", "its format not noted", "tables not made"])
def test_a_tape_whose_migration_was_interrupted_is_brought_up_to_date(recording, path, left) -> None:
    path.parent.mkdir()
    if left == "an empty file":
        path.touch()
    elif left == "its format not noted":
        schema.open_for_writing(path).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 0")
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            if left == "tables not made":
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    tape = recording()
    streamed = Streamed()
    streamed.read(10)
    streamed.end()

    assert [row["token"] for row in tape.tokens()] == [f"{i} " for i in range(10)]
    assert tape.rows("SELECT name FROM _sqlite_migrations") == [{"name": "m001_first_format"}]
    assert [tape.rows(f"PRAGMA {name}")[0][name] for name in ("user_version", "auto_vacuum")] == [schema.FORMAT, 2]
    assert_whole(path)


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.corrupt-*[0-9]"))


def spoil_header(path: Path) -> None:
    overwrite(path, 0, 100)


def spoil_all_but_the_header(path: Path) -> None:
    overwrite(path, 4096)


def shorten(path: Path) -> None:
    os.truncate(path, 5 * 4096)


@pytest.mark.scenario("storage/Damaged while it is written")
@pytest.mark.parametrize("spoil", [spoil_header, spoil_all_but_the_header, shorten])
def test_a_damaged_tape_is_set_aside_and_recording_goes_on_to_a_new_one(recording, path, caplog, spoil) -> None:
    tape = recording()
    with tokentape.run("nightly"):
        streamed = Streamed()
        streamed.read(10)
        assert tokentape.flush(10)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # Somebody else's write: what SQLite remembers of the pages counts no more.
            connection.execute("UPDATE processes SET name = name")
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            spoil(path)
            spoiled = path.read_bytes()
        fork()
        streamed.read(5)
        streamed.end()
        assert tokentape.flush(20), store()

    (broken,) = aside(path)
    assert broken.read_bytes() == spoiled
    assert [row["token"] for row in tape.tokens()] == [f"{i} " for i in range(10, 15)]
    call = tape.call()
    assert (call["status"], call["event_count"], call["dropped_count"]) == ("abandoned", 15, 10)
    assert tape.rows("SELECT name FROM runs WHERE id = ?", call["run_id"]) == [{"name": "nightly"}]
    assert_whole(path)
    assert store()["set_aside"] == [str(broken)]
    (said,) = [line for line in warnings(caplog) if "set aside" in line]
    assert said.startswith(f"{path} was damaged (")
    assert said.endswith(f"tokentape recover {broken}")


@pytest.mark.scenario("storage/Write-ahead log overwritten")
def test_a_write_ahead_log_that_is_overwritten_costs_what_was_only_there(recording, path) -> None:
    tape = recording()
    streamed = Streamed()
    streamed.read(10)
    assert tokentape.flush(10)
    with closing(sqlite3.connect(path)) as other:
        overwrite(Path(f"{path}-wal"), 32)
        with suppress(sqlite3.DatabaseError):
            other.execute("UPDATE processes SET name = name")
            other.commit()
    fork()
    streamed.read(5)
    streamed.end()
    assert tokentape.flush(20), store()

    call = tape.call()
    assert (call["status"], call["event_count"]) == ("abandoned", 15)
    assert [row["token"] for row in tape.tokens()][-5:] == [f"{i} " for i in range(10, 15)]
    assert_whole(path)


@pytest.mark.scenario("storage/Damaged before it starts")
@pytest.mark.parametrize("spoil", [spoil_header, spoil_all_but_the_header, shorten])
def test_a_tape_that_is_damaged_at_the_start_is_set_aside(path, recording, spoil) -> None:
    recording()
    tokentape.disable()
    spoil(path)

    tape = recording()
    streamed = Streamed()
    streamed.read(10)
    streamed.end()

    assert len(tape.tokens()) == 10
    assert len(aside(path)) == 1


def test_a_second_damage_within_a_minute_is_waited_out(path, recording, monkeypatch) -> None:
    recording()
    for number in range(2):
        assert tokentape.flush(10)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        overwrite(path, 4096)
        streamed = Streamed()
        streamed.read(10)
        streamed.end()
        assert tokentape.flush(3) is (number == 0)

    assert len(aside(path)) == 1
    assert "damaged" in failing()


@pytest.mark.scenario("storage/Network file system")
def test_a_network_file_system_is_named_once(path, recording, caplog, monkeypatch, tmp_path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw,vers=4.2 0 0\n")
    monkeypatch.setattr(networks, "MOUNTS", mounts)

    recording()
    Streamed().read(10)
    assert tokentape.flush(10)

    assert store()["network_file_system"] == "nfs4"
    (said,) = [line for line in warnings(caplog) if "network" in line]
    assert said.startswith(f"{path} is on a network file system (nfs4)")


@pytest.mark.parametrize(
    ("mount", "kind"),
    [
        ("server:/x {0} nfs rw 0 0", "nfs"),
        ("//server/x {0} cifs rw 0 0", "cifs"),
        ("me@host: {0} fuse.sshfs rw 0 0", "fuse.sshfs"),
        ("C:\\134 {0} 9p rw 0 0", "9p"),
        ("server:/x {0}/elsewhere nfs rw 0 0", None),
        ("server:/x {0} nfs rw 0 0\n/dev/sda {0} ext4 rw 0 0", None),
        ("tmpfs {0} tmpfs rw 0 0\nserver:/x {0}/my\\040data nfs4 rw 0 0", "nfs4"),
        ("nonsense", None),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path, monkeypatch, mount, kind) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/vda / ext4 rw 0 0\n" + mount.format(tmp_path) + "\n")
    monkeypatch.setattr(networks, "MOUNTS", mounts)

    assert networks.network_of(tmp_path / "my data" / "tape.db") == kind
    monkeypatch.setattr(networks, "MOUNTS", tmp_path / "nowhere")
    assert networks.network_of(tmp_path / "tape.db") is None


def test_runs_without_end_are_not_held_without_end(path, recording, monkeypatch) -> None:
    recording(max_buffer=20)
    with locked_by_another_process(path):
        for number in range(200):
            with tokentape.run(f"r{number}"):
                pass
        assert failing()
        eventually(lambda: store()["pending_events"], bool, within=1)
        from tokentape import recording as session

        held = session._session.store._committer.operations
        assert len(held) <= 2 * 20
    assert tokentape.flush(20)
