"""Opens a tape: makes and migrates it for writing, and refuses what is not a tape."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import DamagedTape, NewerTape, NotATape, TapeError
from ..models import KINDS
from . import files, header
from .tables import TABLES
from .views import VIEWS

if TYPE_CHECKING:
    import sqlite_utils

# "tape" in ASCII: what `file` and SQLite's own tools show as the application of a tape.
APPLICATION_ID: Final = 0x74617065
# No other application has such a table.
TELLING_TABLE: Final = b"llm_token_logprobs"
# Goes up with every migration; stands in `user_version`.
FORMAT: Final = 1
OPEN_BUSY_MS: Final = 5000
RETRY_S: Final = 0.01
IMMUTABLE: Final = "&immutable=1"


def migrations() -> Any:
    """The migrations of a tape, oldest first, as `sqlite_utils.Migrations`."""
    # Imported only where something is pending: it brings numpy where that is installed, into the user's process.
    from sqlite_utils import Migrations

    steps = Migrations("tokentape")

    @steps()
    def m001_first_format(db: sqlite_utils.Database) -> None:
        db.executescript(TABLES)
        db.table("token_kinds").insert_all({"id": i, "name": kind} for i, kind in enumerate(KINDS, start=1))
        for name, sql in VIEWS.items():
            db.create_view(name, sql)

    return steps


def open_for_writing(path: Path, *, busy_ms: int = OPEN_BUSY_MS) -> sqlite3.Connection:
    """Open a tape to write to it; make it, or bring it up to date, where that is needed.

    Args:
        path: the file; its folder is made too.
        busy_ms: how long to wait for other writers.

    Returns:
        A connection in autocommit mode, usable from any one thread at a time.

    Raises:
        NotATape: a folder, not SQLite, or another application's database; it is left as it was.
        DamagedTape: SQLite finds it damaged.
        NewerTape: written by a newer version of tokentape.
        TapeError: it cannot be written.
    """
    _make_folder(path)
    # From here until it is read from, which binds a connection to the files of that moment, nobody may move them.
    with files.folder_locked(path.parent):
        _make_file(path)
        connection = _connect(path, "rw", busy_ms)
        with _closed_if_it_fails(connection, path):
            found = _writable_format(connection, path)
    with _closed_if_it_fails(connection, path):
        if found < FORMAT:
            _migrate(connection, path, busy_ms)
        _switch_to_wal(connection, busy_ms)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        # FAST would leave the text of deleted events on pages that have become free.
        connection.execute("PRAGMA secure_delete = ON")
    return connection


def open_for_reading(path: Path, *, busy_ms: int = OPEN_BUSY_MS) -> sqlite_utils.Database:
    """Open a tape to read it, also while others write to it, and also where it cannot be written.

    Args:
        path: the file; it is never made or changed.
        busy_ms: how long to wait for somebody who has locked it.

    Raises:
        NotATape: a folder, not SQLite, or another application's database.
        DamagedTape: SQLite finds it damaged.
        NewerTape: written by a newer version of tokentape, and without the views that this one reads.
        TapeError: there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise TapeError(
            f"{path} does not exist: nothing is recorded there yet; record a program with: tokentape run app.py"
        )
    _refuse_folder(path)
    from sqlite_utils import Database

    connection = _readable(path, busy_ms)[0]
    try:
        check_readable(connection, path)
    except BaseException:
        connection.close()
        raise
    return Database(connection, recursive_triggers=False, execute_plugins=False)


def attach(connection: sqlite3.Connection, path: Path, name: str, *, busy_ms: int = OPEN_BUSY_MS) -> None:
    """Attach another tape of this version to a connection, to be read only.

    Raises:
        NewerTape: written by a newer version of tokentape.
        TapeError: it is no tape, or cannot be read.
    """
    readable, how = _readable(path, busy_ms)
    with closing(readable):
        check_readable(readable, path)
        if tape_format(readable) > FORMAT:
            raise newer(path)
    connection.execute(f"ATTACH ? AS {name}", [f"{path.absolute().as_uri()}?mode=ro{how}"])


def check_readable(connection: sqlite3.Connection, path: Path | str) -> None:
    """Make sure that the database of a connection is a tape that this version can read.

    Raises:
        NotATape: it is another application's database, or none.
        NewerTape: written by a newer version of tokentape, and without the views that this one reads.
        TapeError: nothing is recorded there yet.
    """
    found = _identify(connection, path)
    if not found:
        raise TapeError(f"{path} is empty: nothing is recorded there yet; record a program with: tokentape run app.py")
    if found > FORMAT and not _has_views(connection):
        raise newer(path)


def is_busy(error: BaseException) -> bool:
    """Whether SQLite gave up because somebody else has the database locked."""
    return bool(_codes(error) & {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_passing(error: BaseException) -> bool:
    """Whether the database is locked or full, and will not always be."""
    return is_busy(error) or sqlite3.SQLITE_FULL in _codes(error)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite found the file damaged, or no database at all."""
    return bool(_codes(error) & {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _codes(error: BaseException) -> set[int]:
    """What SQLite said, also where one of our errors came of that."""
    return {getattr(each, "sqlite_errorcode", 0) & 0xFF for each in (error, error.__cause__)}


def damaged(path: Path | str, error: Exception) -> DamagedTape:
    """The error of a tape that SQLite finds damaged."""
    return DamagedTape(
        f"{path} is damaged ({error}); save what can be read with: tokentape recover {shlex.quote(str(path))}"
    )


def locked(path: Path | str) -> TapeError:
    """The error of a tape that somebody else has locked for longer than was waited."""
    return TapeError(f"{path} is locked by another program; try again when that has finished")


def tape_format(connection: sqlite3.Connection) -> int:
    """Format of an open tape; higher than `FORMAT` where a newer version of tokentape wrote it."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _closed_if_it_fails(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        connection.close()
        if is_damage(error):
            raise damaged(path, error) from error
        raise TapeError(f"{path} cannot be written ({error}); free it, or choose another file") from error
    except BaseException:
        connection.close()
        raise


def _make_folder(path: Path) -> None:
    _refuse_folder(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(path, error) from error


def _make_file(path: Path) -> None:
    try:
        # By us and not by SQLite so that it is private from its first byte; -wal and -shm take over its mode.
        files.make(path)
    except OSError as error:
        raise _cannot_be_made(path, error) from error
    for needed in (path, path.parent):
        if not os.access(needed, os.W_OK):
            raise TapeError(f"{path} cannot be written (no permission for {needed}); choose another file")


def _cannot_be_made(path: Path, error: OSError) -> TapeError:
    return TapeError(f"{path} cannot be made ({error.strerror}: {error.filename}); choose another file")


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise NotATape(f"{path} is a folder; name a file in it, such as {path / 'tape.db'}")


def _connect(path: Path, mode: str, busy_ms: int, more: str = "") -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}{more}",
            uri=True,
            timeout=busy_ms / 1000,
            isolation_level=None,  # transactions are begun by us, and always IMMEDIATE
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise TapeError(f"{path} cannot be opened ({error}); choose another file") from error


def _readable(path: Path, busy_ms: int) -> tuple[sqlite3.Connection, str]:
    """A connection that reads, and what had to be added to its address for that."""
    connection = _connect(path, "ro", busy_ms)
    try:
        _count_tables(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        if is_busy(error):
            raise locked(path) from error
        wal = Path(f"{path}-wal")
        if wal.exists() and wal.stat().st_size:
            raise TapeError(
                f"{path} cannot be read ({error}): {wal.name} beside it needs a folder that can be written; "
                "copy both files to one, and read them there"
            ) from error
        # Reading in WAL mode writes -shm. Where that is not possible nobody else can write either.
        return _connect(path, "ro", busy_ms, IMMUTABLE), IMMUTABLE
    except sqlite3.DatabaseError:
        pass  # told apart below, with a message that says what it is
    return connection, ""


def _identify(connection: sqlite3.Connection, path: Path | str) -> int:
    """Format of the tape; 0 for an empty database, which may become one."""
    application = None
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = _count_tables(connection)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        if application == APPLICATION_ID or was_a_tape(Path(path)):
            raise damaged(path, error) from error
        raise NotATape(f"{path} is not an SQLite database; choose another file") from error
    if application != APPLICATION_ID and (application or tables):
        raise NotATape(f"{path} is a database of another application; choose another file")
    return tape_format(connection)


def was_a_tape(path: Path) -> bool:
    """Whether a file that SQLite cannot open was a tape, by what is left of it."""
    return header.looks_like_a_tape(path, APPLICATION_ID, TELLING_TABLE)


def _count_tables(connection: sqlite3.Connection) -> int:
    try:
        return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except UnicodeDecodeError as error:
        # SQLite quotes what it found in place of a name, and Python cannot read that.
        found = sqlite3.DatabaseError("malformed database schema")
        found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise found from error


def _writable_format(connection: sqlite3.Connection, path: Path) -> int:
    found = _identify(connection, path)
    if found > FORMAT:
        raise newer(path)
    return found


def newer(path: Path | str) -> NewerTape:
    """The error of a tape that a newer version of tokentape wrote."""
    return NewerTape(f"{path} was written by a newer version of tokentape; upgrade with: pip install -U tokentape")


def _has_views(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    return set(VIEWS) <= {name for (name,) in found}


def _migrate(connection: sqlite3.Connection, path: Path, busy_ms: int) -> None:
    """Bring a tape up to date in one transaction; another process may do so at the same time."""
    from sqlite_utils import Database

    # Both have to be set before the first page is written, and neither can be inside a transaction.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _switch_to_wal(connection, busy_ms)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _writable_format(connection, path) < FORMAT:
            migrations().apply(Database(connection, recursive_triggers=False, execute_plugins=False))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection, busy_ms: int) -> None:
    # SQLite does not wait here when another connection holds the write lock: it fails at once, whatever the timeout.
    deadline = time.monotonic() + busy_ms / 1000
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
