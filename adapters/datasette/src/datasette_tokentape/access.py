"""Who may see a tape."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tokentape.store.tables import TABLES

from . import compat
from .databases import tapes

if TYPE_CHECKING:
    from datasette.app import Datasette

# What the pages and the API read: the views hold nothing that is not in these.
READ_TABLES: Final = tuple(re.findall(r"^CREATE TABLE (\w+)", TABLES, re.MULTILINE))


async def may_see(datasette: Datasette, actor: dict[str, Any] | None, database: str) -> bool:
    """Whether an actor may see a tape: the database, and every table that is read."""
    return await compat.may_view(datasette, actor, database, READ_TABLES)


async def visible_tapes(datasette: Datasette, actor: dict[str, Any] | None) -> list[Any]:
    """The tapes that an actor may see."""
    return [tape for tape in await tapes(datasette) if await may_see(datasette, actor, tape.name)]
