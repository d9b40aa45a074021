"""Runs: the list, one, its timeline, its statistics."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from . import models
from .answers import All, Ask, Milliseconds, in_order, the_run
from .cursors import Cursor, Limit, key, page
from .problems import ProblemRoute

RunStatus = Literal["running", "completed", "error", "lost"]
_LIST = "runs"

routes = APIRouter(tags=["runs"], route_class=ProblemRoute)


@routes.get("/runs", response_model=models.Runs)
async def runs(
    ask: Ask,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: RunStatus | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in name or uid.")] = None,
) -> object:
    """List runs, newest first."""
    before = key(_LIST, cursor, str, int)
    found = await ask(lambda tape: tape.page_of_runs(limit + 1, before=before, status=status, q=q))
    return page("runs", _LIST, found, limit, ("started_at", "id"))


@routes.get("/runs/{run}", response_model=models.RunDetail)
async def run(ask: Ask, run: str) -> object:
    """One run, with its totals and what was noted about it."""
    return await ask(lambda tape: the_run(tape, run))


@routes.get("/runs/{run}/timeline", response_model=models.Timeline)
async def timeline(ask: Ask, run: str, bins: Annotated[int, Query(ge=1, le=1000)] = 48) -> object:
    """A run as it went: its calls, those they made inside them, and the marks between them."""
    return await ask(lambda tape: tape.timeline(the_run(tape, run), bins, _now_us()))


@routes.get("/runs/{run}/streaming-stats", response_model=models.StreamingStats)
async def streaming_stats(
    ask: Ask,
    run: str,
    every: All = False,
) -> object:
    """The metrics of each call of a run, and of all of them."""
    return await ask(lambda tape: tape.streaming_stats(the_run(tape, run)["uid"], every=every))


@routes.get("/runs/{run}/tokens/timeseries", response_model=models.Timeseries)
async def timeseries(
    ask: Ask,
    run: str,
    start: Milliseconds = None,
    end: Milliseconds = None,
    buckets: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> object:
    """How many token events came when, in ms since the run started."""
    in_order(start, end)
    return await ask(lambda tape: tape.timeseries(the_run(tape, run), start, end, buckets, _now_us()))


def _now_us() -> int:
    return time.time_ns() // 1000
