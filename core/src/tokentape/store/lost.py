# ruff: noqa: S608  # tables are named by us; values are bound
"""What a dead process left behind: which calls are lost, the numbers of what had arrived, and marking them so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from .. import metrics
from ..models import Metrics, Part, Stall
from ..process import is_alive
from . import rows, writes

# What the dead process used is not known.
STALL_MS: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Remains:
    """What the rows of a lost call tell: columns of `llm_calls`, stalls, and the text of each part."""

    call_id: int
    columns: rows.Row
    stalls: Sequence[Stall] = ()
    content: Mapping[int, str] = field(default_factory=dict)


def mark_lost(connection: sqlite3.Connection, *, ours: int | None = None, stall_ms: float = STALL_MS) -> int:
    """Mark the running calls and runs of processes that are gone.

    Args:
        connection: opened for writing.
        ours: id of the process that asks: it is alive, whatever its row says.
        stall_ms: a gap at least this long is a stall; what the dead process used is not known.

    Returns:
        How many calls were marked. 0, and nothing is changed, where the tape is read-only or stays locked.
    """
    try:
        gone = [process_id for process_id in gone_processes(connection) if process_id != ours]
        # Read and computed before the write lock is taken: the write is short however long the calls were.
        found = [
            remains(connection, call, stall_ms) for process_id in gone for call in _running(connection, process_id)
        ]
        return _write(connection, gone, found) if gone else 0
    except sqlite3.OperationalError:
        return 0


def gone_processes(connection: sqlite3.Connection, *, with_runs: bool = True) -> list[int]:
    """Ids of processes that are gone although calls of theirs are still marked as running; never writes.

    Args:
        with_runs: those with runs that are marked so as well, which means looking at every run.
    """
    sources = ("llm_calls", "runs") if with_runs else ("llm_calls",)
    running = " UNION ".join(f"SELECT process_id FROM {table} WHERE status = 'running'" for table in sources)
    asked = f"SELECT id, host, boot_id, pid, pid_started_at, last_seen_at FROM processes WHERE id IN ({running})"
    unfinished = _dicts(connection, asked)
    return [row["id"] for row in unfinished if not is_alive(row)]


def _running(connection: sqlite3.Connection, process_id: int) -> list[rows.Row]:
    return _dicts(
        connection,
        "SELECT id, content_level, dropped_count FROM llm_calls WHERE status = 'running' AND process_id = ?",
        process_id,
    )


def remains(connection: sqlite3.Connection, call: rows.Row, stall_ms: float = STALL_MS) -> Remains:
    """What is known of a call that nobody saw the end of; never writes.

    Args:
        call: its `id`, `content_level` and `dropped_count`.
        stall_ms: a gap at least this long is a stall; what the dead process used is not known.
    """
    events = connection.execute(
        "SELECT offset_us, wait_us, part, token, n_tokens FROM llm_tokens WHERE call_id = ? ORDER BY token_index",
        (call["id"],),
    ).fetchall()
    if not events:
        return Remains(call["id"], {"status": "lost"})
    offset, wait, part, token, n_tokens = (list(column) for column in zip(*events, strict=True))
    # Known only if every event told how many tokens it holds.
    count = sum(n_tokens) if None not in n_tokens else None
    computed, stalls = metrics.compute(
        metrics.Timings(
            offset_us=offset,
            wait_us=wait,
            part=part,
            parts=_parts(connection, call["id"], part),
            end_us=offset[-1],
            tail_wait_us=0,
            threshold_ms=stall_ms,
            # A reader has waited, if only for a microsecond.
            fed_by_hand=not any(wait),
            token_count=count,
            first_n_tokens=n_tokens[0],
        )
    )
    if call["dropped_count"]:
        computed, stalls = _without_gaps(computed), ()
    counted = {"token_count": count, "token_count_source": None if count is None else "logprobs"}
    return Remains(
        call["id"],
        {"status": "lost"} | counted | asdict(_without_end(computed)),
        [_without_blame(stall) for stall in stalls if stall.position != "tail"],
        _joined(part, token) if call["content_level"] != "timings" else {},
    )


def _without_end(computed: Metrics) -> Metrics:
    # Nobody saw the end: silence before it, and whose it was, would be a guess.
    return replace(computed, duration_ms=None, tail_gap_ms=None)


def _without_gaps(computed: Metrics) -> Metrics:
    # A gap between two events that are on the tape may have had dropped ones in it.
    gaps = [f.name for f in fields(Metrics) if f.name.startswith(("inter_chunk_", "stall_"))]
    return replace(computed, **dict.fromkeys(gaps))


def _without_blame(stall: Stall) -> Stall:
    # The program waited; whether its event loop ran meanwhile is known only to the process that is gone.
    return replace(stall, cause="unknown") if stall.cause == "upstream" else stall


def _parts(connection: sqlite3.Connection, call_id: int, seen: Iterable[int]) -> tuple[Part, ...]:
    found = _dicts(
        connection,
        "SELECT p.part, k.name AS kind, p.choice, p.name FROM llm_parts p JOIN token_kinds k ON k.id = p.kind_id "
        "WHERE p.call_id = ? ORDER BY p.part",
        call_id,
    )
    parts = {row["part"]: Part(**row) for row in found}
    # The row of a part may be what could not be written.
    return tuple(parts.get(number, Part(number, "text")) for number in sorted({*parts, *seen}))


def _joined(part: list[int], token: list[str | None]) -> dict[int, str]:
    joined: dict[int, list[str]] = {}
    for number, text in zip(part, token, strict=True):
        joined.setdefault(number, []).append(text or "")
    return {number: "".join(pieces) for number, pieces in joined.items()}


def _write(connection: sqlite3.Connection, gone: Sequence[int], found: Sequence[Remains]) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        marked = sum(write_call(connection, each) for each in found)
        for process_id in gone:
            # A run that a dead process has opened goes on in a live one that still has calls in it.
            connection.execute(
                "UPDATE runs SET status = 'lost' WHERE status = 'running' AND process_id = ? AND NOT EXISTS "
                "(SELECT 1 FROM llm_calls c WHERE c.run_id = runs.id AND c.status = 'running')",
                (process_id,),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return marked


def write_call(connection: sqlite3.Connection, found: Remains) -> bool:
    """Mark one call as lost, inside a transaction; whether it was still marked as running."""
    status = connection.execute("SELECT status FROM llm_calls WHERE id = ?", (found.call_id,)).fetchone()
    if status != ("running",):
        return False  # somebody else has marked it meanwhile
    writes.update_call(connection, found.call_id, found.columns)
    writes.put_stalls(connection, found.call_id, map(rows.stall_row, found.stalls))
    for part, content in found.content.items():
        connection.execute(
            "UPDATE llm_parts SET content = ? WHERE call_id = ? AND part = ?", (content, found.call_id, part)
        )
    return True


def _dicts(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[rows.Row]:
    cursor = connection.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
