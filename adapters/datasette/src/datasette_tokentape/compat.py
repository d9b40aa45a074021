"""What differs between Datasette 0.65 and 1.0."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datasette.app import Datasette

_NO_LANGUAGE: Final = re.compile(r"<html>", re.IGNORECASE)


async def may_view(datasette: Datasette, actor: dict[str, Any] | None, database: str, tables: Iterable[str]) -> bool:
    """Whether an actor may see all of these tables, by Datasette's rules for pages of tables."""
    if hasattr(datasette, "allowed"):
        from datasette.resources import TableResource

        for table in tables:
            if not await datasette.allowed(action="view-table", resource=TableResource(database, table), actor=actor):
                return False
        return True
    for table in tables:
        asked = [("view-table", (database, table)), ("view-database", database), "view-instance"]
        if not (await datasette.check_visibility(actor, permissions=asked))[0]:
            return False
    return True


def with_language(html: str) -> str:
    """A page that says what language it is in: the base template of 0.65 does not."""
    return _NO_LANGUAGE.sub('<html lang="en">', html, count=1)
