# ruff: noqa: S608  # tables and columns are named by us; values are bound
"""Saves what can be read of a damaged tape into a new one; the damaged one is never changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import NotATape, TapeError
from ..ids import new_uid
from ..models import KINDS
from . import files, header, lost, schema, writes
from .salvage import Range, Row, Table

# In the order in which they refer to each other.
TABLES: Final = (
    *("processes", "runs", "llm_calls", "llm_parts", "llm_tokens", "llm_token_logprobs", "llm_stalls"),
    *("call_labels", "marks"),
)
# Where the ids of calls stand that have been saved before their events are.
_KNOWN: Final = (("llm_calls", "id"), ("llm_parts", "call_id"))
_OF_CALLS: Final = ("llm_parts", "llm_tokens", "llm_token_logprobs", "llm_stalls", "call_labels")
_TYPES: Final[dict[str, tuple[type, ...]]] = {"INTEGER": (int,), "REAL": (float, int), "TEXT": (str,)}
# A row is not shorter than this: so many fit in a file at the most.
_LEAST_BYTES: Final = 8
_UNKNOWN: Final = "unknown (recovered)"
_NEVER: Final = "1970-01-01T00:00:00.000000Z"


@dataclass(slots=True)
class Recovered:
    """What became of a damaged tape.

    Attributes:
        path: the new tape.
        saved: how many rows of each table are on it.
        unread: of each table that could not be read whole, how many rows that may be; None where nobody can say.
        missing_events: token events that calls on the new tape had and have no more.
        calls_with_missing: how many calls those are.
        calls_without_row: calls of which only events and parts were left.
        open_calls: calls that had not ended; they are lost now.
    """

    path: Path
    saved: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int | None] = field(default_factory=dict)
    missing_events: int = 0
    calls_with_missing: int = 0
    calls_without_row: int = 0
    open_calls: int = 0


def recover(broken: Path, target: Path) -> Recovered | None:
    """Save what can be read of a damaged tape.

    Args:
        broken: the damaged tape; others may still write to it.
        target: the new tape, which must not exist.

    Returns:
        What was saved and what was not; None if nothing is damaged, and then nothing is written.

    Raises:
        TapeError: there is no tape at `broken`, nothing of it can be read, or there is something at `target`.
    """
    if not broken.exists():
        raise TapeError(f"{broken} does not exist; name a damaged tape, such as those that tokentape status lists")
    if not target.parent.is_dir():
        raise TapeError(f"{target.parent} does not exist; name a file in a folder that does")
    with ExitStack() as stack:
        source = _opened(broken, target, stack)
        if source is None:
            return None
        if any(Path(f"{target}{side}").exists() for side in files.SIDES):
            raise TapeError(f"{target} exists already; name another file to save to")
        # Under its own name only when it is whole: whatever interrupts this leaves no half of a tape behind.
        part = target.with_name(f".{target.name}.{os.getpid()}")
        stack.callback(_remove, part)
        found = _saved(source, part, broken)
        found.path = target
        part.rename(target)
    return found


def _saved(source: sqlite3.Connection, part: Path, broken: Path) -> Recovered:
    found = Recovered(part)
    with closing(schema.open_for_writing(part)) as new:
        new.execute("PRAGMA foreign_keys = OFF")
        new.execute("PRAGMA synchronous = OFF")
        new.execute("BEGIN IMMEDIATE")
        source.execute("BEGIN")  # one moment of all tables, whatever is written meanwhile
        for name in TABLES:
            _copy(source, new, name, broken.stat().st_size, found)
        if not found.saved["llm_calls"] and not found.saved["llm_tokens"]:
            raise TapeError(f"{broken} is damaged, and no call of it can be read; nothing was saved")
        _mend(new, found)
        new.execute("COMMIT")
        found.saved = {name: new.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}
    return found


def _opened(broken: Path, target: Path, stack: ExitStack) -> sqlite3.Connection | None:
    """A connection to what can be opened of the damaged tape; None if it is healthy."""
    try:
        source = stack.enter_context(closing(schema.open_for_reading(broken).conn))
        source.text_factory = _decoded
        schema.check_readable(source, broken)
        if source.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",):
            return None
    except NotATape as error:
        if not schema.is_damage(error):
            raise
        source = _with_new_header(broken, target, stack)
    except (TapeError, sqlite3.DatabaseError) as error:
        if not schema.is_damage(error):
            raise
        source = _with_new_header(broken, target, stack) if isinstance(error, TapeError) else source
    if schema.tape_format(source) > schema.FORMAT:
        raise schema.newer(broken)
    source.text_factory = _decoded
    return source


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _with_new_header(broken: Path, target: Path, stack: ExitStack) -> sqlite3.Connection:
    """A copy in which the pages that say where the tables are, are those of a new tape."""
    with broken.open("rb") as file:
        if header.format_of(file.read(header.SIZE)) > schema.FORMAT:
            raise schema.newer(broken)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=target.parent, prefix=".tokentape-")))
    schema.open_for_writing(folder / "new.db").close()
    copy = folder / "copy.db"
    for side in files.SIDES[:2]:
        if Path(f"{broken}{side}").exists():
            shutil.copyfile(f"{broken}{side}", f"{copy}{side}")
    header.transplant(folder / "new.db", copy)
    source = stack.enter_context(closing(sqlite3.connect(copy, isolation_level=None)))
    try:
        kinds = source.execute("SELECT name FROM token_kinds ORDER BY id").fetchall()
        is_tape = [name for (name,) in kinds] == list(KINDS)
    except sqlite3.Error:
        is_tape = False
    if not is_tape and not schema.was_a_tape(broken):
        raise NotATape(f"{broken} is not an SQLite database, and nothing in it looks like a tape; nothing was saved")
    return source


def _copy(source: sqlite3.Connection, new: sqlite3.Connection, name: str, size: int, found: Recovered) -> None:
    described = new.execute(f"PRAGMA table_info({name})").fetchall()
    is_tokens = name == "llm_tokens"
    has_id = described[0][1] == "id"
    columns = [row[1] for row in described]
    read = columns if is_tokens or has_id else ["rowid", *columns]
    if is_tokens:
        # Not further than to the last call that is known, or that has something else.
        last = max(new.execute(f"SELECT coalesce(max({c}), 0) FROM {t}").fetchone()[0] for t, c in _KNOWN)
        end: tuple[int, ...] = (max(last, _last(source, "call_id", name)) + 1, 0)
    else:
        end = (max(_last(source, read[0], name), size // _LEAST_BYTES) + 1,)
    table = Table(source, name, read, width=len(end), end=end)
    into = f"INSERT OR IGNORE INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    skipped = len(read) - len(columns)
    checks = [(_TYPES[row[2]], bool(row[3] or row[5])) for row in described]
    saved = refused = 0
    for row in table.rows():
        values = row[skipped:]
        is_saved = _fits(values, checks) and new.execute(into, values).rowcount == 1
        saved += is_saved
        refused += not is_saved
    found.saved[name] = saved
    if table.unread or refused:
        found.unread[name] = _count(table.unread, end, refused)


def _last(source: sqlite3.Connection, column: str, name: str) -> int:
    try:
        (last,) = source.execute(f"SELECT max({column}) FROM {name}").fetchone()
    except sqlite3.Error:
        return 0
    return last if isinstance(last, int) else 0


def _fits(values: Row, checks: Sequence[tuple[tuple[type, ...], bool]]) -> bool:
    """Whether values are of the types that the columns have: what is damaged can still be read as something."""
    return all(
        not is_needed if value is None else isinstance(value, types)
        for value, (types, is_needed) in zip(values, checks, strict=True)
    )


def _count(unread: Sequence[Range], end: tuple[int, ...], refused: int) -> int | None:
    """How many rows may have been in ranges of row ids; None where a range is open, or not one of row ids."""
    if len(end) > 1 or any(span.end == end for span in unread):
        return None
    return refused + sum(span.end[0] - span.start[0] for span in unread)


def _mend(new: sqlite3.Connection, found: Recovered) -> None:
    """Make a sound tape of what was saved: nothing refers to what is not there, and every count is right."""
    found.calls_without_row = _add_calls(new)
    _add_processes(new)
    for table, column, of in (
        *(("runs", "parent_id", "runs"), ("llm_calls", "run_id", "runs"), ("llm_calls", "parent_id", "llm_calls")),
        *(("marks", "run_id", "runs"), ("marks", "call_id", "llm_calls")),
    ):
        new.execute(f"UPDATE {table} SET {column} = NULL WHERE {column} NOT IN (SELECT id FROM {of})")
    new.execute("DELETE FROM llm_parts WHERE kind_id NOT IN (SELECT id FROM token_kinds)")
    new.execute(
        "DELETE FROM llm_token_logprobs WHERE NOT EXISTS (SELECT 1 FROM llm_tokens t "
        "WHERE t.call_id = llm_token_logprobs.call_id AND t.token_index = llm_token_logprobs.token_index)"
    )
    _count_missing(new, found)
    _end_calls(new, found)


def _add_calls(new: sqlite3.Connection) -> int:
    """Rows for calls of which only something else was left, such as their events."""
    of_calls = " UNION ".join(f"SELECT call_id FROM {table}" for table in _OF_CALLS)
    without = new.execute(f"SELECT call_id FROM ({of_calls}) WHERE call_id NOT IN (SELECT id FROM llm_calls)")
    ids = [call_id for (call_id,) in without.fetchall()]
    for call_id in ids:
        # Calls are numbered as they start: it is shown beside its neighbours.
        started = new.execute(
            "SELECT started_at, started_unix_us FROM llm_calls WHERE id < ? ORDER BY id DESC LIMIT 1", (call_id,)
        ).fetchone() or (_NEVER, 0)
        new.execute(
            "INSERT INTO llm_calls (id, uid, name, process_id, layer, adapter, operation, streaming, status, "
            "started_at, started_unix_us, content_level, events_kept, event_count, dropped_count, in_flight_at_start) "
            "VALUES (?, ?, ?, 0, 'sdk', 'unknown', 'unknown', 1, 'running', ?, ?, 'redacted', 'dropped', "
            "(SELECT count(*) FROM llm_tokens WHERE call_id = ?), 0, 0)",
            (call_id, new_uid(), f"{_UNKNOWN} {call_id}", *started, call_id),
        )
    return len(ids)


def _add_processes(new: sqlite3.Connection) -> None:
    """One row for all processes whose own could not be read."""
    known = "(SELECT id FROM processes)"
    used = " UNION ".join(f"SELECT 1 FROM {table} WHERE process_id NOT IN {known}" for table in ("llm_calls", "runs"))
    if new.execute(used).fetchone() is None:
        return
    added = new.execute(
        "INSERT INTO processes (host, pid, name, started_at, last_seen_at) VALUES ('unknown', 0, ?, ?, ?)",
        (_UNKNOWN, _NEVER, _NEVER),
    ).lastrowid
    for table in ("llm_calls", "runs"):
        new.execute(f"UPDATE {table} SET process_id = ? WHERE process_id NOT IN {known}", (added,))


def _count_missing(new: sqlite3.Connection, found: Recovered) -> None:
    """Number events anew where some are missing, and note on each call how many that are."""
    counted = new.execute(
        "SELECT id, event_count, dropped_count, (SELECT count(*) FROM llm_tokens WHERE call_id = c.id), "
        "(SELECT coalesce(max(token_index) + 1, 0) FROM llm_tokens WHERE call_id = c.id) "
        "FROM llm_calls c WHERE events_kept NOT IN ('sampled_out', 'packed', 'aggregated')"
    ).fetchall()
    for call_id, events, dropped, count, end in counted:
        missing = max(events - dropped, end) - count
        if missing > 0:
            found.missing_events += missing
            found.calls_with_missing += 1
            changed = {"event_count": count + missing + dropped, "dropped_count": dropped + missing}
            writes.update_call(new, call_id, changed | {"events_kept": "dropped"})
        if count < end:
            _renumber(new, call_id)


def _renumber(new: sqlite3.Connection, call_id: int) -> None:
    """Number the events of a call from 0 without holes, and what refers to them."""
    found = new.execute("SELECT token_index FROM llm_tokens WHERE call_id = ? ORDER BY token_index", (call_id,))
    kept = [index for (index,) in found.fetchall()]
    moved = [(number, call_id, index) for number, index in enumerate(kept) if number != index]
    for table in ("llm_tokens", "llm_token_logprobs"):
        new.executemany(f"UPDATE {table} SET token_index = ? WHERE call_id = ? AND token_index = ?", moved)
    # A stall is now before the next event that is left; of two before one event, the first stays.
    stalls = new.execute(
        "SELECT token_index FROM llm_stalls WHERE call_id = ? AND position <> 'tail' ORDER BY token_index", (call_id,)
    )
    before = [(bisect_left(kept, index), call_id, index) for (index,) in stalls.fetchall()]
    new.executemany("UPDATE OR IGNORE llm_stalls SET token_index = ? WHERE call_id = ? AND token_index = ?", before)


def _end_calls(new: sqlite3.Connection, found: Recovered) -> None:
    """Nobody will say any more how calls ended that were open: they are lost, with the numbers of what had arrived."""
    open_calls = new.execute("SELECT id, content_level, dropped_count FROM llm_calls WHERE status = 'running'")
    for call_id, level, dropped in open_calls.fetchall():
        left = lost.remains(new, {"id": call_id, "content_level": level, "dropped_count": dropped})
        lost.write_call(new, left)
        found.open_calls += 1
    found.open_calls -= found.calls_without_row
    new.execute("UPDATE runs SET status = 'lost' WHERE status = 'running'")


def _remove(part: Path) -> None:
    for side in files.SIDES:
        Path(f"{part}{side}").unlink(missing_ok=True)
