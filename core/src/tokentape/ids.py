"""Public ids: ULIDs, which sort by time and are safe in URLs and file names."""

from __future__ import annotations

from ulid import ULID


def new_uid() -> str:
    """A new ULID as 26 characters."""
    return str(ULID())
