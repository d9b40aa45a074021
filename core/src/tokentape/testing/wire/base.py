"""What a wire format has to do: turn one script into server-sent events, or into one JSON body.

To add a format, write a subclass of `Wire` in a module of its own and pass it to `ProviderServer(wires=...)`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from ..events import Drop, Event, Hang, HTTPError, NoDone, Ping, Raw, WaitFor
from ..log import Request
from ..script import Script

Payload = dict[str, Any]

# What the server or this base class handles, in every format.
_COMMON = (Raw, Ping, NoDone, HTTPError, Drop, Hang, WaitFor)


def to_json(value: Any) -> bytes:
    """Compact JSON in ASCII: lone surrogates survive as escapes, as they do when providers cut an emoji in two."""
    return json.dumps(value, separators=(",", ":")).encode()


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event with JSON data, named if the format names its events."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + to_json(data) + b"\n\n"


class Wire(ABC):
    """Renders one script as the answer to one request.

    Attributes:
        path: the endpoint, as the end of a request's path.
        carries: the events that this format can express, besides those that every format can.
        content_type: of a stream.
        request_id_header: the response header that tells a request's id.
    """

    path: ClassVar[str]
    carries: ClassVar[tuple[type, ...]]
    content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    request_id_header: ClassVar[str] = "x-request-id"

    def __init__(self, request: Request, script: Script) -> None:
        self.request = request
        self.script = script

    @classmethod
    def endpoint(cls, path: str) -> str | None:
        """The endpoint that a request's path leads to, None if it is not for this format."""
        return cls.path if path.endswith(cls.path) else None

    @property
    def streams(self) -> bool:
        """Whether the request asks for a stream."""
        return self.request.json.get("stream") is True

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.request.model or self.script.model or "scripted-model"

    def problem(self) -> str | None:
        """Why this script cannot be rendered, None if it can."""
        for event in self.script.events:
            if not isinstance(event, (*self.carries, *_COMMON)):
                return f"the format of {self.path} cannot carry {type(event).__name__}: take it out of the script"
        return None

    def render(self, event: Event) -> Iterable[bytes]:
        """The server-sent events that one event of the script becomes; none for what only concerns the connection."""
        match event:
            case Ping(comment):
                return (f": {comment}\n\n".encode(),)
            case Raw(bytes() as value):
                return (value,)
            case Raw(value):
                return (self.frame(value),)
            case _ if isinstance(event, self.carries):
                return self.frames(event)
        return ()

    def document(self) -> bytes:
        """The whole body for a request that did not ask for a stream."""
        value = next((event.value for event in reversed(self.script.events) if isinstance(event, Raw)), None)
        if isinstance(value, bytes):
            return value
        return to_json(self.body() if value is None else value)

    def frame(self, data: Any) -> bytes:
        """One server-sent event as this format writes it."""
        return sse(data)

    @abstractmethod
    def frames(self, event: Event) -> Iterator[bytes]:
        """The server-sent events for one event out of `carries`. Called once for each, in the order of the script."""

    @abstractmethod
    def end(self) -> Iterable[bytes]:
        """What closes the stream after the last step."""

    @abstractmethod
    def body(self) -> Any:
        """The answer in one piece, as a JSON value."""

    @classmethod
    @abstractmethod
    def error(cls, type_: str, message: str, code: str | None = None) -> Any:
        """The body of an error status, as a JSON value."""


class TypedEventsWire(Wire, ABC):
    """A format whose events are named after the type they give, and whose last event ends the answer."""

    def frame(self, data: Any) -> bytes:
        """One server-sent event, named if its data gives a type."""
        return sse(data, data.get("type") if isinstance(data, dict) else None)

    def end(self) -> Iterable[bytes]:
        """Nothing: the last `Finish` or `Usage` ended the answer, or nothing did."""
        return ()
