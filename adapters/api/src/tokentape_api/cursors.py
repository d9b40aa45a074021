"""Where a page of a list ended, as text that only the same list takes back."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final

from .problems import Invalid

_LONGEST: Final = 400
_INTEGERS: Final = range(-(2**63), 2**63)

Key = Sequence[str | int]


def cursor(of: str, key: Key) -> str:
    """The cursor behind a row.

    Args:
        of: the list, so named that no other has its name.
        key: what the list is ordered by, of its last row.
    """
    return urlsafe_b64encode(json.dumps([of, *key], separators=(",", ":")).encode()).decode().rstrip("=")


def key(of: str, text: str | None, *shape: type[str | int]) -> tuple[Any, ...] | None:
    """The key that a cursor holds; None without one.

    Args:
        of: the list that is asked for.
        shape: the types of its key.

    Raises:
        Invalid: it is no cursor, or one of another list.
    """
    if text is None:
        return None
    found = _decoded(text)
    if not (isinstance(found, list) and found[:1] == [of] and _fits(found[1:], shape)):
        raise Invalid("cursor", "take it from the `next` of the same list")
    return tuple(found[1:])


def _decoded(text: str) -> object:
    if len(text) > _LONGEST:
        return None
    try:
        found: object = json.loads(urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return found


def _fits(values: list[object], shape: tuple[type, ...]) -> bool:
    return len(values) == len(shape) and all(
        type(value) is kind and (kind is not int or value in _INTEGERS)
        for value, kind in zip(values, shape, strict=True)
    )
