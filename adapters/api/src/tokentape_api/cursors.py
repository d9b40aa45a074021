"""Pages of lists, and where one ended, as text that only the same list takes back."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Query

from .problems import Invalid

Cursor = Annotated[str | None, Query(alias="cursor", description="The `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Row = dict[str, Any]

_LONGEST: Final = 400
_INTEGERS: Final = range(-(2**63), 2**63)


def page(name: str, of: str, rows: Sequence[Row], limit: int, order: Sequence[str]) -> Row:
    """A page of a list as it is answered.

    Args:
        name: what its rows are called.
        of: the list, so named that no other has its name.
        rows: those that are on it, and one more if there is a further page.
        order: the columns that the list is ordered by.
    """
    more = len(rows) > limit
    return {name: rows[:limit], "next": _cursor(of, [rows[limit - 1][column] for column in order]) if more else None}


def key(of: str, cursor: str | None, *shape: type[str | int]) -> tuple[Any, ...] | None:
    """What a list is ordered by, of the last row of the page before; None without a cursor.

    Args:
        of: the list that is asked for.
        shape: the types of the columns it is ordered by.

    Raises:
        Invalid: it is no cursor, or one of another list.
    """
    if cursor is None:
        return None
    found = _decoded(cursor)
    if not (isinstance(found, list) and found[:1] == [of] and _fits(found[1:], shape)):
        raise Invalid("cursor", "take it from the `next` of the same list")
    return tuple(found[1:])


def _cursor(of: str, values: Sequence[Any]) -> str:
    return urlsafe_b64encode(json.dumps([of, *values], separators=(",", ":")).encode()).decode().rstrip("=")


def _decoded(cursor: str) -> object:
    if len(cursor) > _LONGEST:
        return None
    try:
        found: object = json.loads(urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        return None
    return found


def _fits(values: Sequence[object], shape: Sequence[type]) -> bool:
    return len(values) == len(shape) and all(
        type(value) is kind and (kind is not int or value in _INTEGERS)
        for value, kind in zip(values, shape, strict=True)
    )
