# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""Reads rows over a connection: one's own to a file, or one that belongs to somebody else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import TapeError
from ..store import schema
from ..store.lost import gone_processes
from ..store.text import storable

T = TypeVar("T")
Row = dict[str, Any]
Values = Mapping[str, Any] | Sequence[Any]

# A call that is marked as running is lost when its process is gone; `:gone` is what `Reader.gone` gives.
STATUS: Final = (
    "CASE WHEN c.status = 'running' AND c.process_id IN (SELECT value FROM json_each(:gone)) "
    "THEN 'lost' ELSE c.status END"
)
# A run and everything inside it.
INSIDE: Final = """
WITH RECURSIVE inside(id) AS (
  SELECT id FROM runs WHERE uid = :run
  UNION SELECT runs.id FROM runs JOIN inside ON runs.parent_id = inside.id
)
"""

# How many of the rows that a reference could mean are looked for.
SEVERAL: Final = 6
UID_CHARS: Final = 26


class Reader:
    """What every question is asked through.

    Args:
        connection: its row factory may be any whose rows can be iterated.
        path: where the tape is.
        name: what it is called in messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self._connection = connection

    @property
    def is_newer(self) -> bool:
        """Whether a newer version of tokentape wrote this tape: it can be read, and not recorded to."""
        return schema.tape_format(self._connection) > schema.FORMAT

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is asked inside sees the tape as it is at the first question, whatever others write meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        with self._reading():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def gone(self, *, with_runs: bool = False) -> str:
        """Ids of processes that are gone although something of theirs is marked as running, as a JSON list."""
        with self._reading():
            return json.dumps(gone_processes(self._connection, with_runs=with_runs))

    def _rows(self, sql: str, values: Values = ()) -> list[Row]:
        def rows(cursor: sqlite3.Cursor) -> list[Row]:
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return self._fetched(sql, values, rows)

    def _tuples(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._fetched(sql, values, lambda cursor: [tuple(row) for row in cursor])

    def _fetched(self, sql: str, values: Values, fetch: Callable[[sqlite3.Cursor], T]) -> T:
        bound: Values = (
            {name: _bound(value) for name, value in values.items()}
            if isinstance(values, Mapping)
            else [_bound(value) for value in values]
        )
        with self._reading():
            try:
                return fetch(self._connection.execute(sql, bound))
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            # Text that is not UTF-8, which others may have written; reading all of it so would take thrice as long.
            strict, self._connection.text_factory = self._connection.text_factory, _lenient
            try:
                return fetch(self._connection.execute(sql, bound))
            finally:
                self._connection.text_factory = strict

    def _matching(self, table: str, ref: str) -> list[Row]:
        """Rows of a table that answer to a uid, to the unique beginning of one, or to a row id; a few if it is not."""
        found = self._rows(f"SELECT * FROM {table} WHERE uid = ?", [ref])
        if found or not (ref.isascii() and ref.isalnum() and len(ref) <= UID_CHARS):
            return found
        # A uid of this millennium begins with a zero, a row id never does.
        if ref.isdigit() and not ref.startswith("0"):
            return self._rows(f"SELECT * FROM {table} WHERE id = CAST(? AS INTEGER)", [ref])
        beginning = f"SELECT * FROM {table} WHERE uid >= :ref AND uid < :ref || '~' ORDER BY uid LIMIT :limit"
        found = self._rows(beginning, {"ref": ref.upper(), "limit": SEVERAL})
        return [row for row in found if row["uid"] == ref.upper()] or found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if schema.is_busy(error):
                raise schema.locked(self._name) from error
            if schema.is_damage(error):
                raise schema.damaged(self._name, error) from error
            raise TapeError(f"{self._name} cannot be read ({error}); try again, or see tokentape status") from error


def file_of(connection: sqlite3.Connection) -> Path:
    """Path of the main database of a connection."""
    for _, name, file in connection.execute("PRAGMA database_list"):
        if name == "main":
            return Path(file or ":memory:")
    return Path(":memory:")


def parsed(text: str | None) -> Any:
    """The value of a JSON column; None where there is none, or where it is no JSON."""
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=lambda _: None)
        return _whole(value) if "\\u" in text else value
    except (ValueError, RecursionError):
        return None


def holds(column: str) -> str:
    """The condition that a column has the text `:q` in it; letters of ASCII in either case."""
    # Not LIKE: it ends at a NUL, and its wildcards would have to be escaped.
    return f"instr(lower({column}), lower(:q))"


def _whole(value: Any) -> Any:
    """The value with half characters replaced, which JSON can escape and UTF-8 cannot hold."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {storable(name): _whole(item) for name, item in value.items()}
    return value


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _bound(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value
