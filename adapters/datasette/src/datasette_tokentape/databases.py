"""Which of the open databases are tapes, and how they are read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tokentape.errors import TapeError
from tokentape.store.schema import APPLICATION_ID
from tokentape.tape import Tape

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

T = TypeVar("T")


class DatabaseSource:
    """A tape that Datasette has open, read over Datasette's own connections and threads.

    Args:
        database: it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, query: Callable[[Tape], T]) -> T:
        """Run a query and give what it returns; what it reads is the tape at one moment.

        Raises:
            TapeError: the tape cannot be read now.
        """

        def run(connection: sqlite3.Connection) -> T:
            tape = Tape.over(connection)
            with tape.snapshot():
                return query(tape)

        try:
            found: T = await self._database.execute_fn(run)
        except sqlite3.Error as error:
            raise TapeError(f"{self._database.name} cannot be read ({error})") from error
        return found


async def tapes(datasette: Datasette) -> list[Database]:
    """The databases that are tapes, in the order they were opened.

    Raises:
        sqlite3.OperationalError: one cannot be read now.
    """
    candidates = [database for database in datasette.databases.values() if not database.is_memory]
    answers = await asyncio.gather(*map(is_tape, candidates))
    return [database for database, answer in zip(candidates, answers, strict=True) if answer]


async def is_tape(database: Database) -> bool:
    """Whether a database is a tape.

    Raises:
        sqlite3.OperationalError: it cannot be read now.
    """
    try:
        found: int = await database.execute_fn(_application_id)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False
    return found == APPLICATION_ID


def _application_id(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA application_id").fetchone()[0])
