"""Commits what is to be written, in order and each thing once, and keeps it while the database cannot be written."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import faults
from ..clock import utc_text
from ..courtesy import give_way
from ..errors import DamagedTape, TapeError
from ..models import Process
from . import files, lost, schema, writes
from .retention import Retention
from .trouble import Trouble

# `processes.last_seen_at` is at most this old: beside other writes, and while nothing else is written.
SEEN_EVERY_S: Final = 5.0
SEEN_IDLE_S: Final = 60.0
# How long a fork, or the end of recording, waits for a commit that is under way.
WAIT_S: Final = 1.0
# Events, and things to be written, of one transaction. While the database cannot be written, so few are tried that a
# large backlog does not keep the interpreter from the program at each round.
COMMIT_EVENTS: Final = 10_000
TRIED_EVENTS: Final = 500
# How often a commit is begun again at once because the file was damaged, or moved while it was written.
ATTEMPTS: Final = 3

Write = Callable[[writes.Transaction], object]

# Connections that came over a fork: closing one, if only by collecting it, would touch locks that are the parent's.
_inherited: list[sqlite3.Connection] = []


class _Moved(TapeError):
    """The file at the path has become another one while it was written to: nothing of that counts."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was moved or replaced while it was written")


@dataclass(slots=True, eq=False)
class Operation:
    """Something to be written, which can be tried again from its start.

    Attributes:
        write: writes it into a transaction.
        what: how it is named when it is lost.
        events: how many token events it holds.
    """

    write: Write
    what: str
    events: int = 0


class Committer:
    """Holds operations in order and commits them, all or none.

    Args:
        path: the tape.
        process: who writes.
        busy_ms: how long one commit waits for other writers.
        retention: keeps the tape at its size, between commits.
        go_on: writes what is under way into a file that does not have it, at the beginning of a transaction.

    Attributes:
        round: goes up whenever operations that were held are held no more.
        trouble: what keeps the tape from being written.
    """

    def __init__(
        self,
        path: Path,
        process: Process,
        *,
        busy_ms: int,
        retention: Retention,
        go_on: Write = lambda to: None,
    ) -> None:
        self.operations: list[Operation] = []
        self.pending_events = 0
        self.given_up_events = 0
        self.last_commit_at: str | None = None
        self.round = 0
        self.trouble = Trouble(path)
        self._path = path
        self._process = process
        self._busy_ms = busy_ms
        self._retention = retention
        self._go_on = go_on
        self._process_id: int | None = None
        self._calls: dict[str, writes.CallRow | None] = {}
        self._runs: dict[str, bool | None] = {}
        self._elsewhere: dict[str, int] = {}
        self._seen_s = 0.0
        self._connection: sqlite3.Connection | None = None
        self._file: files.Identity | None = None
        self._tried: files.Identity | None = None
        self._is_gone = False
        self._size = 0
        self._lock = threading.Lock()
        self._forking: int | None = None

    def add(self, operation: Operation) -> None:
        """Hold an operation for the next commit."""
        self.operations.append(operation)
        self.pending_events += operation.events

    def grow(self, operation: Operation, events: int) -> None:
        """Note that an operation that is held, has got so many more events."""
        operation.events += events
        self.pending_events += events

    def open(self) -> None:
        """Make sure that the tape can be written, and let go of it again; one that is damaged is set aside.

        One that is locked, or full, will be written later.

        Raises:
            TapeError: it is none, or cannot be written.
        """
        with self._lock:
            try:
                try:
                    self._connected(schema.OPEN_BUSY_MS)
                except DamagedTape as error:
                    if not self._set_aside(error):
                        raise
                    self._connected(schema.OPEN_BUSY_MS)
            except TapeError as error:
                if not schema.is_passing(error):
                    raise
                self._failed(error)
            self._disconnect()

    def commit(self) -> None:
        """Write everything that is held; if the database cannot be written, say so once and keep it."""
        heard_of_s = time.monotonic() - self._seen_s
        if not self.operations and (self._process_id is None or heard_of_s < SEEN_IDLE_S):
            if self._retention.is_due:
                self._look()
                self._retain()
            return
        with self._lock:
            self._try()
        self._retain()

    def close(self) -> None:
        """Close the tape; a commit that is stuck in the database keeps its connection until the process ends."""
        if self._lock.acquire(timeout=WAIT_S):
            self._disconnect()
            self._lock.release()

    def before_fork(self) -> None:
        """Close the connection and hold still, until `after_fork_in_parent`, so that a child inherits none."""
        if self._lock.acquire(timeout=WAIT_S):
            self._forking = threading.get_ident()
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on after a fork; the next commit opens the tape again."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._lock.release()

    def abandon(self) -> None:
        """Leave everything to the parent, in a forked child."""
        if self._connection is not None:
            _inherited.append(self._connection)

    def _connected(self, busy_ms: int | None = None) -> sqlite3.Connection:
        """The connection; opened anew if it was closed, or if the file at the path is another one by now."""
        self._tried = found = self._look()
        if self._connection is not None and self._file != found:
            self._disconnect()
            # Forgotten: once it is closed, a new file may get its number.
            self._file, self._is_gone = None, True
        if self._connection is None:
            self._connection = schema.open_for_writing(self._path, busy_ms=busy_ms or self._busy_ms)
            opened = self._look()
            if found not in {None, opened}:
                self._disconnect()
                raise _Moved(self._path)
            if self._is_gone or self._file not in {None, opened}:
                self._is_gone = False
                self.trouble.say_gone()
            self._retention.prepare(self._connection)
            self._know_nothing_of(opened)
        return self._connection

    def _know_nothing_of(self, file: files.Identity | None) -> None:
        """Begin with a file that may be a new one, which has nothing of what was committed so far."""
        for uid, row in self._calls.items():
            if row is not None:
                self._elsewhere[uid] = row.missing + row.next_index
        self._process_id, self._calls, self._runs, self._file = None, {}, {}, file

    def _try(self) -> None:
        """Write everything that is held, to a new tape where the one that is there turns out to be damaged."""
        problem: Exception | None = None
        for _ in range(ATTEMPTS):
            problem = self._tried_all()
            if problem is None:
                self.last_commit_at = _now()
                self.trouble.end()
                return
            if not isinstance(problem, _Moved) and not self._set_aside(problem):
                break
        if problem is not None:
            self._failed(problem)

    def _tried_all(self) -> Exception | None:
        """Write everything that is held; what kept it from being written."""
        try:
            self._commit_all()
        except (sqlite3.Error, TapeError, OSError) as error:
            return error
        return None

    def _commit_all(self) -> None:
        """Write everything that is held, in one transaction after the other.

        Raises:
            sqlite3.Error, TapeError, OSError: the database cannot be written; what is committed is not held any more.
        """
        most = COMMIT_EVENTS if self.trouble.error is None else TRIED_EVENTS
        connection = self._connected()
        is_first = self._process_id is None
        while True:
            piece = self._first(most)
            failed = self._commit(connection, piece)
            if failed is not None:
                self._give_up(*failed)
                continue
            self._settle(piece)
            if not self.operations:
                break
            most = COMMIT_EVENTS
        if is_first:
            # Whatever other processes have left on the tape: what is ours has been written.
            with faults.guard("store", "what became of calls of dead processes"):
                lost.mark_lost(connection, ours=self._process_id)

    def _first(self, most: int) -> list[Operation]:
        """Operations from the front, as many as fit in one transaction."""
        size = 0
        for count, operation in enumerate(self.operations):
            size += 1 + operation.events
            if count and size > most:
                return self.operations[:count]
        return self.operations

    def _commit(
        self, connection: sqlite3.Connection, piece: list[Operation], *, gathers: bool = True
    ) -> tuple[Operation, Exception] | None:
        """Write operations in one transaction.

        Args:
            gathers: whether operations may be written together; if not, it is known which could not be written.

        Returns:
            The operation that could not be written whatever the state of the database, and why; then nothing is.
        """
        operation: Operation | None = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            to = self._begun(connection, gathers)
            for operation in piece:
                operation.write(to)
                give_way()
            writes.put_gathered(to)
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if operation is None or is_outage(error):
                raise
            return self._commit(connection, piece, gathers=False) if gathers else (operation, error)
        if self._look() != self._file:
            raise _Moved(self._path)
        self._learn(to)
        return None

    def _begun(self, connection: sqlite3.Connection, gathers: bool) -> writes.Transaction:
        if schema.tape_format(connection) > schema.FORMAT:
            raise schema.newer(self._path)
        is_first = self._process_id is None
        process_id = self._note_process(connection)
        to = writes.Transaction(
            connection, process_id, ChainMap({}, self._calls), ChainMap({}, self._runs), self._elsewhere, gathers
        )
        # Before the first commit all that is under way is held, in the order it began.
        if is_first and self.last_commit_at is not None:
            self._go_on(to)
        return to

    def _look(self) -> files.Identity | None:
        """Which file is at the path, and how large it is."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        self._size = stat.st_size
        return stat.st_dev, stat.st_ino

    def _retain(self) -> None:
        """Keep the tape at its size, for a moment; what is left to do then is due after the next commit."""
        with self._lock:
            if self._connection is not None and self.trouble.error is None:
                with faults.guard("store", "keeping the tape at its size"):
                    self._retention.step(self._connection, self._size)

    def _settle(self, piece: list[Operation]) -> None:
        """Hold operations no more, which have been committed."""
        self.operations = self.operations[len(piece) :]
        self.pending_events -= sum(operation.events for operation in piece)
        self.round += 1

    def _learn(self, committed: writes.Transaction) -> None:
        """Take over what a transaction that was committed knows of the tape."""
        for uid in [uid for uid, row in committed.calls.maps[0].items() if row is None]:
            self._elsewhere.pop(uid, None)
        _keep(committed.calls)
        _keep(committed.runs)
        self._process_id = committed.process_id

    def _note_process(self, connection: sqlite3.Connection) -> int:
        now_s = time.monotonic()
        if self._process_id is None:
            self._seen_s = now_s
            return writes.enter_process(connection, self._process, _now())
        if now_s - self._seen_s > SEEN_EVERY_S:
            self._seen_s = now_s
            writes.saw_process(connection, self._process_id, _now())
        return self._process_id

    def _give_up(self, operation: Operation, error: Exception) -> None:
        self.operations = [held for held in self.operations if held is not operation]
        self.round += 1
        self.pending_events -= operation.events
        self.given_up_events += operation.events
        faults.report("store", error, operation.what)

    def _set_aside(self, error: Exception) -> bool:
        """Set the file aside if it is a tape that is damaged; whether another one, or none, is at its path now."""
        # Which file it was that could not be opened: what is at the path now may be another one already.
        seen = self._file if self._connection is not None else self._tried
        # It was a tape if it says so, or if it is the one that was written to, whatever has become of it.
        is_ours = seen == self._file or isinstance(error, DamagedTape)
        if seen is None or not is_ours or not self.trouble.set_aside(seen, error):
            return False
        self._disconnect()
        self._file = None
        return True

    def _failed(self, error: Exception) -> None:
        if not schema.is_busy(error):
            self._disconnect()
        self.trouble.begin(error)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # a damaged file cannot be closed in good order


def _keep(known: ChainMap[str, Any]) -> None:
    """Take over what a transaction has learned of the tape, without what has ended."""
    learned, kept = known.maps
    kept.update(learned)
    for uid in [uid for uid, value in learned.items() if value is None]:
        del kept[uid]


def _now() -> str:
    return utc_text(time.time_ns() // 1000)


def is_outage(error: Exception) -> bool:
    """Whether it is the database that cannot be written, and not one operation that cannot be stored."""
    return type(error) in {sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError, MemoryError}
