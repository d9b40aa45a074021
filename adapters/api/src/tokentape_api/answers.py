"""Asking the source, and telling what is unknown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Query, Request, Response

from tokentape.tape import Row, Tape, named

from .problems import Invalid, NotFound
from .source import TapeSource

T = TypeVar("T")

SOURCE: Final = "tokentape.source"
RUNNING: Final = "running"
# What the same row is answered as may differ between versions.
VERSION: Final = version("tokentape-api")
UNCHANGED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "The call has ended, and the client has this answer: it sent its `ETag` as `If-None-Match`."}
}


# Whether percentiles are over all calls.
All = Annotated[bool, Query(alias="all", description="Percentiles over all calls, not only completed ones.")]

Milliseconds = Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)]


class Asking:
    """Asks the source of a request; what one query reads is the tape at one moment."""

    def __init__(self, request: Request) -> None:
        self._source: TapeSource = request.scope[SOURCE]

    async def __call__(self, query: Callable[[Tape], T]) -> T:
        """Run a query and give what it returns."""

        def in_snapshot(tape: Tape) -> T:
            with tape.snapshot():
                return query(tape)

        return await self._source.read(in_snapshot)


Ask = Annotated[Asking, Depends(Asking)]


def the_run(tape: Tape, ref: str) -> Row:
    """The run that a path names.

    Raises:
        NotFound: none does, or more than one.
    """
    return _the_one("run", ref, tape.find_runs(ref))


def the_call(tape: Tape, ref: str) -> Row:
    """The call that a path names.

    Raises:
        NotFound: none does, or more than one.
    """
    return _the_one("call", ref, tape.find_calls(ref))


def in_order(start: float | None, end: float | None, name: str = "end") -> None:
    """Refuse a range that ends before it starts.

    Raises:
        Invalid: it does.
    """
    if start is not None and end is not None and end < start:
        raise Invalid(name, "the range ends before it starts")


def is_known(request: Request, response: Response, call: Row, *facts: Any) -> bool:
    """Whether the client has the answer about a call already; notes the answer's tag where the call has ended.

    Args:
        call: its row.
        facts: whatever else the answer depends on.
    """
    response.headers["Cache-Control"] = "private, no-cache"
    if call["status"] == RUNNING:
        return False
    state = json.dumps([VERSION, request.url.path, request.url.query, call, facts], default=str, sort_keys=True)
    tag = f'"{hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
    response.headers["ETag"] = tag
    asked = request.headers.get("If-None-Match", "")
    return asked.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in asked.split(","))


def _the_one(what: str, ref: str, found: list[Row]) -> Row:
    if not found:
        raise NotFound(f"No {what} {ref[:80]!r} is on this tape.")
    if len(found) > 1:
        raise NotFound(f"{ref!r} could be any of {named(found)}; give more of it.")
    return found[0]
