# ruff: noqa: S608  # tables and columns are named by us; values are bound
"""Reads one table of a damaged database, from both sides around whatever cannot be read."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple

# How many ranges of one table are looked into: each costs two questions. The largest come first.
MAX_RANGES: Final = 20_000
# Of one call: where to look first for the end of those that cannot be read, and where no more.
EVENTS_OF_A_CALL: Final = 4096
MOST_EVENTS: Final = 2**32

Key = tuple[int, ...]
Row = tuple[Any, ...]


class Range(NamedTuple):
    """Keys from one to before another."""

    start: Key
    end: Key

    @property
    def size(self) -> Key:
        """How large it is; compares like the number of keys in it."""
        return tuple(b - a for a, b in zip(self.start, self.end, strict=True))


class Table:
    """One table, by a key of integers: its row id, or the two columns of its primary key.

    Args:
        connection: to the database; its rows are tuples.
        name: the table.
        columns: what is read, the key first.
        width: how many of the columns are the key.
        end: a key that is larger than any there can be.

    Attributes:
        unread: what could not be read, once `rows` has come to its end.
    """

    def __init__(
        self, connection: sqlite3.Connection, name: str, columns: Sequence[str], *, width: int, end: Key
    ) -> None:
        self.unread: list[Range] = []
        self._connection = connection
        self._width = width
        self._end = end
        key = columns[:width]
        names, marks = f"({', '.join(key)})", f"({', '.join('?' * width)})"
        # A row id is looked up in the table itself: an index of it may be what is damaged.
        of = f"{name} NOT INDEXED" if width == 1 else name
        self._sql = f"SELECT {', '.join(columns)} FROM {of} WHERE {names} >= {marks} AND {names} < {marks} ORDER BY "
        self._forward = ", ".join(key)
        self._backward = ", ".join(f"{column} DESC" for column in key)

    def rows(self) -> Iterator[Row]:
        """Every row that can be read, once, in no order."""
        ranges = [(_largest_first(whole := Range((0,) * self._width, self._end)), whole)]
        for _ in range(MAX_RANGES):
            if not ranges:
                break
            _, (start, end) = heapq.heappop(ranges)
            start = yield from self._until_damage(start, end)
            if start >= end:
                continue
            end = yield from self._back_until_damage(start, end)
            middle = _between(start, end)
            halves = [Range(start, middle), Range(middle, end)] if middle is not None else []
            for half in halves:
                heapq.heappush(ranges, (_largest_first(half), half))
            if not halves and start < end:
                self.unread.append(Range(start, end))
        self.unread += [left for _, left in ranges]

    def _until_damage(self, start: Key, end: Key) -> Generator[Row, None, Key]:
        """Rows from the start on; returns where it has to stop, which is `end` if it need not."""
        try:
            for row in self._connection.execute(self._sql + self._forward, (*start, *end)):
                key = row[: self._width]
                if not _is_key(key) or not start <= key < end:
                    return start
                yield row
                start = (*key[:-1], key[-1] + 1)
        except sqlite3.Error:
            return start
        return end

    def _back_until_damage(self, start: Key, end: Key) -> Generator[Row, None, Key]:
        """Rows from the end down; returns down to where it came."""
        try:
            for row in self._connection.execute(self._sql + self._backward, (*start, *end)):
                key = row[: self._width]
                if not _is_key(key) or not start <= key < end:
                    return end
                yield row
                end = key
        except sqlite3.Error:
            return end
        return start


def _largest_first(span: Range) -> Key:
    return tuple(-size for size in span.size)


def _between(start: Key, end: Key) -> Key | None:
    """A key that halves a range; None if there is none."""
    if len(start) == 1:
        return ((start[0] + end[0]) // 2,) if end[0] - start[0] > 1 else None
    call, until = start[0], end[0]
    if until > call:
        middle = (call + until + 1) // 2
        if (middle, 0) < end:
            return middle, 0
        if end[1]:
            return until, 0
        # What is left is the rest of one call, however long that is.
        return (call, 2 * start[1] + EVENTS_OF_A_CALL) if start[1] < MOST_EVENTS else None
    return (call, (start[1] + end[1]) // 2) if end[1] - start[1] > 1 else None


def _is_key(values: Row) -> bool:
    return all(type(value) is int for value in values)
