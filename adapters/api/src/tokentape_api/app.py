"""The application: by itself, or its routes as part of another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.exceptions import HTTPException

from tokentape import settings
from tokentape.errors import SettingsError

from . import routes_calls, routes_live, routes_models, routes_runs, routes_tokens
from .answers import SOURCE
from .feed import Feed
from .problems import RESPONSES, http_problem
from .source import FileSource, TapeSource

PREFIX: Final = "/v1"
ROUTES: Final = (routes_runs, routes_calls, routes_tokens, routes_models, routes_live)


def router(source: TapeSource) -> APIRouter:
    """The routes, below `/v1`, for `app.include_router(...)` of an app of your own.

    Args:
        source: the tape they read. Closing it is up to you.
    """
    feed = Feed(source)

    async def provide(request: Request) -> None:
        request.scope[SOURCE] = source
        request.scope[routes_live.FEED] = feed

    found = APIRouter(prefix=PREFIX, dependencies=[Depends(provide)], responses=RESPONSES)
    for module in ROUTES:
        found.include_router(module.routes)
    return found


def create_app(source: TapeSource | Path | str) -> FastAPI:
    """The API as an application of its own.

    Args:
        source: where the tape is; or a source, which is then yours to close.
    """
    ours = FileSource(source) if isinstance(source, str | Path) else None
    read = ours if ours is not None else cast("TapeSource", source)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if ours is not None:
            ours.close()

    app = FastAPI(
        title="tokentape",
        version="1",
        description="What tokentape recorded, read-only. `…_ms` is in milliseconds; what is not known is null.",
        lifespan=lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        # FastAPI's pages for reading the schema load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(router(read))
    app.add_exception_handler(HTTPException, http_problem)
    return app


def app_from_environment() -> FastAPI:
    """The API on the tape that the environment names: `uvicorn --factory tokentape_api:app_from_environment`.

    Raises:
        SystemExit: a setting cannot be used; the server ends with one line that says which.
    """
    try:
        path = settings.resolve().db
    except SettingsError as error:
        raise SystemExit(f"tokentape: {error}") from error
    if path is None:
        raise SystemExit("tokentape: the tape is set to none: nothing can be read; name one with TOKENTAPE_DB=PATH")
    return create_app(path)
