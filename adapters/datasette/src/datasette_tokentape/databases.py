"""Which of the open databases are tapes."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from tokentape.store.schema import APPLICATION_ID

if TYPE_CHECKING:
    from datasette.app import Datasette


async def tapes(datasette: Datasette) -> list[Any]:
    """The databases that are tapes, in the order they were opened."""
    candidates = [database for database in datasette.databases.values() if not database.is_memory]
    answers = await asyncio.gather(*map(_is_tape, candidates))
    return [database for database, is_tape in zip(candidates, answers, strict=True) if is_tape]


async def _is_tape(database: Any) -> bool:
    def application_id(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])

    try:
        found: int = await database.execute_fn(application_id)
    except sqlite3.Error:
        return False
    return found == APPLICATION_ID
