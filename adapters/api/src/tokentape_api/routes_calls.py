"""Calls: the list, one, several side by side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from tokentape.tape import Row, Tape

from . import models
from .answers import UNCHANGED, Ask, in_order, is_known, the_call, the_run
from .cursors import Cursor, Limit, key, page
from .problems import Invalid, ProblemRoute

CallStatus = Literal["running", "completed", "error", "cancelled", "abandoned", "lost"]
Text = Annotated[str | None, Query(max_length=200)]
_LIST: Final = "calls"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
COMPARED: Final = range(2, 7)

routes = APIRouter(tags=["calls"], route_class=ProblemRoute)


@routes.get("/llm-calls", response_model=models.Calls)
async def calls(
    ask: Ask,
    limit: Limit = 50,
    cursor: Cursor = None,
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
    before = key(_LIST, cursor, int, int)
    since_us, until_us = _unix_us(since), _unix_us(until)
    in_order(since_us, until_us, "until")
    labels = [_label(one) for one in label or ()]

    def rows(tape: Tape) -> list[Row]:
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

    found = await ask(rows)
    return page("calls", _LIST, found, limit, ("started_unix_us", "id"))


@routes.get("/llm-calls/{call}", response_model=models.CallDetail, responses=UNCHANGED)
async def call(ask: Ask, request: Request, response: Response, call: str) -> object:
    """Everything about a call but its events."""
    found = await ask(lambda tape: tape.detail(the_call(tape, call)))
    if is_known(request, response, found):
        return Response(status_code=304, headers=dict(response.headers))
    return found


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


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise Invalid("label", f"expected key:value, not {text[:80]!r}")
    return name, value
