"""A script: what one request is answered with, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, get_args

from .events import Event, HTTPError


class Step(NamedTuple):
    """Something that happens `delay` seconds after the step before it."""

    delay: float
    event: Event


class Script:
    """Answers one request.

    Args:
        steps: pairs of a delay in seconds and an event; an event alone happens at once. The first delay counts from the
            moment the response headers are sent. Delays add up on one schedule, so being late once shifts nothing.
        path: only for requests to this endpoint, such as `/chat/completions`; None for any endpoint of a model.
        model: only for requests that name this model.
        headers: more response headers.
        headers_delay: seconds between the request and the response headers.
        repeat: stays in the queue, for any number of requests.

    Raises:
        TypeError: a step is neither an event nor a pair of a delay and an event.
        ValueError: `HTTPError` after the first step.
    """

    def __init__(
        self,
        steps: Iterable[Event | tuple[float, Event]],
        *,
        path: str | None = None,
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        headers_delay: float = 0.0,
        repeat: bool = False,
    ) -> None:
        self.steps = tuple(_step(step) for step in steps)
        self.path = path
        self.model = model
        self.headers = dict(headers or {})
        self.headers_delay = headers_delay
        self.repeat = repeat
        if any(isinstance(event, HTTPError) for event in self.events[1:]):
            raise ValueError("Script: HTTPError must be the first step, the status is sent before any event")

    @property
    def events(self) -> tuple[Event, ...]:
        """The events of all steps, in order."""
        return tuple(step.event for step in self.steps)


def _step(step: Event | tuple[float, Event]) -> Step:
    delay, event = step if isinstance(step, tuple) else (0.0, step)
    if not isinstance(event, get_args(Event)):
        raise TypeError(f"Script: {event!r} is not an event; see tokentape.testing.events for what a step can hold")
    return Step(delay, event)
