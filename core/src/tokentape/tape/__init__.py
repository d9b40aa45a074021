# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""The read side: what is on a tape, for the command line, for the API and its pages, and for programs of one's own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..errors import TapeError
from ..store import schema
from ..store.lost import gone_processes, mark_lost
from .calls import named
from .events import Columns, Event
from .live import Came, Change, Ended, Happened, Live, Position, Started
from .reader import Row, file_of
from .stats import Stats
from .timeline import Timelines

__all__ = ["Came", "Change", "Columns", "Ended", "Event", "Happened", "Position", "Row", "Started", "Tape", "named"]

# How long marking lost calls may wait for other writers; whoever opens the tape next tries again.
MARK_BUSY_MS: Final = 500
COUNTED_TABLES: Final = ("processes", "runs", "llm_calls", "llm_parts", "llm_tokens", "llm_stalls", "marks")


class Tape(Timelines, Stats, Live):
    """An open tape. Use it as a context manager, or close it.

    A call whose process is gone is lost, whether or not that was noted; the numbers of one that has no end are those so
    far. Nothing but `mark_lost` ever writes.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, name: str, *, is_ours: bool) -> None:
        super().__init__(connection, path, name)
        self._is_ours = is_ours

    @classmethod
    def open(cls, path: Path | str, *, busy_ms: int = schema.OPEN_BUSY_MS) -> Self:
        """Open a tape to read it; others may write to it meanwhile.

        Args:
            path: where it is.
            busy_ms: how long a question waits for somebody who has locked the tape.

        Raises:
            TapeError: there is no tape at this path, or it cannot be read.
        """
        return cls(schema.open_for_reading(Path(path), busy_ms=busy_ms).conn, Path(path), str(path), is_ours=True)

    @classmethod
    def over(cls, connection: sqlite3.Connection) -> Self:
        """Read a tape over a connection that somebody else opened, uses, and closes.

        Args:
            connection: to a tape; its row factory may be any whose rows can be iterated, such as `sqlite3.Row`.

        Raises:
            TapeError: its database is no tape, or cannot be read.
        """
        path = file_of(connection)
        # Who reads the messages is not known here, and need not know folders.
        schema.check_readable(connection, path.name)
        return cls(connection, path, path.name, is_ours=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; a connection that belongs to somebody else stays open."""
        if self._is_ours:
            self._connection.close()

    @property
    def is_snapshot(self) -> bool:
        """Whether it is one file without WAL, which nobody records to and nothing is noted in."""
        return bool(self._rows("PRAGMA journal_mode")[0]["journal_mode"] != "wal")

    def totals(self) -> Row:
        """How much is on the tape.

        Returns:
            Rows of each table; events that were dropped; calls of which events were removed to keep the tape at its
            size; bytes on disk with what is not yet merged.
        """
        counts = {table: self._rows(f"SELECT count(*) AS rows FROM {table}")[0]["rows"] for table in COUNTED_TABLES}
        dropped = self._rows("SELECT coalesce(sum(dropped_count), 0) AS events FROM llm_calls")[0]["events"]
        files = (self.path, Path(f"{self.path}-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        thinned = self._rows("SELECT count(*) AS calls FROM llm_calls WHERE events_kept = 'aggregated'")[0]["calls"]
        return {"rows": counts, "dropped_events": dropped, "thinned_calls": thinned, "bytes": size}

    def mark_lost(self) -> int:
        """Mark what dead processes left running as `lost`, in one short write.

        Returns:
            How many calls were marked; 0 also where the tape cannot be written, or is damaged: other questions say so.
        """
        try:
            if self.is_newer or self.is_snapshot or not gone_processes(self._connection):
                return 0
            with closing(schema.open_for_writing(self.path, busy_ms=MARK_BUSY_MS)) as connection:
                return mark_lost(connection)
        except (TapeError, sqlite3.DatabaseError):
            return 0
