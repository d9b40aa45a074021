"""Pages for a tape in Datasette, and the command `tokentape serve`.

Datasette loads this module, and so does every program that is recorded: until a hook is called it imports neither
Datasette nor anything else of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from tokentape.hookspecs import hookimpl as tokentape_hookimpl

if TYPE_CHECKING:
    import click
    from datasette.app import Datasette
    from datasette.utils.asgi import Request

    from .policy import App, Guard

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("datasette")


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The pages and the API."""
    from .pages import routes

    return routes()


@hookimpl
def asgi_wrapper(datasette: Datasette) -> Any:
    """Headers on our paths, and the check of the host."""
    from .policy import Guard

    def guarded(app: App) -> Guard:
        return Guard(app, datasette)

    return guarded


@hookimpl(trylast=True)
def forbidden(datasette: Datasette, request: Request, message: str) -> Any:
    """Our own page for who may not see one of ours, unless another plugin has an answer: a way to log in."""
    from .policy import is_ours

    if not is_ours(request.scope, datasette):
        return None

    async def page() -> Any:
        from .pages import refused

        return await refused(datasette, request, message)

    return page


@hookimpl
def menu_links(datasette: Datasette, actor: dict[str, Any] | None) -> Any:
    """A link to the pages, for who may see a tape."""

    async def links() -> list[dict[str, str]]:
        import sqlite3

        from .access import visible_tapes
        from .policy import BASE

        try:
            found = await visible_tapes(datasette, actor)
        except sqlite3.OperationalError:
            found = []  # a page of Datasette that needs no tape does not fail because of one
        return [{"href": datasette.urls.path(BASE), "label": "LLM streams"}] if found else []

    return links


@hookimpl
def render_cell(value: Any, column: str, table: str | None, database: str, datasette: Datasette) -> Any:
    """Links from rows of a tape to our pages."""
    from .cells import link

    return link(datasette, database, table, column, value)


@tokentape_hookimpl
def tokentape_register_commands(cli: click.Group) -> None:
    """Add `tokentape serve`."""
    from .serve import command

    cli.add_command(command)
