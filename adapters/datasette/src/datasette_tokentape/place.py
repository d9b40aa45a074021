"""Where a request looks: whose it is, which tape it means, and how links lead on from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

from datasette import Forbidden

from tokentape.tape import Tape

from .access import may_see
from .databases import DatabaseSource, tapes
from .policy import BASE

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database
    from datasette.utils.asgi import Request

T = TypeVar("T")

_SHOWN: Final = 80


class Problem(Exception):
    """What is answered instead of a page.

    Args:
        status: of the answer.
        sentence: what, which, and what to do.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class NoTapeChosen(Problem):
    """Several tapes are open, and the request does not say which it means."""

    def __init__(self) -> None:
        super().__init__(400, "Several tapes are open: choose one with ?db=NAME.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request looks.

    Attributes:
        tapes: names of those that its actor may see.
        tape: the one that it means.
    """

    datasette: Datasette
    tapes: tuple[str, ...]
    tape: str | None

    @property
    def query(self) -> dict[str, str]:
        """What has to be in the query of every link, so that it leads to the same tape."""
        return {"db": self.tape} if self.tape is not None and len(self.tapes) > 1 else {}

    def link(self, *steps: str, **query: Any) -> str:
        """A link to one of our pages.

        Args:
            steps: of its path, below `/-/tokentape`.
            query: its parameters; None for one that it does not have.
        """
        wanted = {**self.query, **{name: value for name, value in query.items() if value is not None}}
        path = self.datasette.urls.path("/".join([BASE, *(quote(step, safe="") for step in steps)]))
        return f"{path}?{urlencode(wanted)}" if wanted else str(path)

    def table(self, name: str, **query: Any) -> str:
        """A link to a table of the tape as Datasette shows it."""
        path = self.datasette.urls.table(self.database.name, name)
        return f"{path}?{urlencode(query)}" if query else str(path)

    @property
    def database(self) -> Database:
        """The database that is meant.

        Raises:
            NoTapeChosen: several could be.
        """
        if self.tape is None:
            raise NoTapeChosen
        return self.datasette.get_database(self.tape)

    async def read(self, query: Callable[[Tape], T]) -> T:
        """Run a query on the tape.

        Raises:
            NoTapeChosen: several could be meant.
            TapeError: it cannot be read now.
        """
        return await DatabaseSource(self.database).read(query)


async def find_place(datasette: Datasette, request: Request) -> Place:
    """Where a request looks.

    Raises:
        Problem: no database of that name is a tape, or none at all is.
        Forbidden: its actor may not see it.
    """
    found = {database.name: database for database in await tapes(datasette)}
    wanted = request.args.get("db") or None
    if wanted is not None and wanted not in found:
        raise Problem(404, f"No open database named {wanted[:_SHOWN]!r} is a tape.")
    if not found:
        raise Problem(404, "None of the open databases is a tape; open one with: tokentape serve --db PATH")
    visible = [name for name in found if await may_see(datasette, request.actor, name)]
    if not visible or (wanted is not None and wanted not in visible):
        raise Forbidden("You may not see this tape.")
    only = visible[0] if len(visible) == 1 else None
    return Place(datasette, tuple(visible), wanted or only)
