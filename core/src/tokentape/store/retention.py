"""Keeps a tape near its size: past it the token events of the oldest finished calls go, a slice at a time.

Between two commits of the writer, so that nothing else waits. Of several processes that share a tape one thins at a
time: whoever gets SQLite's write lock soon. Another leaves it, and looks again after its own next commit.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from ..courtesy import give_way, is_crowded
from . import schema

logger = logging.getLogger(__name__)

MB: Final = 1_000_000
# Of the events of a call that is thinned so many stay at each end, and those on both sides of each stall.
KEPT_AT_ENDS: Final = 10
# What is done with the write lock held: half a millisecond of work, and at most half of what the WAL may have. A thread
# that wakes up meanwhile may find its processor taken for as long as that; pauses between longer slices do not help it.
SLICE_PAGES: Final = 12
EVENTS_PER_PAGE: Final = 80
CROWDED: Final = 8
CALLS_LOOKED_AT: Final = 500
# How long the commits of this process wait at the most for what is done between them.
AT_ONCE_S: Final = 0.05
# How long a slice waits for the write lock: for another commit, not for another process that removes events.
BUSY_MS: Final = 25
# A tape that is past its size loses so much of it at once, so that there is peace until it has grown back.
AIM: Final = 0.9
# The WAL lies beside the file and counts: so much of the size is left to it, within these bounds.
WAL_SHARE: Final = 1 / 16
WAL_BYTES: Final = (256_000, 4_000_000)
# A WAL so many times as long may be held by somebody who reads.
WAL_HELD: Final = 4
# What comes to the tape behind what was passed by is found by looking from the beginning again.
LOOK_AGAIN_S: Final = 60.0

_CALLS: Final = """
SELECT c.id, c.started_unix_us, c.last, c.status = 'running', c.status <> 'running' AND EXISTS (
  SELECT 1 FROM llm_tokens t
  WHERE t.call_id = c.id AND t.token_index BETWEEN :ends AND c.last - :ends AND NOT EXISTS (
    SELECT 1 FROM llm_stalls s WHERE s.call_id = c.id AND s.token_index IN (t.token_index, t.token_index + 1)
  )
) AS can_be_thinned
FROM (
  SELECT id, started_unix_us, status, (SELECT max(token_index) FROM llm_tokens WHERE call_id = llm_calls.id) AS last
  FROM llm_calls WHERE (started_unix_us, id) > (:started_us, :id)
  ORDER BY started_unix_us, id LIMIT :limit
) c
"""
_ENDED: Final = """
SELECT started_unix_us, id FROM llm_calls
WHERE id IN (SELECT value FROM json_each(:ids)) AND status <> 'running' ORDER BY started_unix_us, id
"""
# One script is one turn on the interpreter: the write lock is never held while waiting for that. Events are deleted
# without foreign keys, and six times as fast, so that what hangs on them goes first.
_THIN: Final = """
BEGIN IMMEDIATE;
{deletes}
UPDATE llm_calls SET events_kept = 'aggregated' WHERE id IN ({ids});
COMMIT;
"""
_DELETE: Final = """
DELETE FROM {table} WHERE call_id = {id} AND token_index BETWEEN {first} AND {last} AND token_index NOT IN (
  SELECT token_index FROM llm_stalls WHERE call_id = {id}
  UNION ALL SELECT token_index - 1 FROM llm_stalls WHERE call_id = {id}
);
"""
_TABLES: Final = ("llm_token_logprobs", "llm_tokens")


class _Span(NamedTuple):
    """Events of one call, the first and the last of them included."""

    call_id: int
    first: int
    last: int


class _Place(NamedTuple):
    """Up to where calls have been thinned: the last one that is done, and the next index of the one after it."""

    started_us: int = -1
    call_id: int = -1
    next_index: int = KEPT_AT_ENDS


class Retention:
    """What one process does to keep a tape at its size.

    Args:
        path: the tape.
        max_mb: its size in millions of bytes, WAL included.

    Attributes:
        is_due: whether there is more to do now than there was time for.
        thinned_calls: of how many calls this process has removed token events.
        is_stuck: whether what has to stay is larger than the tape may be.
    """

    def __init__(self, path: Path, max_mb: int) -> None:
        self.is_due = False
        self.is_stuck = False
        self.thinned_calls = 0
        self._path = path
        self._max_mb = max_mb
        self._wal_bytes = min(max(int(max_mb * MB * WAL_SHARE), WAL_BYTES[0]), WAL_BYTES[1])
        # Known when the tape is open; the limit is in pages.
        self._page_size = 0
        self._limit = 0
        self._slice_pages = 0
        self._place = _Place()
        # Calls that were running when they were passed by.
        self._running: set[int] = set()
        self._end_reached_s: float | None = None
        self._has_told = False

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Bound the WAL of the connection that writes, and begin from the start: it may be another file."""
        self._place, self._end_reached_s = _Place(), None
        self._running.clear()
        self._page_size = _number(connection, "page_size")
        wal_pages = self._wal_bytes // self._page_size
        self._limit = self._max_mb * MB // self._page_size - wal_pages
        self._slice_pages = min(SLICE_PAGES, wal_pages // 2)
        connection.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        connection.execute(f"PRAGMA journal_size_limit = {self._wal_bytes}")

    def step(self, connection: sqlite3.Connection, size: int) -> None:
        """Do as much as there is time for; nothing at all where the tape is small enough.

        Args:
            connection: the writer's own, outside a transaction.
            size: bytes of the file without the WAL, for which its share is set aside.
        """
        self.is_due = False
        if size <= self._limit * self._page_size:
            self.is_stuck = False
            return
        if self._is_held(connection):
            return
        busy_ms = _number(connection, "busy_timeout")
        try:
            connection.executescript(f"PRAGMA busy_timeout = {BUSY_MS}; PRAGMA foreign_keys = OFF")
            self._shrink(connection)
        except sqlite3.OperationalError as error:
            if not schema.is_busy(error):
                raise
            self.is_due = True
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.executescript(f"PRAGMA busy_timeout = {busy_ms}; PRAGMA foreign_keys = ON")

    def _is_held(self, connection: sqlite3.Connection) -> bool:
        """Whether somebody who reads keeps the WAL from being merged: more in it would make it longer, free nothing."""
        wal = Path(f"{self._path}-wal")
        if not wal.exists() or wal.stat().st_size <= WAL_HELD * self._wal_bytes:
            return False
        _, pages, merged = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(merged < pages)

    def _shrink(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + AT_ONCE_S
        for _ in self._slices(connection):
            give_way()
            if time.monotonic() > deadline:
                self.is_due = True
                return
        # What was freed at the end of the file is given back when the WAL is merged.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _slices(self, connection: sqlite3.Connection) -> Iterator[None]:
        while _used(connection) > AIM * self._limit:
            before = self._place
            spans = self._next_spans(connection)
            if spans is None:
                break
            try:
                self._thin(connection, spans)
            except sqlite3.OperationalError:
                self._place = before
                raise
            yield
        # What stays free is filled again before the file grows.
        while (over := _number(connection, "page_count") - self._limit) > 0 and _number(connection, "freelist_count"):
            connection.executescript(f"PRAGMA incremental_vacuum({min(over, self._slice_pages)})")
            yield
        if over > 0:
            self._say_stuck()
        else:
            self.is_stuck = False

    def _thin(self, connection: sqlite3.Connection, spans: list[_Span]) -> None:
        if not spans:
            return
        deletes = "".join(
            _DELETE.format(table=table, id=span.call_id, first=span.first, last=span.last)
            for span in spans
            for table in _TABLES
        )
        ids = {span.call_id for span in spans}
        connection.executescript(_THIN.format(deletes=deletes, ids=", ".join(map(str, sorted(ids)))))
        self.thinned_calls += sum(span.first == KEPT_AT_ENDS for span in spans)
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "%s has reached its size (max_mb=%d): the token events of the oldest calls are removed; "
                "their rows, numbers and texts stay.",
                self._path,
                self._max_mb,
            )

    def _next_spans(self, connection: sqlite3.Connection) -> list[_Span] | None:
        """What to remove next, the oldest first, not more than one slice; None where no event can go any more."""
        wanted = {"started_us": self._place.started_us, "id": self._place.call_id, "limit": CALLS_LOOKED_AT}
        room, spans, found = self._slice_pages * EVENTS_PER_PAGE, list[_Span](), False
        if is_crowded():
            # Each statement waits for its turn on the interpreter, whatever it does.
            room *= CROWDED
        # Read no further than needed: each row takes SQLite a moment, and no moment is long enough for others.
        with closing(connection.execute(_CALLS, wanted | {"ends": KEPT_AT_ENDS})) as calls:
            for call_id, started_us, last_index, is_running, can_be_thinned in calls:
                found = True
                if is_running:
                    self._running.add(call_id)
                first, last = self._place.next_index, (last_index or 0) - KEPT_AT_ENDS
                if can_be_thinned and first <= last:
                    until = min(last, first + room - 1)
                    spans.append(_Span(call_id, first, until))
                    room -= until - first + 1
                    if until < last:
                        self._place = self._place._replace(next_index=until + 1)
                        break
                self._place = _Place(started_us, call_id)
                if room <= 0:
                    break
                give_way()
        return spans if found else self._begin_again(connection)

    def _begin_again(self, connection: sqlite3.Connection) -> list[_Span] | None:
        ids = json.dumps(sorted(self._running))
        ended = connection.execute(_ENDED, {"ids": ids}).fetchall() if self._running else []
        if ended:
            self._running.difference_update(call_id for _, call_id in ended)
            started_us, call_id = ended[0]
            self._place = _Place(started_us, call_id - 1)
            return []
        now_s = time.monotonic()
        if self._end_reached_s is not None and now_s - self._end_reached_s < LOOK_AGAIN_S:
            return None
        self._end_reached_s, self._place = now_s, _Place()
        return []

    def _say_stuck(self) -> None:
        if not self.is_stuck:
            logger.warning(
                "%s cannot be kept at its size (max_mb=%d): rows, texts and calls in flight alone are larger. "
                "Raise max_mb, or remove old calls with: tokentape forget --before DATE",
                self._path,
                self._max_mb,
            )
        self.is_stuck = True


def _used(connection: sqlite3.Connection) -> int:
    asked = "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
    return int(connection.execute(asked).fetchone()[0])


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
