# ruff: noqa: S608  # tables and columns are named by us; values are bound
"""What is written to a tape, one function for each thing, inside a transaction that the caller has begun.

Each can be repeated when the transaction was rolled back: what it learns stays in the transaction until that is
committed.
"""

from __future__ import annotations

import sqlite3
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, repeat
from typing import Any, Final, NamedTuple

from ..models import Call, FinishedCall, Mark, Part, Process, Run
from . import rows
from .bulk import insert_flat, insert_many

TOKENS: Final = (
    "INSERT INTO llm_tokens (call_id, token_index, offset_us, wait_us, part, token, n_tokens) "
    "SELECT column1, column2, column3, column4, column5, column6, column7"
)
LOGPROBS: Final = (
    "INSERT INTO llm_token_logprobs (call_id, token_index, logprobs_json) SELECT column1, column2, column3"
)
# Counters of many calls at once, each call named once.
COUNTERS: Final = "WITH came AS (SELECT column1 AS id, column2 AS seen, column3 AS dropped, column4 AS last_event_at"
COUNTED: Final = """
) UPDATE llm_calls SET
  event_count = event_count + (SELECT seen FROM came WHERE came.id = llm_calls.id),
  dropped_count = (SELECT dropped FROM came WHERE came.id = llm_calls.id),
  last_event_at = coalesce((SELECT last_event_at FROM came WHERE came.id = llm_calls.id), last_event_at),
  events_kept = CASE WHEN id IN (SELECT id FROM came WHERE dropped > 0) THEN 'dropped' ELSE events_kept END
WHERE id IN (SELECT id FROM came)
"""
LABELS: Final = "INSERT INTO call_labels (call_id, key, value) SELECT column1, column2, column3"
PARTS: Final = (
    "INSERT INTO llm_parts (call_id, part, kind_id, choice, provider_index, name, external_id, content) "
    "SELECT column1, column2, (SELECT id FROM token_kinds WHERE name = column3), "
    "column4, column5, column6, column7, column8"
)
# A call that was taken for lost and then ended by itself has its stalls already.
STALLS: Final = (
    "INSERT OR REPLACE INTO llm_stalls (call_id, token_index, position, gap_us, wait_us, hold_us, blocked_us, cause) "
    "SELECT column1, column2, column3, column4, column5, column6, column7, column8"
)


class CallRow(NamedTuple):
    """Where a call is on the tape.

    Attributes:
        next_index: of its next event.
        missing: how many events were committed that are not here: the file was replaced since.
    """

    id: int
    next_index: int
    missing: int = 0


@dataclass(slots=True)
class Gathered:
    """Token events of several calls, to be written together: beside busy threads it is statements that cost time.

    Attributes:
        parts: rows for `PARTS`.
        values: of rows of `llm_tokens`, one behind the other.
        count: how many rows that is.
        logprobs: rows of `llm_token_logprobs`.
        counters: rows for `COUNTERS`, by the call's id.
    """

    parts: list[tuple[Any, ...]] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    count: int = 0
    logprobs: list[tuple[int, int, str]] = field(default_factory=list)
    counters: dict[int, tuple[int, int, int, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that has begun.

    Attributes:
        process_id: who writes.
        calls: calls that are known to be on the tape, by uid; None for one that has ended. The first map holds what
            this transaction adds.
        runs: runs that are known to be on the tape, likewise.
        elsewhere: how many events of a call were committed before the file at the path was last opened.
        gathers: whether token events are gathered until `put_gathered`; else each operation writes its own.
        gathered: those that are.
    """

    connection: sqlite3.Connection
    process_id: int
    calls: ChainMap[str, CallRow | None]
    runs: ChainMap[str, bool | None]
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    gathers: bool = True
    gathered: Gathered = field(default_factory=Gathered)


@dataclass(frozen=True, slots=True)
class End:
    """What the store itself knows of a call that has ended.

    Attributes:
        content: what the events of each part add up to; None where content is not kept.
        halves: parts whose last event ends with half a character.
        last_event_at: when the last event came; None if none did.
        dropped: how many events of the call could not be kept.
    """

    content: dict[int, str] | None
    halves: Sequence[int]
    last_event_at: str | None
    dropped: int


@dataclass(slots=True)
class Events:
    """Token events of one call that are ready to be stored, as columns that may still grow.

    Attributes:
        n_tokens: by position.
        logprobs: JSON text by position.
        parts: the parts that appeared with them.
        seen: how many events came, stored or not.
        last_event_at: when the last of them came; None if there is none.
        dropped: how many events of the call could not be kept so far.
        is_last: the end of the call follows in the same batch, and has the counters.
    """

    offset_us: list[int] = field(default_factory=list)
    wait_us: list[int] = field(default_factory=list)
    part: list[int] = field(default_factory=list)
    token: list[str | None] = field(default_factory=list)
    n_tokens: dict[int, int] = field(default_factory=dict)
    logprobs: dict[int, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    seen: int = 0
    last_event_at: str | None = None
    dropped: int = 0
    is_last: bool = False


def enter_process(connection: sqlite3.Connection, process: Process, now: str) -> int:
    """Find or add the row of a process, which is alive.

    Returns:
        Its id.
    """
    row = rows.process_row(process, now)
    # Without the time it started, a pid may be an earlier process's.
    if process.pid_started_at is not None:
        found = connection.execute(
            "SELECT id FROM processes WHERE host = :host AND boot_id IS :boot_id AND pid = :pid "
            "AND pid_started_at = :pid_started_at",
            row,
        ).fetchone()
        if found is not None:
            saw_process(connection, found[0], now)
            return int(found[0])
    return int(_insert(connection, "processes", row).lastrowid or 0)


def saw_process(connection: sqlite3.Connection, process_id: int, now: str) -> None:
    """Note that a process is alive."""
    connection.execute("UPDATE processes SET last_seen_at = ? WHERE id = ?", (now, process_id))


def open_run(to: Transaction, run: Run) -> None:
    """Add a run; one that another process has added stays as it is."""
    if run.uid not in to.runs:
        _put_run(to, run, "DO NOTHING")
        to.runs[run.uid] = True


def close_run(to: Transaction, run: Run) -> None:
    """Note how a run ended."""
    _put_run(
        to,
        run,
        "DO UPDATE SET name = excluded.name, status = excluded.status, ended_at = excluded.ended_at, "
        "metadata_json = excluded.metadata_json",
    )
    to.runs[run.uid] = None


def open_call(to: Transaction, call: Call, run: Run | None) -> CallRow:
    """Add a call and its labels, unless it is there.

    Args:
        run: the call's run, where it is known: it is added too if the tape does not have it.

    Returns:
        Where it is.
    """
    # The file may have been replaced since the call or its run was opened, so all of it may have to be added late.
    known = to.calls.get(call.uid)
    if known is None:
        if run is not None:
            open_run(to, run)
        known = to.calls[call.uid] = _add_call(to, call)
    return known


def add_events(to: Transaction, call: Call, run: Run | None, events: Events) -> None:
    """Add token events behind those that the call has, and keep its counters fresh."""
    call_id, first, missing = open_call(to, call, run)
    _gather(to.gathered, call_id, first, events, missing)
    to.calls[call.uid] = CallRow(call_id, first + len(events.offset_us), missing)
    if not to.gathers:
        put_gathered(to)


def put_gathered(to: Transaction) -> None:
    """Write the token events that were gathered, and their calls' counters."""
    gathered = to.gathered
    insert_many(to.connection, PARTS, gathered.parts, "ON CONFLICT DO NOTHING")
    insert_flat(to.connection, TOKENS, 7, iter(gathered.values), gathered.count)
    insert_many(to.connection, LOGPROBS, gathered.logprobs)
    insert_many(to.connection, COUNTERS, list(gathered.counters.values()), COUNTED)
    gathered.parts, gathered.values, gathered.count, gathered.logprobs, gathered.counters = [], [], 0, [], {}


def relabel_call(to: Transaction, call: Call, run: Run | None) -> None:
    """Note labels that a call got while it was running."""
    call_id, *_ = open_call(to, call, run)
    update_call(to.connection, call_id, {"labels_json": rows.labels_json(call.labels)})
    _put_labels(to.connection, call_id, call.labels, "ON CONFLICT (call_id, key) DO UPDATE SET value = excluded.value")


def close_call(to: Transaction, call: FinishedCall, run: Run | None, end: End) -> None:
    """Note how a call ended, with its parts and stalls."""
    call_id, _, missing = open_call(to, call, run)
    put_gathered(to)  # what follows counts on them
    ours = {"last_event_at": end.last_event_at, "dropped_count": end.dropped + missing}
    if ours["dropped_count"]:
        ours["events_kept"] = "dropped"
    update_call(to.connection, call_id, rows.finished_row(call) | ours)
    for part in end.halves:
        _end_with_replacement(to.connection, call_id, part)
    parts = [rows.part_row(part) for part in call.parts]
    if end.content is not None:
        parts = [row | {"content": end.content.get(row["part"], "")} for row in parts]
    _put_parts(to.connection, call_id, parts, "ON CONFLICT (call_id, part) DO UPDATE SET content = excluded.content")
    put_stalls(to.connection, call_id, map(rows.stall_row, call.stalls))
    to.calls[call.uid] = None


def update_call(connection: sqlite3.Connection, call_id: int, row: rows.Row) -> None:
    """Set columns of a call."""
    columns = ", ".join(f"{name} = :{name}" for name in row)
    connection.execute(f"UPDATE llm_calls SET {columns} WHERE id = :id", row | {"id": call_id})


def put_stalls(connection: sqlite3.Connection, call_id: int, stalls: Iterable[rows.Row]) -> None:
    """Write the stalls of a call."""
    insert_many(connection, STALLS, [(call_id, *row.values()) for row in stalls])


def add_mark(to: Transaction, mark: Mark) -> None:
    """Add a mark; the run or call it names may be unknown here."""
    _insert(to.connection, "marks", rows.mark_row(mark))


def _add_call(to: Transaction, call: Call) -> CallRow:
    row = rows.call_row(call) | {"process_id": to.process_id}
    added = _insert(to.connection, "llm_calls", row, "ON CONFLICT (uid) DO NOTHING")
    elsewhere = to.elsewhere.get(call.uid, 0)
    if not added.rowcount:
        call_id, first = to.connection.execute(
            "SELECT id, (SELECT coalesce(max(token_index) + 1, 0) FROM llm_tokens WHERE call_id = llm_calls.id) "
            "FROM llm_calls WHERE uid = :uid",
            row,
        ).fetchone()
        return CallRow(call_id, first, max(0, elsewhere - first))
    call_id = int(added.lastrowid or 0)
    _put_labels(to.connection, call_id, call.labels)
    if elsewhere:
        missing = {"event_count": elsewhere, "dropped_count": elsewhere, "events_kept": "dropped"}
        update_call(to.connection, call_id, missing)
    return CallRow(call_id, 0, elsewhere)


def _gather(gathered: Gathered, call_id: int, first: int, events: Events, missing: int) -> None:
    size = len(events.offset_us)
    n_tokens: Iterable[int | None] = map(events.n_tokens.get, range(size)) if events.n_tokens else repeat(None)
    columns = (repeat(call_id), count(first), events.offset_us, events.wait_us, events.part, events.token, n_tokens)
    gathered.parts.extend((call_id, *rows.part_row(part).values()) for part in events.parts)
    gathered.values.extend(chain.from_iterable(zip(*columns, strict=False)))
    gathered.count += size
    gathered.logprobs.extend((call_id, first + position, text) for position, text in events.logprobs.items())
    if not events.is_last:
        _, seen, _, last_event_at = gathered.counters.get(call_id, (0, 0, 0, None))
        gathered.counters[call_id] = (
            call_id,
            seen + events.seen,
            events.dropped + missing,
            events.last_event_at or last_event_at,
        )


def _put_run(to: Transaction, run: Run, on_conflict: str) -> None:
    row = rows.run_row(run) | {"process_id": to.process_id}
    _insert(to.connection, "runs", row, f"ON CONFLICT (uid) {on_conflict}")


def _put_labels(connection: sqlite3.Connection, call_id: int, labels: Mapping[str, str], on_conflict: str = "") -> None:
    insert_many(connection, LABELS, [(call_id, *label) for label in rows.label_rows(labels)], on_conflict)


def _put_parts(connection: sqlite3.Connection, call_id: int, parts: Iterable[rows.Row], on_conflict: str) -> None:
    insert_many(connection, PARTS, [(call_id, *row.values()) for row in parts], on_conflict)


def _end_with_replacement(connection: sqlite3.Connection, call_id: int, part: int) -> None:
    connection.execute(
        "UPDATE llm_tokens SET token = token || char(0xFFFD) WHERE call_id = :call_id AND token_index = "
        "(SELECT max(token_index) FROM llm_tokens WHERE call_id = :call_id AND part = :part)",
        {"call_id": call_id, "part": part},
    )


# A row may name another by its uid; the tape has its id, or NULL where it does not know it.
_BY_UID: Final = {
    ("runs", "parent_uid"): ("parent_id", "runs"),
    ("llm_calls", "parent_uid"): ("parent_id", "llm_calls"),
    ("llm_calls", "run_uid"): ("run_id", "runs"),
    ("marks", "run_uid"): ("run_id", "runs"),
    ("marks", "call_uid"): ("call_id", "llm_calls"),
}


def _insert(connection: sqlite3.Connection, table: str, row: rows.Row, more: str = "") -> sqlite3.Cursor:
    columns, values = [], []
    for name in row:
        column, of = _BY_UID.get((table, name), (name, None))
        columns.append(column)
        values.append(f"(SELECT id FROM {of} WHERE uid = :{name})" if of else f":{name}")
    return connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)}) {more}", row)
