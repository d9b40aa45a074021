"""What happens now, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Send

from tokentape.tape import Came, Change, Position, Started

from . import models
from .feed import Feed
from .problems import Invalid, ProblemRoute

FEED: Final = "tokentape.feed"
# What is no line break in an event stream, and is taken for one by clients that split text at all that Unicode has.
LINE_BREAKS: Final = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"})
IDLE: Final = ": idle\n\n"
_LONGEST: Final = 60_000

routes = APIRouter(tags=["live"], route_class=ProblemRoute)


class EventStream(StreamingResponse):
    """Server-sent events; what produces them is closed at once when the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[str], status_code: int = 200) -> None:
        # Proxies that hold back what they have not seen whole are asked not to.
        super().__init__(content, status_code, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def stream_response(self, send: Send) -> None:
        """Send them as they come."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # a generator of ours
            await super().stream_response(send)


@routes.get("/live", response_class=EventStream)
async def live(
    request: Request,
    after: Annotated[str | None, Query(max_length=_LONGEST, description="The id of an event: go on behind it.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=_LONGEST, description="As `after`, and before it.")] = None,
) -> EventStream:
    """Follow what is recorded, in any process: `call`, `tokens` and `finished` events.

    Without a position it begins with the calls that are running.
    """
    feed: Feed = request.scope[FEED]
    beginning = await feed.beginning()
    told = last_event_id if last_event_id is not None else after
    return EventStream(_events(feed, beginning if told is None else _position(told)))


async def _events(feed: Feed, position: Position) -> AsyncGenerator[str]:
    # An event without data tells nothing, and is where a client goes on that loses its connection before the first.
    yield f"retry: 500\nid: {position}\n\n"
    async with aclosing(feed.since(position)) as happening:
        async for told in happening:
            yield "".join(_event(change, after) for change, after in told) or IDLE


def _event(change: Change, position: Position) -> str:
    name, data = _data(change)
    return f"id: {position}\nevent: {name}\ndata: {data.model_dump_json().translate(LINE_BREAKS)}\n\n"


def _data(change: Change) -> tuple[str, models.Answer]:
    if isinstance(change, Came):
        columns: dict[str, Any] = {**change.events._asdict(), "parts": change.parts}
        after = change.events.token_index[0] - 1
        return "tokens", models.LiveTokens(call_uid=change.call_uid, after=after, **columns)
    return ("call" if isinstance(change, Started) else "finished"), models.CallRow.model_validate(change.call)


def _position(text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError:
        raise Invalid("after", "take it from the id of an event of this stream") from None
