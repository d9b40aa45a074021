"""Token events of one call: as rows, a page at a time, and as columns."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from tokentape.tape import Tape

from . import models
from .answers import UNCHANGED, Ask, Milliseconds, in_order, is_known, the_call, the_run
from .csv_text import AS_CSV, csv_text
from .cursors import Cursor, key, page
from .problems import Invalid, NotFound, ProblemRoute

Kind = Literal["text", "reasoning", "tool_args", "refusal", "audio_transcript"]
EVENTS: Final = 100_000
ROWS: Final = 10_000
ROWS_UNASKED: Final = 100
_ALL: Final = -1
_INTEGER: Final = 2**63 - 1

routes = APIRouter(tags=["calls"], route_class=ProblemRoute)


@routes.get("/llm-calls/{call}/events", response_model=models.EventColumns, responses=UNCHANGED)
async def events(
    ask: Ask,
    request: Request,
    response: Response,
    call: str,
    after: Annotated[int, Query(ge=-1, le=_INTEGER)] = -1,
    limit: Annotated[int, Query(ge=1, le=EVENTS)] = EVENTS,
) -> object:
    """The token events of a call as columns; while it runs, ask again with `after` the last index."""

    def columns(tape: Tape) -> object:
        row = the_call(tape, call)
        last = tape.last_index(row["id"])
        if is_known(request, response, row, last):
            return Response(status_code=304, headers=dict(response.headers))
        found = tape.columns(row["id"], after, limit)
        until = found.token_index[-1] if found.token_index else last
        return {
            "call_uid": row["uid"],
            "status": row["status"],
            "parts": tape.parts(row["id"]),
            **found._asdict(),
            "next": until if until < last else None,
        }

    return await ask(columns)


@routes.get("/runs/{run}/llm-calls/{call}/tokens", response_model=models.Tokens, responses={**UNCHANGED, **AS_CSV})
async def tokens(
    ask: Ask,
    request: Request,
    response: Response,
    run: str,
    call: str,
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=ROWS, description="100 as JSON, all as CSV.")] = None,
    offset: Annotated[int, Query(ge=0, le=_INTEGER, description="How many to leave out at the beginning.")] = 0,
    kind: Kind | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in the event.")] = None,
    start: Milliseconds = None,
    end: Milliseconds = None,
    format_: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> object:
    """The token events of a call, in the order they came; `start` and `end` in ms since the call started."""
    in_order(start, end)
    if cursor is not None and offset:
        raise Invalid("offset", "give it or a cursor, not both")
    size = limit or (ROWS_UNASKED if format_ == "json" else _ALL)

    def rows(tape: Tape) -> object:
        row, asked = the_call(tape, call), the_run(tape, run)
        if not tape.is_inside(asked["uid"], row["id"]):
            raise NotFound(f"Call {row['uid']} is not in run {asked['uid']}.")
        of = f"tokens {row['uid']}"
        (after,) = key(of, cursor, int) or (-1,)
        if is_known(request, response, row, tape.last_index(row["id"])):
            return Response(status_code=304, headers=dict(response.headers))
        found = tape.page_of_events(
            row["id"],
            # One more tells whether there is a further page.
            size if format_ == "csv" else size + 1,
            after=after,
            offset=offset,
            kind=kind,
            q=q,
            start_us=_us(start),
            end_us=_us(end),
        )
        if format_ == "csv":
            return csv_text(found, response.headers)
        return page("tokens", of, found, size, ("token_index",))

    return await ask(rows)


def _us(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1000)
