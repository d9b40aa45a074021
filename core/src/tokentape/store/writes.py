# ruff: noqa: S608  # tables and columns are named by us; values are bound
"""What is written to a tape, one function for each thing, inside a transaction that the caller has begun.

Each can be repeated from the start when the transaction was rolled back: ids are looked up by uid every time, nothing
is kept between two calls.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, count, islice, repeat
from typing import Any, Final

from ..models import Call, FinishedCall, Mark, Part, Process, Run
from . import rows

# One statement for so many rows: 1.1 µs a row, and the interpreter is given up once for all of them, which matters
# beside 50 busy threads. `executemany` takes 1.9 and gives it up at every row.
MAX_ROWS: Final = 512


@dataclass(frozen=True, slots=True)
class End:
    """What the store itself knows of a call that has ended.

    Attributes:
        content: what the events of each part add up to; None where content is not kept.
        halves: parts whose last event ends with half a character.
        dropped: how many events of the call could not be kept.
    """

    content: dict[int, str] | None
    halves: Sequence[int]
    dropped: int


@dataclass(frozen=True, slots=True)
class Events:
    """Token events of one call that are ready to be stored, as columns.

    Attributes:
        logprobs: JSON text by position.
        parts: the parts that appeared with them.
        seen: how many events came, stored or not.
        last_event_at: when the last of them came; None if there is none.
        dropped: how many events of the call could not be kept so far.
    """

    offset_us: Sequence[int] = ()
    wait_us: Sequence[int] = ()
    part: Sequence[int] = ()
    token: Sequence[str | None] = ()
    n_tokens: dict[int, int] = field(default_factory=dict)
    logprobs: dict[int, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    seen: int = 0
    last_event_at: str | None = None
    dropped: int = 0


def enter_process(connection: sqlite3.Connection, process: Process) -> int:
    """Find or add the row of a process.

    Returns:
        Its id.
    """
    row = rows.process_row(process)
    # Without the time it started, a pid may be an earlier process's.
    if process.pid_started_at is not None:
        found = connection.execute(
            "SELECT id FROM processes WHERE host = :host AND boot_id IS :boot_id AND pid = :pid "
            "AND pid_started_at = :pid_started_at",
            row,
        ).fetchone()
        if found is not None:
            return int(found[0])
    return _insert(connection, "processes", row)


def saw_process(connection: sqlite3.Connection, process_id: int, now: str) -> None:
    """Note that a process is alive."""
    connection.execute("UPDATE processes SET last_seen_at = ? WHERE id = ?", (now, process_id))


def open_run(connection: sqlite3.Connection, process_id: int, run: Run) -> None:
    """Add a run; one that another process has added stays as it is."""
    _put_run(connection, process_id, run, "DO NOTHING")


def close_run(connection: sqlite3.Connection, process_id: int, run: Run) -> None:
    """Note how a run ended."""
    _put_run(
        connection,
        process_id,
        run,
        "DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at, metadata_json = excluded.metadata_json",
    )


def open_call(connection: sqlite3.Connection, process_id: int, call: Call, run: Run | None) -> int:
    """Add a call and its labels, unless it is there.

    Args:
        run: the call's run, where it is known: it is added too if the tape does not have it.

    Returns:
        The id of the call.
    """
    found = _id(connection, "llm_calls", call.uid)
    if found is not None:
        return found
    if run is not None:
        open_run(connection, process_id, run)
    row = rows.call_row(call)
    ids = {
        "run_id": _id(connection, "runs", row.pop("run_uid")),
        "parent_id": _id(connection, "llm_calls", row.pop("parent_uid")),
        "process_id": process_id,
    }
    call_id = _insert(connection, "llm_calls", row | ids)
    labels = [(call_id, key, value) for key, value in rows.label_rows(call.labels)]
    insert_many(connection, "INSERT INTO call_labels (call_id, key, value) VALUES", labels)
    return call_id


def add_events(connection: sqlite3.Connection, process_id: int, call: Call, run: Run | None, events: Events) -> None:
    """Add token events behind those that the call has, and keep its counters fresh."""
    # The file may have been replaced since the call was opened.
    call_id = open_call(connection, process_id, call, run)
    _put_parts(connection, call_id, map(rows.part_row, events.parts), "DO NOTHING")
    highest = connection.execute("SELECT max(token_index) FROM llm_tokens WHERE call_id = ?", (call_id,)).fetchone()[0]
    first = 0 if highest is None else highest + 1
    _insert_tokens(connection, call_id, first, events)
    insert_many(
        connection,
        "INSERT INTO llm_token_logprobs (call_id, token_index, logprobs_json) VALUES",
        [(call_id, first + position, text) for position, text in events.logprobs.items()],
    )
    connection.execute(
        "UPDATE llm_calls SET event_count = event_count + :seen, dropped_count = :dropped, "
        "last_event_at = coalesce(:last, last_event_at), "
        "events_kept = CASE WHEN :dropped > 0 THEN 'dropped' ELSE events_kept END WHERE id = :id",
        {"seen": events.seen, "dropped": events.dropped, "last": events.last_event_at, "id": call_id},
    )


def close_call(connection: sqlite3.Connection, process_id: int, call: FinishedCall, run: Run | None, end: End) -> None:
    """Note how a call ended, with its parts and stalls."""
    call_id = open_call(connection, process_id, call, run)
    dropped = {"dropped_count": end.dropped} | ({"events_kept": "dropped"} if end.dropped else {})
    update_call(connection, call_id, rows.finished_row(call) | dropped)
    for part in end.halves:
        _end_with_replacement(connection, call_id, part)
    parts = [rows.part_row(part) for part in call.parts]
    if end.content is not None:
        parts = [row | {"content": end.content.get(row["part"], "")} for row in parts]
    _put_parts(connection, call_id, parts, "DO UPDATE SET content = excluded.content")
    put_stalls(connection, call_id, map(rows.stall_row, call.stalls))


def update_call(connection: sqlite3.Connection, call_id: int, row: rows.Row) -> None:
    """Set columns of a call."""
    columns = ", ".join(f"{name} = :{name}" for name in row)
    connection.execute(f"UPDATE llm_calls SET {columns} WHERE id = :id", row | {"id": call_id})


def put_stalls(connection: sqlite3.Connection, call_id: int, stalls: Iterable[rows.Row]) -> None:
    """Write the stalls of a call."""
    for row in stalls:
        # A call that was taken for lost and then ended by itself has them twice.
        _insert(connection, "llm_stalls", {"call_id": call_id} | row, or_="OR REPLACE ")


def add_mark(connection: sqlite3.Connection, _: int, mark: Mark) -> None:
    """Add a mark; the run or call it names may be unknown here."""
    row = rows.mark_row(mark)
    ids = {
        "run_id": _id(connection, "runs", row.pop("run_uid")),
        "call_id": _id(connection, "llm_calls", row.pop("call_uid")),
    }
    _insert(connection, "marks", row | ids)


def insert_many(connection: sqlite3.Connection, into: str, values: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows by as few statements as possible.

    Args:
        into: the statement up to and with the word VALUES.
        values: the rows, all of one width.
    """
    if values:
        _insert_flat(connection, into, len(values[0]), chain.from_iterable(values), len(values))


def _insert_tokens(connection: sqlite3.Connection, call_id: int, first: int, events: Events) -> None:
    size = len(events.offset_us)
    n_tokens: Iterator[int | None] = map(events.n_tokens.get, range(size)) if events.n_tokens else repeat(None)
    columns = zip(
        repeat(call_id),
        count(first),
        events.offset_us,
        events.wait_us,
        events.part,
        events.token,
        n_tokens,
        strict=False,
    )
    into = "INSERT INTO llm_tokens (call_id, token_index, offset_us, wait_us, part, token, n_tokens) VALUES"
    _insert_flat(connection, into, 7, chain.from_iterable(columns), size)


def _insert_flat(connection: sqlite3.Connection, into: str, width: int, values: Iterator[Any], left: int) -> None:
    # Sizes are powers of two: a dozen prepared statements, which sqlite3 keeps by their text, do for every batch.
    while left:
        size = min(MAX_ROWS, 1 << (left.bit_length() - 1))
        connection.execute(_statement(into, width, size), tuple(islice(values, size * width)))
        left -= size


@cache
def _statement(into: str, width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{into} {', '.join([row] * size)}"


def _put_run(connection: sqlite3.Connection, process_id: int, run: Run, on_conflict: str) -> None:
    row = rows.run_row(run)
    ids = {"parent_id": _id(connection, "runs", row.pop("parent_uid")), "process_id": process_id}
    _insert(connection, "runs", row | ids, f"ON CONFLICT (uid) {on_conflict}")


def _put_parts(connection: sqlite3.Connection, call_id: int, parts: Iterable[rows.Row], on_conflict: str) -> None:
    for row in parts:
        kind = connection.execute("SELECT id FROM token_kinds WHERE name = ?", (row.pop("kind"),)).fetchone()[0]
        ids = {"call_id": call_id, "kind_id": kind}
        _insert(connection, "llm_parts", ids | row, f"ON CONFLICT (call_id, part) {on_conflict}")


def _end_with_replacement(connection: sqlite3.Connection, call_id: int, part: int) -> None:
    connection.execute(
        "UPDATE llm_tokens SET token = token || char(0xFFFD) WHERE call_id = :call_id AND token_index = "
        "(SELECT max(token_index) FROM llm_tokens WHERE call_id = :call_id AND part = :part)",
        {"call_id": call_id, "part": part},
    )


def _insert(connection: sqlite3.Connection, table: str, row: rows.Row, more: str = "", or_: str = "") -> int:
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    cursor = connection.execute(f"INSERT {or_}INTO {table} ({columns}) VALUES ({values}) {more}", row)
    return int(cursor.lastrowid or 0)


def _id(connection: sqlite3.Connection, table: str, uid: str | None) -> int | None:
    found = connection.execute(f"SELECT id FROM {table} WHERE uid = ?", (uid,)).fetchone()
    return int(found[0]) if found is not None else None
