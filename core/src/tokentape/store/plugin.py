"""The SQLite store: a plugin like any other output. It gathers what the hooks bring and commits it batch by batch."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from .. import faults
from ..clock import utc_text
from ..errors import TapeError
from ..hookspecs import hookimpl
from ..models import Call, FinishedCall, Mark, Process, Run, TokenBatch
from . import lost, rows, schema, writes
from .text import CallText

logger = logging.getLogger(__name__)

BUSY_MS: Final = 1000
# `processes.last_seen_at` is at most this old: beside other writes, and while nothing else is written.
SEEN_EVERY_S: Final = 5.0
SEEN_IDLE_S: Final = 60.0
# How long a fork waits for a commit that is under way.
FORK_WAIT_S: Final = 1.0

# Connections that came over a fork: closing one, if only by collecting it, would undo locks that are the parent's.
_inherited: list[sqlite3.Connection] = []


@dataclass(slots=True)
class _Operation:
    """Something to be written, which can be tried again; `events` is how many token events it holds."""

    write: Callable[[sqlite3.Connection, int], None]
    what: str
    events: int = 0


@dataclass(slots=True)
class _Live:
    """What is kept of a call while it runs; `text` is None where none is stored."""

    call: Call
    text: CallText | None
    dropped: int = 0


@dataclass(slots=True)
class _Health:
    """What `health()` tells beside the path."""

    last_error: str | None = None
    last_commit_at: str | None = None
    dropped_events: int = 0
    failing: bool = field(default=False)


class SQLiteStore:
    """Writes to one tape, from one thread at a time.

    What cannot be written is kept, and tried again whole at the next flush: nothing is raised for it.

    Args:
        path: the tape; made when it is missing.
        process: who writes.
        max_buffer: token events that are held while the database cannot be written; the newest beyond it are dropped.
        busy_ms: how long one flush waits for other writers.

    Raises:
        TapeError: the path cannot be used as a tape.
    """

    def __init__(self, path: Path, process: Process, *, max_buffer: int, busy_ms: int = BUSY_MS) -> None:
        self.path = path
        self._max_buffer = max_buffer
        self._busy_ms = busy_ms
        self._reset(process)
        # Closed again at once: a connection that exists when the program forks is trouble for the child.
        schema.open_for_writing(path).close()

    def _reset(self, process: Process) -> None:
        self._process = process
        self._process_id: int | None = None
        self._seen_s = 0.0
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._operations: list[_Operation] = []
        self._runs: dict[str, Run] = {}
        self._live: dict[str, _Live] = {}
        self._health = _Health()
        self._lock = threading.Lock()
        self.pending_events = 0

    def health(self) -> dict[str, Any]:
        """How the store is: path, last error while it fails, what is held and what was dropped, last commit."""
        return {
            "path": str(self.path),
            "last_error": self._health.last_error,
            "pending_events": self.pending_events,
            "dropped_events": self._health.dropped_events,
            "last_commit_at": self._health.last_commit_at,
        }

    @hookimpl
    def tokentape_run_started(self, run: Run) -> None:
        """Add the run."""
        self._runs[run.uid] = run
        self._add("a run", partial(writes.open_run, run=run))

    @hookimpl
    def tokentape_run_finished(self, run: Run) -> None:
        """Note how the run ended."""
        self._runs.pop(run.uid, None)
        self._add("the end of a run", partial(writes.close_run, run=run))

    @hookimpl
    def tokentape_mark(self, mark: Mark) -> None:
        """Add the mark."""
        self._add("a mark", lambda connection, _: writes.add_mark(connection, mark))

    @hookimpl
    def tokentape_call_started(self, call: Call) -> None:
        """Add the call."""
        if not self._has_room():
            return
        keeps_text = call.sampled and call.content_level != "timings"
        self._live[call.uid] = _Live(call, CallText() if keeps_text else None)
        self._add("a call", partial(writes.open_call, call=call))

    @hookimpl
    def tokentape_tokens(self, call: Call, tokens: TokenBatch) -> None:
        """Add the events behind those that the call has; beyond the buffer they are dropped and counted."""
        live = self._live.get(call.uid)
        if live is None:
            self._health.dropped_events += len(tokens)
            return
        size = min(len(tokens), self._max_buffer - self.pending_events)
        if size < len(tokens) and call.sampled:
            live.dropped += len(tokens) - size
            self._health.dropped_events += len(tokens) - size
        if size or tokens.parts:
            events = _events(live, tokens, size)
            self._add("token events", lambda connection, _: writes.add_events(connection, call.uid, events), size)

    @hookimpl
    def tokentape_call_finished(self, call: FinishedCall) -> None:
        """Note how the call ended, with its numbers, parts and stalls."""
        live = self._live.pop(call.uid, None)
        if live is None:
            return
        halves = live.text.rest() if live.text is not None else []
        content = {p.part: live.text.content(p.part) for p in call.parts} if live.text is not None else None
        dropped = live.dropped
        self._add(
            "the end of a call",
            lambda connection, _: writes.close_call(connection, call, content, halves, dropped),
        )

    @hookimpl
    def tokentape_flush(self) -> None:
        """Commit everything in one transaction; keep it if that is not possible."""
        idle_s = SEEN_EVERY_S if self._operations else SEEN_IDLE_S
        heard_of = self._process_id is not None and time.monotonic() - self._seen_s > idle_s
        if self._operations or heard_of:
            with self._lock:
                self._try_commit()

    @hookimpl
    def tokentape_shutdown(self) -> None:
        """Close the tape; what could not be written until now is lost."""
        if self.pending_events:
            logger.warning("%s: %d token events could not be written", self.path, self.pending_events)
        # A flush that is stuck in the database keeps its connection: it ends with the process.
        if self._lock.acquire(timeout=FORK_WAIT_S):
            self._disconnect()
            self._lock.release()

    def before_fork(self) -> None:
        """Close the connection, so that a forked child inherits none; the next flush opens it again.

        A child's SQLite would take the locks of an inherited connection for its own, not lock the file itself, and
        lose what it commits when the parent closes it.
        """
        if self._lock.acquire(timeout=FORK_WAIT_S):
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on after a fork."""
        if self._lock.locked():
            self._lock.release()

    def after_fork(self, process: Process) -> None:
        """Start anew in a forked child: what the parent holds, the parent writes."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._reset(process)

    def _has_room(self) -> bool:
        return len(self._operations) <= self._max_buffer

    def _add(self, what: str, write: Callable[[sqlite3.Connection, int], None], events: int = 0) -> None:
        self._operations.append(_Operation(write, what, events))
        self.pending_events += events

    def _try_commit(self) -> None:
        try:
            connection = self._connected()
            while (failed := self._commit(connection)) is not None:
                self._give_up(*failed)
        except (sqlite3.Error, TapeError, OSError) as error:
            self._failed(error)
        else:
            self._worked()

    def _connected(self) -> sqlite3.Connection:
        """The connection; opened anew if it was closed, or if the file at the path is another one by now."""
        if self._connection is not None and self._file != _identity(self.path):
            self._disconnect()
        if self._connection is None:
            self._connection = schema.open_for_writing(self.path, busy_ms=self._busy_ms)
            self._file = _identity(self.path)
            self._process_id = None
            # On a new file, what is open has to be announced again; on the old one this changes nothing.
            again = [_Operation(partial(writes.open_run, run=run), "a run") for run in self._runs.values()]
            again += [_Operation(partial(writes.open_call, call=v.call), "a call") for v in self._live.values()]
            self._operations[:0] = again
        return self._connection

    def _commit(self, connection: sqlite3.Connection) -> tuple[_Operation, Exception] | None:
        """Write everything in one transaction.

        Returns:
            The operation that cannot be written whatever the state of the database; then nothing is.
        """
        connection.execute("BEGIN IMMEDIATE")
        operation: _Operation | None = None
        try:
            new_process = self._process_id is None
            process_id = self._note_process(connection)
            for operation in self._operations:
                operation.write(connection, process_id)
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if operation is None or _is_outage(error):
                raise
            return operation, error
        self._process_id = process_id
        self._operations = []
        self.pending_events = 0
        if new_process:
            lost.mark_lost(connection)
        return None

    def _note_process(self, connection: sqlite3.Connection) -> int:
        process_id = self._process_id
        if process_id is None:
            process_id = writes.enter_process(connection, self._process)
        now = time.monotonic()
        if now - self._seen_s > SEEN_EVERY_S or self._process_id is None:
            writes.saw_process(connection, process_id, utc_text(time.time_ns() // 1000))
            self._seen_s = now
        return process_id

    def _give_up(self, operation: _Operation, error: Exception) -> None:
        self._operations.remove(operation)
        self.pending_events -= operation.events
        self._health.dropped_events += operation.events
        faults.report("store", error, operation.what)

    def _failed(self, error: Exception) -> None:
        if not _is_busy(error):
            self._disconnect()
        self._health.last_error = str(error)
        if not self._health.failing:
            self._health.failing = True
            logger.warning(
                "%s cannot be written (%s): holding up to %d token events until it can; the program is not affected.",
                self.path,
                error,
                self._max_buffer,
            )

    def _worked(self) -> None:
        self._health.last_commit_at = utc_text(time.time_ns() // 1000)
        if self._health.failing:
            self._health.failing, self._health.last_error = False, None
            logger.warning("%s can be written again; %d token events were dropped.", self.path, self._health.dropped_events)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # a damaged file cannot be closed in good order


def _events(live: _Live, tokens: TokenBatch, size: int) -> writes.Events:
    """Up to `size` events of a batch as they are stored."""
    last = live.call.started_unix_us + tokens.offset_us[size - 1] if size else None
    common = {
        "parts": tokens.parts,
        "seen": size,
        "last_event_at": utc_text(last) if last is not None else None,
        "dropped": live.dropped,
    }
    if not live.call.sampled:
        return writes.Events(**common)
    part = tokens.part[:size]
    token = tokens.token[:size]
    return writes.Events(
        offset_us=tokens.offset_us[:size],
        wait_us=tokens.wait_us[:size],
        part=part,
        token=live.text.take(part, token) if live.text is not None else [None] * size,
        n_tokens={i: n for i, n in tokens.n_tokens.items() if i < size and isinstance(n, int)},
        logprobs={i: rows.logprobs_json(value) for i, value in tokens.logprobs.items() if i < size},
        **common,
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_outage(error: Exception) -> bool:
    """Whether it is the database that cannot be written, and not one operation that cannot be stored."""
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError)
