"""The pages below `/-/tokentape`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from datasette import Forbidden, NotFound, Response

from . import compat
from .access import visible_tapes

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.utils.asgi import Request

BASE: Final = "/-/tokentape"


async def index(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_index.html", {})


async def run(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_run.html", {"run_uid": request.url_vars["run"]})


async def call(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_call.html", {"call_uid": request.url_vars["call"]})


async def race(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_race.html", {"call_uids": request.args.get("calls") or ""})


async def models(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_models.html", {})


async def live(datasette: Datasette, request: Request) -> Response:
    return await _page(datasette, request, "tokentape_live.html", {})


def routes() -> list[tuple[str, Any]]:
    """Paths as Datasette wants them."""
    return [
        (rf"{BASE}$", index),
        (rf"{BASE}/runs/(?P<run>[^/]+)$", run),
        (rf"{BASE}/calls/(?P<call>[^/]+)$", call),
        (rf"{BASE}/race$", race),
        (rf"{BASE}/models$", models),
        (rf"{BASE}/live$", live),
    ]


async def _page(datasette: Datasette, request: Request, template: str, context: dict[str, Any]) -> Response:
    found = await visible_tapes(datasette, request.actor)
    if not found:
        raise Forbidden("No tape here that you may see.")
    wanted = request.args.get("db")
    tape = next((t for t in found if t.name == wanted), None) if wanted else found[0]
    if tape is None:
        raise NotFound(f"No tape is called {wanted!r}.")
    query = urlencode({"db": tape.name}) if len(found) > 1 else ""
    base = str(datasette.urls.path(BASE))
    html = await datasette.render_template(
        template,
        {
            **context,
            "pages": base,
            "api": f"{base}/api/v1",
            "query": query,
            "static_file": lambda name: datasette.urls.static_plugins("datasette-tokentape", name),
        },
        request=request,
    )
    return Response.html(compat.with_language(html))
