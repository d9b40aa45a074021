"""Commits what is to be written in one transaction a batch, and keeps it while the database cannot be written."""

from __future__ import annotations

import logging
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
from ..errors import TapeError
from ..models import Process
from . import lost, schema, writes
from .retention import Retention

logger = logging.getLogger(__name__)

# `processes.last_seen_at` is at most this old: beside other writes, and while nothing else is written.
SEEN_EVERY_S: Final = 5.0
SEEN_IDLE_S: Final = 60.0
# How long a fork, or the end of recording, waits for a commit that is under way.
WAIT_S: Final = 1.0

Write = Callable[[writes.Transaction], object]

# Connections that came over a fork: closing one, if only by collecting it, would touch locks that are the parent's.
_inherited: list[sqlite3.Connection] = []


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

    Attributes:
        round: goes up whenever operations that were held are held no more.
    """

    def __init__(self, path: Path, process: Process, *, busy_ms: int, retention: Retention) -> None:
        self.operations: list[Operation] = []
        self.pending_events = 0
        self.given_up_events = 0
        self.last_error: str | None = None
        self.last_commit_at: str | None = None
        self.round = 0
        self._path = path
        self._process = process
        self._busy_ms = busy_ms
        self._retention = retention
        self._process_id: int | None = None
        self._calls: dict[str, writes.CallRow | None] = {}
        self._runs: dict[str, bool | None] = {}
        self._seen_s = 0.0
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
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

    def commit(self) -> None:
        """Write everything that is held; if the database cannot be written, say so once and keep it."""
        heard_of_s = time.monotonic() - self._seen_s
        if not self.operations and (self._process_id is None or heard_of_s < SEEN_IDLE_S):
            if self._retention.is_due:
                self._look()
                self._retain()
            return
        with self._lock:
            try:
                connection = self._connected()
                while (failed := self._commit(connection)) is not None:
                    self._give_up(*failed)
            except (sqlite3.Error, TapeError, OSError) as error:
                self._failed(error)
            else:
                self._worked()
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

    def _connected(self) -> sqlite3.Connection:
        """The connection; opened anew if it was closed, or if the file at the path is another one by now."""
        if self._connection is not None and self._file != self._look():
            self._disconnect()
        if self._connection is None:
            self._connection = schema.open_for_writing(self._path, busy_ms=self._busy_ms)
            self._retention.prepare(self._connection)
            # It may be a new file, which knows nothing of all this.
            self._process_id, self._calls, self._runs = None, {}, {}
            self._file = self._look()
        return self._connection

    def _commit(self, connection: sqlite3.Connection, *, gathers: bool = True) -> tuple[Operation, Exception] | None:
        """Write everything in one transaction.

        Args:
            gathers: whether operations may be written together; if not, it is known which could not be written.

        Returns:
            The operation that could not be written whatever the state of the database, and why; then nothing is.
        """
        operation: Operation | None = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            process_id = self._note_process(connection)
            to = writes.Transaction(
                connection, process_id, ChainMap({}, self._calls), ChainMap({}, self._runs), gathers
            )
            for operation in self.operations:
                operation.write(to)
                give_way()
            writes.put_gathered(to)
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if operation is None or _is_outage(error):
                raise
            return self._commit(connection, gathers=False) if gathers else (operation, error)
        self._settle(to)
        return None

    def _look(self) -> tuple[int, int] | None:
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
            if self._connection is not None and self.last_error is None:
                with faults.guard("store", "keeping the tape at its size"):
                    self._retention.step(self._connection, self._size)

    def _settle(self, committed: writes.Transaction) -> None:
        self.operations, self.pending_events = [], 0
        self.round += 1
        _keep(committed.calls)
        _keep(committed.runs)
        starting, self._process_id = self._process_id is None, committed.process_id
        if starting:
            # Whatever other processes have left on the tape: what is ours has been written.
            with faults.guard("store", "what became of calls of dead processes"):
                lost.mark_lost(committed.connection, ours=committed.process_id)

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

    def _failed(self, error: Exception) -> None:
        if not schema.is_busy(error):
            self._disconnect()
        if self.last_error is None:
            logger.warning(
                "%s cannot be written (%s); what is recorded is held until it can. The program goes on.",
                self._path,
                error,
            )
        self.last_error = str(error)

    def _worked(self) -> None:
        self.last_commit_at = _now()
        if self.last_error is not None:
            self.last_error = None
            logger.warning("%s can be written again.", self._path)

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


def _is_outage(error: Exception) -> bool:
    """Whether it is the database that cannot be written, and not one operation that cannot be stored."""
    return type(error) in {sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError, MemoryError}
