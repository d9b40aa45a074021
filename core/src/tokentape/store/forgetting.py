# ruff: noqa: S608  # put together from constants; values are bound
"""Removes calls, runs and marks from a tape for good: afterwards their bytes are in neither its file nor its WAL."""

from __future__ import annotations

import json
import mmap
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..clock import utc_text
from ..errors import StillRunning, TapeError
from ..process import is_alive
from . import schema
from .choice import INSIDE, Choice, chosen_calls, contains

# How long writers, and readers that hold the WAL, are waited for.
BUSY_MS: Final = 10_000

_RUNS: Final = f"""
WITH RECURSIVE {INSIDE.format(db="main")}
SELECT r.id FROM runs r
WHERE :calls IS NULL
  AND (:run IS NULL OR r.id IN (SELECT id FROM inside))
  AND (:before_us IS NULL OR r.started_at < :before AND r.status <> 'running')
  AND (:text IS NULL OR {{contains}})
  AND NOT EXISTS (
    SELECT 1 FROM llm_calls c WHERE c.run_id = r.id AND c.id NOT IN (SELECT value FROM json_each(:chosen))
  )
"""
_MARKS: Final = f"""
WITH RECURSIVE {INSIDE.format(db="main")}
SELECT m.id FROM marks m
WHERE m.call_id IN (SELECT value FROM json_each(:chosen)) OR m.run_id IN (SELECT value FROM json_each(:runs))
  OR :calls IS NULL
    AND (:run IS NULL OR m.run_id IN (SELECT id FROM inside))
    AND (:before_us IS NULL OR m.started_unix_us < :before_us)
    AND (:text IS NULL OR {{contains}})
"""
_PROCESSES: Final = """
SELECT * FROM processes p
WHERE NOT EXISTS (SELECT 1 FROM llm_calls c WHERE c.process_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.process_id = p.id)
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be forgotten, or has been: row ids, and how many token events the calls have on the tape."""

    calls: Sequence[int]
    runs: Sequence[int]
    marks: Sequence[int]
    events: int

    def __bool__(self) -> bool:
        return bool(self.calls or self.runs or self.marks)


def find(connection: sqlite3.Connection, choice: Choice) -> Found:
    """What a choice means.

    Raises:
        StillRunning: something of it is still running.
    """
    calls = chosen_calls(connection, choice)
    before = None if choice.before_us is None else utc_text(choice.before_us)
    values = choice.values() | {"chosen": json.dumps(calls), "before": before}
    runs = _ids(connection, _RUNS.format(contains=_contains_run(connection)), values)
    marks = _ids(
        connection, _MARKS.format(contains=contains(connection, "marks", "m")), values | {"runs": json.dumps(runs)}
    )
    _refuse_running(connection, "llm_calls", "call", calls)
    _refuse_running(connection, "runs", "run", runs)
    counted = "SELECT count(*) FROM llm_tokens WHERE call_id IN (SELECT value FROM json_each(?))"
    return Found(calls, runs, marks, connection.execute(counted, [json.dumps(calls)]).fetchone()[0])


def preview(path: Path, choice: Choice) -> Found:
    """What would be removed.

    Raises:
        StillRunning: something of it is still running.
        TapeError: the tape cannot be read.
    """
    with closing(schema.open_for_reading(path).conn) as connection:
        return find(connection, choice)


def forget(path: Path, choice: Choice, *, single_file: bool = False) -> Found:
    """Remove what is meant, all of it or nothing, and write the file anew.

    Meanwhile whoever records holds what comes, as whenever a tape cannot be written.

    Args:
        path: the tape.
        choice: what is meant.
        single_file: the tape is a snapshot, and is to stay without WAL.

    Returns:
        What was removed.

    Raises:
        StillRunning: something of it is still running; nothing was removed.
        TapeError: the tape cannot be written; or the rows are gone, and the file could not be cleaned of their bytes.
    """
    with closing(schema.open_for_writing(path, busy_ms=BUSY_MS)) as connection:
        if not _merge(connection):
            raise TapeError(
                f"{path} is read or written by another program that does not let go: nothing was forgotten; "
                "try again when it has finished"
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = find(connection, choice)
            _delete(connection, found)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        _clean(connection, path)
        if single_file:
            connection.execute("PRAGMA journal_mode = DELETE")
    if choice == Choice(text=choice.text) and choice.text is not None and _holds(path, choice.text):
        raise TapeError(
            f"{path} still has the text {choice.text!r} somewhere, although no row of a call, run or mark has; "
            "what every tape has may contain it, else look with: grep -a"
        )
    return found


def _delete(connection: sqlite3.Connection, found: Found) -> None:
    for table, ids in (("marks", found.marks), ("llm_calls", found.calls), ("runs", found.runs)):
        connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(ids)])
    cursor = connection.execute(_PROCESSES)
    names = [column[0] for column in cursor.description]
    unused = [dict(zip(names, row, strict=True)) for row in cursor]
    gone = [row["id"] for row in unused if not is_alive(row)]
    connection.execute("DELETE FROM processes WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(gone)])


def _clean(connection: sqlite3.Connection, path: Path) -> None:
    """Leave nothing of what was deleted in the file and its WAL."""
    try:
        # `secure_delete` overwrites rows, not the copies that were left when pages were split or joined: new pages have
        # none of either.
        connection.execute("VACUUM")
        why = None if _merge(connection) else "another program is reading it"
    except sqlite3.OperationalError as error:
        why = str(error)
    if why is not None:
        raise TapeError(
            f"{path}: the rows are gone, but the file could not be written anew ({why}), and bytes of them are left; "
            "see to that, then: tokentape forget --before 1970-01-01 --yes"
        )


def _merge(connection: sqlite3.Connection) -> bool:
    """Bring everything from the WAL into the file, and empty it; False where somebody holds it."""
    return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def _contains_run(connection: sqlite3.Connection) -> str:
    process = contains(connection, "processes", "o")
    own = contains(connection, "runs", "r")
    return f"({own} OR EXISTS (SELECT 1 FROM processes o WHERE o.id = r.process_id AND ({process})))"


def _refuse_running(connection: sqlite3.Connection, table: str, what: str, ids: Sequence[int]) -> None:
    asked = f"SELECT uid, name FROM {table} WHERE status = 'running' AND id IN (SELECT value FROM json_each(?)) LIMIT 1"
    found = connection.execute(asked, [json.dumps(ids)]).fetchone()
    if found is not None:
        raise StillRunning(
            f"{what} {found[0]} ({found[1]}) is still running: nothing was forgotten; try again when it has ended"
        )


def _ids(connection: sqlite3.Connection, sql: str, values: dict[str, Any]) -> list[int]:
    return [row_id for (row_id,) in connection.execute(sql, values)]


def _holds(path: Path, text: str) -> bool:
    """Whether the raw bytes of a tape have a text in them.

    For a process that does not record to it: closing the file drops the locks that a process has on it.
    """
    pattern = re.compile(re.escape(text.encode("utf-8", "replace")), re.IGNORECASE)
    return any(pattern.search(content) is not None for content in _contents(path))


def _contents(path: Path) -> Iterator[mmap.mmap]:
    for file in (path, Path(f"{path}-wal")):
        if file.exists() and file.stat().st_size:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
