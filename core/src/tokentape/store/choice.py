# ruff: noqa: S608  # put together from constants and names of columns; values are bound
"""Which calls of a tape are meant: named ones, those of a run, of a time, or those that contain a text.

A call is never meant alone: the framework's call and the SDK's calls beneath it hold the same answer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Choice:
    """What is meant; each condition narrows the others, and without any all is meant.

    Attributes:
        calls: uids.
        run: uid of a run; the runs inside it are meant too.
        since_us: what began at this time or later, in microseconds since 1970; `before_us` what began before it.
        text: what contains it, in whatever column; letters of ASCII in either case.
    """

    calls: Sequence[str] = ()
    run: str | None = None
    since_us: int | None = None
    before_us: int | None = None
    text: str | None = None

    def values(self) -> dict[str, Any]:
        """The conditions as the values that the SQL of this module binds."""
        escaped = None if self.text is None else json.dumps(self.text, ensure_ascii=False)[1:-1]
        return {
            "calls": json.dumps(self.calls) if self.calls else None,
            "run": self.run,
            "since_us": self.since_us,
            "before_us": self.before_us,
            "text": self.text,
            "escaped": escaped,
        }


# Runs that lie in the one that was named.
INSIDE: Final = """inside(id) AS (
  SELECT id FROM {db}.runs WHERE uid = :run
  UNION SELECT runs.id FROM {db}.runs JOIN inside ON runs.parent_id = inside.id
)"""
_CALLS: Final = f"""
WITH RECURSIVE {INSIDE},
named(id) AS (
  SELECT c.id FROM {{db}}.llm_calls c
  WHERE (:calls IS NULL OR c.uid IN (SELECT value FROM json_each(:calls)))
    AND (:run IS NULL OR c.run_id IN (SELECT id FROM inside))
    AND (:since_us IS NULL OR c.started_unix_us >= :since_us)
    AND (:before_us IS NULL OR c.started_unix_us < :before_us)
    AND (:text IS NULL OR {{contains}})
),
above(id) AS (
  SELECT id FROM named
  UNION SELECT c.parent_id FROM {{db}}.llm_calls c JOIN above ON c.id = above.id WHERE c.parent_id IS NOT NULL
),
beneath(id) AS (
  SELECT id FROM named
  UNION SELECT c.id FROM {{db}}.llm_calls c JOIN beneath ON c.parent_id = beneath.id
)
SELECT id FROM above UNION SELECT id FROM beneath ORDER BY id
"""
# What was said so far by a call without an end, whose text is nowhere in one piece.
_SO_FAR: Final = """
SELECT group_concat(token, '') FROM (
  SELECT t.token FROM {db}.llm_tokens t WHERE t.call_id = c.id AND t.part = p.part ORDER BY t.token_index
)
"""


def chosen_calls(connection: sqlite3.Connection, choice: Choice, db: str = "main") -> list[int]:
    """Row ids of the calls that are meant, and of those that hold the same answers.

    Args:
        db: the name under which the tape is attached.
    """
    # Searching every column is for those who ask for it.
    contains = "0" if choice.text is None else " OR ".join(_in_call(connection, db))
    sql = _CALLS.format(db=db, contains=f"({contains})")
    return [call_id for (call_id,) in connection.execute(sql, choice.values())]


def contains(connection: sqlite3.Connection, table: str, alias: str, db: str = "main") -> str:
    """The condition that any text of a row contains the text that is looked for."""
    columns = connection.execute(f"PRAGMA {db}.table_info({table})")
    return " OR ".join(_holds(f"{alias}.{name}") for _, name, kind, *_ in columns if kind == "TEXT")


def _in_call(connection: sqlite3.Connection, db: str) -> Iterator[str]:
    yield contains(connection, "llm_calls", "c", db)
    for table, alias in (
        ("llm_parts", "p"),
        ("llm_tokens", "t"),
        ("llm_token_logprobs", "l"),
        ("call_labels", "k"),
        ("marks", "m"),
    ):
        found = contains(connection, table, alias, db)
        yield f"EXISTS (SELECT 1 FROM {db}.{table} {alias} WHERE {alias}.call_id = c.id AND ({found}))"
    for table, alias in (("runs", "r"), ("processes", "o")):
        key = "run_id" if table == "runs" else "process_id"
        found = contains(connection, table, alias, db)
        yield f"EXISTS (SELECT 1 FROM {db}.{table} {alias} WHERE {alias}.id = c.{key} AND ({found}))"
    so_far = _holds(f"({_SO_FAR.format(db=db)})")
    yield f"c.status = 'running' AND EXISTS (SELECT 1 FROM {db}.llm_parts p WHERE p.call_id = c.id AND {so_far})"


def _holds(value: str) -> str:
    # In JSON quotes, backslashes and line breaks are written in another way.
    return f"(instr(lower({value}), lower(:text)) OR instr(lower({value}), lower(:escaped)))"
