"""What differs between Datasette 0.65 and 1.0."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datasette.app import Datasette

    from .policy import Receive, Scope

# Who has opened the link that Datasette makes for `--root`, and where it leads.
ROOT: Final = "root"
LOGIN: Final = "/-/auth-token"

_NO_LANGUAGE: Final = re.compile(r"<html>", re.IGNORECASE)


async def may_view(datasette: Datasette, actor: dict[str, Any] | None, database: str, tables: Iterable[str]) -> bool:
    """Whether an actor may see all of these tables, by Datasette's rules for pages of tables."""
    if hasattr(datasette, "allowed"):
        from datasette.resources import TableResource

        for table in tables:
            if not await datasette.allowed(action="view-table", resource=TableResource(database, table), actor=actor):
                return False
        return True
    from datasette import Forbidden

    for table in tables:
        try:
            # The first of these that has an opinion decides, as for the table's own page.
            await datasette.ensure_permissions(
                actor, [("view-table", (database, table)), ("view-database", database), "view-instance"]
            )
        except Forbidden:
            return False
    return True


def with_language(html: str) -> str:
    """A page that says what language it is in: the base template of 0.65 does not."""
    return _NO_LANGUAGE.sub('<html lang="en">', html, count=1)


def open_datasette(
    path: Path, settings: Mapping[str, Any], metadata: Mapping[str, Any], allow: Mapping[str, Any] | None
) -> Datasette:
    """Datasette on one database.

    Args:
        path: its file.
        settings: Datasette's.
        metadata: as 0.65 takes it, queries among it.
        allow: who may see anything; None for everybody.
    """
    from datasette.app import Datasette

    # Where rich is installed, Datasette prints what every local variable holds, tokens among it, for each page that is
    # not found. Imported by name, and so after the application: that loads Datasette's own plugins, of which this is
    # one, and a module that is half imported by then answers for nothing.
    import_module("datasette.handle_exception").rich = None  # type: ignore[attr-defined]
    allowed = {} if allow is None else {"allow": dict(allow)}
    more: dict[str, Any] = {"metadata": {**metadata, **allowed}, "settings": dict(settings)}
    if "config" in inspect.signature(Datasette).parameters:
        queries = {name: {"queries": database["queries"]} for name, database in metadata.get("databases", {}).items()}
        more = {"metadata": dict(metadata), "config": {**allowed, "settings": dict(settings), "databases": queries}}
    return Datasette([str(path)], **more)


def login_path(datasette: Datasette) -> str:
    """Path and query of the link that logs in once, as `--root` makes it."""
    return f"{LOGIN}?token={datasette._root_token}"  # as Datasette's own command does


async def actor_of(datasette: Datasette, scope: Scope, receive: Receive) -> Any:
    """Who sends a request, by what Datasette and its plugins make of it; None for nobody."""
    from datasette.plugins import pm
    from datasette.utils import await_me_maybe
    from datasette.utils.asgi import Request

    found = None
    # All are awaited, also behind the first that knows somebody: Python complains of those that are not.
    for answer in pm.hook.actor_from_request(datasette=datasette, request=Request(scope, receive)):
        try:
            found = await await_me_maybe(answer) or found
        except Exception as error:
            # 1.0 has an error for a token that is not valid.
            if type(error).__name__ != "TokenInvalid":
                raise
    return found
