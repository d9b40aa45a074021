"""The read side: what is on a tape, for the command line, for pages, and for programs of one's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from .errors import CallNotFound, TapeError
from .store import schema
from .store.lost import anyone_gone, mark_lost
from .store.text import storable
from .store.views import COUNTED

if TYPE_CHECKING:
    import sqlite_utils

Row = dict[str, Any]

# How long marking lost calls may wait for other writers; whoever opens the tape next tries again.
MARK_BUSY_MS: Final = 500
UID_CHARS: Final = 26
# How many of the calls that a reference could mean are named.
NAMED: Final = 5
COUNTED_TABLES: Final = ("processes", "runs", "llm_calls", "llm_parts", "llm_tokens", "llm_stalls", "marks")

# A run and everything inside it.
INSIDE: Final = """
WITH RECURSIVE inside(id) AS (
  SELECT id FROM runs WHERE uid = :run
  UNION SELECT runs.id FROM runs JOIN inside ON runs.parent_id = inside.id
)
"""
CALLS: Final = f"""{INSIDE}
SELECT * FROM calls
WHERE (:status IS NULL OR status = :status)
  AND (:model IS NULL OR call_id IN (SELECT id FROM llm_calls WHERE :model IN (request_model, response_model)))
  AND (:run IS NULL OR call_id IN (SELECT c.id FROM llm_calls c JOIN inside ON c.run_id = inside.id))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) wanted WHERE NOT EXISTS (
      SELECT 1 FROM call_labels l WHERE l.call_id = calls.call_id AND l.key = wanted.key AND l.value = wanted.value
    )
  )
LIMIT :limit
"""  # noqa: S608  # put together from constants

COUNTED_CALLS: Final = f"""{INSIDE},
counted AS (
  SELECT c.id, c.first_token_latency_ms FROM llm_calls c JOIN inside ON c.run_id = inside.id
  WHERE {COUNTED}
)
"""  # noqa: S608  # as above
RUN_SUMMARY: Final = """
SELECT count(*) AS call_count, max(first_token_latency_ms) AS slowest_first_token_ms FROM counted
"""
RUN_STALLS: Final = """
SELECT s.cause, count(*) AS stall_count, sum(s.gap_us) / 1000.0 AS gap_ms
FROM counted JOIN llm_stalls s ON s.call_id = counted.id
WHERE s.position <> 'first' GROUP BY s.cause ORDER BY gap_ms DESC
"""

CALL_TIMES: Final = f"""{INSIDE}
SELECT c.uid, c.status, c.started_unix_us,
  CASE
    WHEN c.status = 'running' THEN NULL
    WHEN c.duration_ms IS NOT NULL THEN c.started_unix_us + CAST(c.duration_ms * 1000 AS INTEGER)
    ELSE CAST(coalesce((julianday(c.last_event_at) - 2440587.5) * 86400000000.0, c.started_unix_us) AS INTEGER)
  END AS ended_unix_us
FROM llm_calls c JOIN inside ON c.run_id = inside.id
ORDER BY c.started_unix_us, c.id
"""  # noqa: S608  # as above


class Event(NamedTuple):
    """One token event: what one chunk added to one part. Times are microseconds, `offset_us` since the call started."""

    token_index: int
    offset_us: int
    wait_us: int
    part: int
    token: str | None
    n_tokens: int | None


class Tape:
    """An open tape. Use it as a context manager, or close it.

    Args:
        path: where the tape is.
        db: the database, open for reading.
    """

    def __init__(self, path: Path, db: sqlite_utils.Database) -> None:
        self.path = path
        self._db = db

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a tape to read it; others may write to it meanwhile.

        Raises:
            TapeError: there is no tape at this path, or it cannot be read.
        """
        return cls(Path(path), schema.open_for_reading(Path(path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    @property
    def is_newer(self) -> bool:
        """Whether a newer version of tokentape wrote this tape: it can be read, and not recorded to."""
        return schema.tape_format(self._db.conn) > schema.FORMAT

    def calls(
        self,
        limit: int = 20,
        *,
        labels: Mapping[str, str] | None = None,
        status: str | None = None,
        model: str | None = None,
        run: str | None = None,
    ) -> list[Row]:
        """Rows of the view `calls`, newest first.

        Args:
            limit: how many at the most; -1 for all.
            labels: only calls that have all of them.
            status: only calls with this status.
            model: only calls that asked for this model, or were answered by it.
            run: only calls of the run with this uid, and of the runs inside it.
        """
        wanted = {
            "status": status,
            "model": model,
            "run": run,
            "labels": json.dumps(dict(labels or {})),
            "limit": limit,
        }
        return self._rows(CALLS, {k: storable(v) if isinstance(v, str) else v for k, v in wanted.items()})

    def call(self, ref: str | int = "-1") -> Row:
        """The row of `llm_calls` that a reference means.

        Args:
            ref: a uid or the unique beginning of one, a row id, or `-1` for the newest call, `-2` for the one before.

        Raises:
            CallNotFound: no call answers to it, or more than one; the message says what to do.
        """
        asked = str(ref).strip()
        found = self._find(asked)
        if not found:
            raise CallNotFound(f"no call {asked!r} on {self.path}; see: tokentape list")
        if len(found) > 1:
            named = ", ".join(row["uid"] for row in found[:NAMED]) + (", …" if len(found) > NAMED else "")
            raise CallNotFound(f"{asked!r} could be any of {named}; give more of it")
        return found[0]

    def events(self, call_id: int) -> list[Event]:
        """The token events of a call, in the order they came."""
        with self._reading():
            found = self._db.execute(
                "SELECT token_index, offset_us, wait_us, part, token, n_tokens FROM llm_tokens "
                "WHERE call_id = ? ORDER BY token_index",
                [call_id],
            )
            return list(map(Event._make, found))

    def parts(self, call_id: int) -> list[Row]:
        """The parts of a call: number, kind, choice, provider's index, name, external id, content."""
        return self._rows(
            "SELECT p.part, k.name AS kind, p.choice, p.provider_index, p.name, p.external_id, p.content "
            "FROM llm_parts p JOIN token_kinds k ON k.id = p.kind_id WHERE p.call_id = ? ORDER BY p.part",
            [call_id],
        )

    def stalls(self, call_id: int) -> list[Row]:
        """The stalls of a call, in the order they happened."""
        return self._rows("SELECT * FROM llm_stalls WHERE call_id = ? ORDER BY token_index", [call_id])

    def run(self, ref: str | int) -> Row | None:
        """The row of the view `run_stats` for a run's uid or row id; None if there is no such run."""
        column = "run_id" if isinstance(ref, int) else "uid"
        found = self._rows(f"SELECT * FROM run_stats WHERE {column} = ?", [ref])  # noqa: S608  # one of two words
        return found[0] if found else None

    def marks(self, run_uid: str) -> list[Row]:
        """What was marked in a run and in the runs inside it, in the order it began."""
        marks = "SELECT m.* FROM marks m JOIN inside ON m.run_id = inside.id ORDER BY m.started_unix_us, m.id"
        return self._rows(INSIDE + marks, {"run": storable(run_uid)})

    def call_times(self, run_uid: str) -> list[Row]:
        """When each call of a run, and of the runs inside it, started and ended; `ended_unix_us` is None while it runs.

        A call that ended without saying when was last heard of when its last event came.
        """
        return self._rows(CALL_TIMES, {"run": storable(run_uid)})

    def in_flight(self) -> list[Row]:
        """Calls that have not ended, in any process, the one that has been silent longest first."""
        return self._rows("SELECT * FROM in_flight ORDER BY silent_for_ms DESC")

    def totals(self) -> Row:
        """How much is on the tape: rows of each table, dropped events, bytes on disk with what is not yet merged."""
        counts = {table: self._db.table(table).count for table in COUNTED_TABLES}
        dropped = self._rows("SELECT coalesce(sum(dropped_count), 0) AS events FROM llm_calls")[0]["events"]
        files = (self.path, Path(f"{self.path}-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        return {"rows": counts, "dropped_events": dropped, "bytes": size}

    def summary_of_run(self, run_uid: str) -> Row:
        """What happened in a run and in the runs inside it, in three numbers.

        Returns:
            `call_count`, `slowest_first_token_ms` (None where no token came), and `stalls`: for each cause how many and
            how long, the longest first. A stall before the first token is not among them: the first number has it.
        """
        run = {"run": storable(run_uid)}
        return self._rows(COUNTED_CALLS + RUN_SUMMARY, run)[0] | {"stalls": self._rows(COUNTED_CALLS + RUN_STALLS, run)}

    def mark_lost(self) -> int:
        """Mark what dead processes left running as `lost`, in one short write.

        Returns:
            How many calls were marked; 0 also where the tape cannot be written.
        """
        if self.is_newer or not anyone_gone(self._db.conn):
            return 0
        try:
            connection = schema.open_for_writing(self.path, busy_ms=MARK_BUSY_MS)
        except TapeError:
            return 0
        try:
            return mark_lost(connection)
        finally:
            connection.close()

    def _find(self, ref: str) -> list[Row]:
        number = ref.removeprefix("-")
        if not (number.isascii() and number.isalnum() and len(number) <= UID_CHARS):
            return []
        if number.isdigit() and ref != number:
            newest = (
                "SELECT * FROM llm_calls ORDER BY started_unix_us DESC, id DESC LIMIT 1 OFFSET CAST(? AS INTEGER) - 1"
            )
            return self._rows(newest, [number]) if int(number) else []
        # A uid of this millennium begins with a zero, a row id never does.
        if number.isdigit() and not number.startswith("0"):
            return self._rows("SELECT * FROM llm_calls WHERE id = CAST(? AS INTEGER)", [number])
        beginning = "SELECT * FROM llm_calls WHERE uid >= :ref AND uid < :ref || '~' ORDER BY uid LIMIT :limit"
        return self._rows(beginning, {"ref": ref.upper(), "limit": NAMED + 1})

    def _rows(self, sql: str, values: list[Any] | dict[str, Any] | None = None) -> list[Row]:
        with self._reading():
            return list(self._db.query(sql, values))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise TapeError(
                f"{self.path} cannot be read ({error}); if that stays so, recover it with: sqlite3 FILE .recover"
            ) from error
