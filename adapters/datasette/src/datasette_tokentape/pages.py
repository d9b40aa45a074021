"""The paths below `/-/tokentape`: each page, the API, and what is answered where neither can be."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from datasette import Forbidden, Response

from tokentape.errors import TapeError
from tokentape_api import create_app
from tokentape_api.problems import Invalid, NotFound

from . import compat, shown, views
from .databases import DatabaseSource
from .place import Place, Problem, find_place
from .policy import BASE, PLUGIN

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.utils.asgi import Request
    from fastapi import FastAPI

    from .policy import Receive, Scope, Send

logger = logging.getLogger(__name__)

View = Callable[[Place, "Request"], Awaitable[views.Page]]

API: Final = f"{BASE}/api"
PAGES: Final[dict[str, View]] = {
    rf"{BASE}$": views.index,
    rf"{BASE}/runs/(?P<run>[^/]+)$": views.run,
    rf"{BASE}/calls/(?P<call>[^/]+)$": views.call,
    rf"{BASE}/race$": views.race,
    rf"{BASE}/models$": views.models,
    rf"{BASE}/live$": views.live,
    # Everything else below, but what ends with a slash: that leads to the same without one.
    rf"{BASE}/.*[^/]$": views.nowhere,
}


def routes() -> list[tuple[str, Any]]:
    """Paths and what answers there, as Datasette wants them."""
    return [(rf"{API}/v1(?:/.*)?$", _api()), *((path, _page(view)) for path, view in PAGES.items())]


async def refused(datasette: Datasette, request: Request, message: str) -> Response:
    """The page for who may not see the one that was asked for."""
    return await _problem(datasette, request, None, HTTPStatus.FORBIDDEN, message)


def _page(view: View) -> Callable[..., Awaitable[Response]]:
    async def answer(datasette: Datasette, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return Response.text("Pages are only read.\n", status=405, headers={"Allow": "GET, HEAD"})
        place = None
        try:
            place = await find_place(datasette, request)
            page = await view(place, request)
            return await _rendered(datasette, request, place, page.template, page.context)
        except Forbidden:
            raise
        except Exception as error:
            return await _problem(datasette, request, place, *_told(error))

    return answer


def _api() -> Callable[..., Awaitable[Response | None]]:
    apps: dict[str, tuple[object, FastAPI]] = {}

    async def answer(datasette: Datasette, request: Request, receive: Receive, send: Send) -> Response | None:
        try:
            place = await find_place(datasette, request)
            database = place.database
        except Forbidden as error:
            return _api_problem(HTTPStatus.FORBIDDEN, str(error))
        except Exception as error:
            return _api_problem(*_told(error))
        known, app = apps.get(database.name, (None, None))
        if app is None or known is not database:
            app = create_app(DatabaseSource(database))
            apps[database.name] = database, app
        try:
            await app(_below_api(request.scope), receive, send)
        except Exception:
            # The app has answered, with an error of its own; Datasette would answer once more.
            logger.exception("the API failed at %s", request.path)
        return None

    return answer


def _below_api(scope: Scope) -> Scope:
    """The request as the API sees it: mounted at a path."""
    before, api, _ = scope["path"].partition(API)
    return {**scope, "root_path": before + api}


def _api_problem(status: int, sentence: str) -> Response:
    answer = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": sentence}
    found: Response = Response.json(answer, status=status)
    found.content_type = "application/problem+json"
    return found


def _told(error: Exception) -> tuple[int, str]:
    """Status and sentence for what went wrong."""
    if isinstance(error, Problem):
        return error.status, str(error)
    if isinstance(error, NotFound):
        return HTTPStatus.NOT_FOUND, str(error)
    if isinstance(error, Invalid):
        return HTTPStatus.BAD_REQUEST, str(error)
    if isinstance(error, TapeError):
        return HTTPStatus.SERVICE_UNAVAILABLE, f"{error}."
    if isinstance(error, sqlite3.OperationalError):
        return HTTPStatus.SERVICE_UNAVAILABLE, f"The tape cannot be read now ({error}); try again."
    logger.error("a page failed", exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR, "This page could not be made; the log of the server says why."


async def _problem(datasette: Datasette, request: Request, place: Place | None, status: int, sentence: str) -> Response:
    if place is None:
        place = Place(datasette, (), None)
    page = {"status": int(status), "title": HTTPStatus(status).phrase, "sentence": sentence}
    return await _rendered(datasette, request, place, "tokentape_problem.html", page, status)


async def _rendered(
    datasette: Datasette, request: Request, place: Place, template: str, page: dict[str, Any], status: int = 200
) -> Response:
    context = {**shown.FOR_TEMPLATES, **page, "place": place, "api": str(datasette.urls.path(f"{API}/v1"))}
    context["file"] = lambda name: datasette.urls.static_plugins(PLUGIN, name)
    html = await datasette.render_template(template, context, request=request, view_name="tokentape")
    return Response.html(compat.with_language(html), status=int(status), headers={"Cache-Control": "private, no-cache"})
