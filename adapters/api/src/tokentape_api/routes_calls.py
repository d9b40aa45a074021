"""Calls: the list, one, its token events as rows and as columns, several side by side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from tokentape.tape import Row, Tape

from . import models
from .answers import Ask, in_order, is_known, the_call, the_run
from .csv_text import csv_text
from .cursors import cursor, key
from .problems import Invalid, NotFound, ProblemRoute
from .routes_runs import Milliseconds

CallStatus = Literal["running", "completed", "error", "cancelled", "abandoned", "lost"]
Kind = Literal["text", "reasoning", "tool_args", "refusal", "audio_transcript"]
Text = Annotated[str | None, Query(max_length=200)]
_LIST: Final = "calls"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = 2**63 - 1
COMPARED: Final = range(2, 7)
EVENTS: Final = 100_000

routes = APIRouter(tags=["calls"], route_class=ProblemRoute)


@routes.get("/llm-calls", response_model=models.Calls)
async def calls(
    ask: Ask,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor_: Annotated[str | None, Query(alias="cursor")] = None,
    run: Text = None,
    model: Text = None,
    provider: Text = None,
    adapter: Text = None,
    status: CallStatus | None = None,
    label: Annotated[list[str] | None, Query(max_length=20, description="`key:value`; all of several.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in name, model, error or answer.")] = None,
    since: Annotated[datetime | None, Query(description="Started then or later; without a zone it is UTC.")] = None,
    until: Annotated[datetime | None, Query(description="Started before then.")] = None,
    stalled: Annotated[bool | None, Query(description="Stalled after the first token, or did not.")] = None,
) -> object:
    """List calls, newest first."""
    before = key(_LIST, cursor_, int, int)
    since_us, until_us = _unix_us(since), _unix_us(until)
    in_order(since_us, until_us, "until")
    labels = [_label(one) for one in label or ()]

    def page(tape: Tape) -> list[Row]:
        return tape.page_of_calls(
            limit + 1,
            before=before,
            run=None if run is None else the_run(tape, run)["uid"],
            labels=labels,
            status=status,
            model=model,
            provider=provider,
            adapter=adapter,
            q=q,
            since_us=since_us,
            until_us=until_us,
            stalled=stalled,
        )

    found = await ask(page)
    last = found[limit - 1] if len(found) > limit else None
    return {
        "calls": found[:limit],
        "next": cursor(_LIST, (last["started_unix_us"], last["id"])) if last else None,
    }


@routes.get("/llm-calls/{call}", response_model=models.CallDetail)
async def call(ask: Ask, request: Request, response: Response, call: str) -> object:
    """Everything about a call but its events."""
    found = await ask(lambda tape: tape.detail(the_call(tape, call)))
    if is_known(request, response, found):
        return Response(status_code=304, headers=dict(response.headers))
    return found


@routes.get("/llm-calls/{call}/events", response_model=models.EventColumns)
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


@routes.get("/runs/{run}/llm-calls/{call}/tokens", response_model=models.Tokens)
async def tokens(
    ask: Ask,
    request: Request,
    response: Response,
    run: str,
    call: str,
    cursor_: Annotated[str | None, Query(alias="cursor")] = None,
    limit: Annotated[int | None, Query(ge=1, le=10_000, description="100 as JSON; as CSV all.")] = None,
    offset: Annotated[int, Query(ge=0, le=_INTEGER)] = 0,
    kind: Kind | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in the event.")] = None,
    start: Milliseconds = None,
    end: Milliseconds = None,
    format_: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> object:
    """The token events of a call, in the order they came; `start` and `end` in ms since the call started."""
    in_order(start, end)
    if cursor_ is not None and offset:
        raise Invalid("offset", "give it or a cursor, not both")

    def page(tape: Tape) -> object:
        row = the_call(tape, call)
        asked = the_run(tape, run)
        if not tape.is_inside(asked["uid"], row["id"]):
            raise NotFound(f"Call {row['uid']} is not in run {asked['uid']}.")
        of = f"tokens {row['uid']}"
        after = key(of, cursor_, int)
        if is_known(request, response, row, tape.last_index(row["id"])):
            return Response(status_code=304, headers=dict(response.headers))
        size = limit or (100 if format_ == "json" else -2)
        found = tape.page_of_events(
            row["id"],
            size + 1,
            after=-1 if after is None else after[0],
            offset=offset,
            kind=kind,
            q=q,
            start_us=_us(start),
            end_us=_us(end),
        )
        if format_ == "csv":
            return csv_text(found[:size] if size > 0 else found, dict(response.headers))
        more = len(found) > size
        return {"tokens": found[:size], "next": cursor(of, (found[size - 1]["token_index"],)) if more else None}

    return await ask(page)


@routes.get("/compare", response_model=models.Comparison)
async def compare(
    ask: Ask, calls: Annotated[str, Query(max_length=200, description="2 to 6, separated by commas.")]
) -> object:
    """Calls side by side, in the order they were named."""
    refs = [ref.strip() for ref in calls.split(",") if ref.strip()]
    if len(refs) not in COMPARED:
        raise Invalid("calls", f"name 2 to 6 calls, separated by commas, not {len(refs)}")

    def compared(tape: Tape) -> Row:
        ids = [the_call(tape, ref)["id"] for ref in refs]
        if len(set(ids)) < len(ids):
            raise Invalid("calls", "name each call once")
        rows = {row["id"]: row for row in tape.rows_of_calls(ids)}
        took = [row["duration_ms"] or row["running_for_ms"] or row["last_token_latency_ms"] for row in rows.values()]
        return {
            "calls": [rows[call_id] for call_id in ids],
            "duration_ms": max((ms for ms in took if ms is not None), default=None),
        }

    return await ask(compared)


def _unix_us(at: datetime | None) -> int | None:
    if at is None:
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _us(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1000)


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise Invalid("label", f"expected key:value, not {text[:80]!r}")
    return name, value
