"""Pages for a tape in Datasette, and the command `tokentape serve`.

Two programs load this module: Datasette, and every program that is recorded. So it imports neither Datasette nor anything
of ours until a hook is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.utils.asgi import Request

__version__: Final = "0.1.0"

hookimpl = pluggy.HookimplMarker("datasette")


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The pages."""
    from .pages import routes

    return routes()


@hookimpl
def menu_links(datasette: Datasette, actor: dict[str, Any] | None, request: Request | None) -> Any:
    """A link to the pages, for who may see a tape."""

    async def links() -> list[dict[str, str]]:
        from .access import visible_tapes
        from .pages import BASE

        found = await visible_tapes(datasette, actor)
        return [{"href": datasette.urls.path(BASE), "label": "LLM streams"}] if found else []

    return links
