"""Inserts many rows by few statements: the interpreter is given up at each, and beside busy threads not got back soon.

With 50 threads that compute, each statement costs a quarter of a second of waiting, whatever it does. `executemany`
gives the interpreter up at every row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, Final

from ..courtesy import give_way, is_crowded

# While the values of a statement are bound no chunk can reach the program; a longer one is hardly faster a row.
MAX_ROWS: Final = 128
# In a crowd it is the number of statements that counts.
MAX_ROWS_CROWDED: Final = 512


def insert_many(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]], then: str = "") -> None:
    """Insert rows.

    Args:
        into: the statement up to its FROM, such as `INSERT INTO t (a, b) SELECT column1, column2`.
        rows: the values, all of one width; the statement knows them as `column1`, `column2`, …
        then: what follows, such as an ON CONFLICT clause.
    """
    if rows:
        insert_flat(connection, into, len(rows[0]), chain.from_iterable(rows), len(rows), then)


def insert_flat(
    connection: sqlite3.Connection, into: str, width: int, values: Iterator[Any], count: int, then: str = ""
) -> None:
    """Insert `count` rows of `width` values each, given one behind the other; otherwise as `insert_many`."""
    while count:
        taken = min(count, MAX_ROWS_CROWDED if is_crowded() else MAX_ROWS)
        # A power of two: ten statements, which sqlite3 keeps prepared, do for all counts. LIMIT leaves the padding out.
        size = 1 << (taken - 1).bit_length()
        sql = _statement(into, width, size, then)
        connection.execute(sql, (*islice(values, taken * width), *repeat(None, (size - taken) * width), taken))
        count -= taken
        give_way()


@cache
def _statement(into: str, width: int, size: int, then: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{into} FROM (VALUES {', '.join([row] * size)}) LIMIT ? {then}"
