"""Plays one script into one connection, on time."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from http import HTTPStatus

from .connection import ClientLeft, Connection
from .events import Drop, ErrorEvent, Event, Hang, HTTPError, WaitFor
from .log import Outcome, Request, Sent
from .script import Step
from .wire.base import Wire, to_json


class _Dropped(Exception):
    """The script closes the connection here."""


class Player:
    """Answers one request.

    Args:
        connection: where the answer goes.
        wire: the script, in the format of the request.
    """

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self._connection = connection
        self._wire = wire
        self._request: Request = wire.request
        self._due_ns = self._request.at_ns

    def play(self) -> Outcome:
        """Send the answer; returns how that ended."""
        try:
            self._answer()
        except _Dropped:
            return "dropped"
        except ClientLeft:
            return "left"
        return "answered"

    def _answer(self) -> None:
        self._pass(self._wire.script.headers_delay)
        steps = self._wire.script.steps
        problem = self._wire.problem()
        if problem:
            self._fail(HTTPError(HTTPStatus.UNPROCESSABLE_ENTITY, problem))
        elif steps and isinstance(steps[0].event, HTTPError | Drop):
            self._refuse(steps[0])
        elif self._wire.streams:
            self._stream()
        else:
            self._whole()

    def _refuse(self, step: Step) -> None:
        self._happen(step)
        if isinstance(step.event, HTTPError):
            self._fail(step.event)

    def _stream(self) -> None:
        self._head(HTTPStatus.OK, {"content-type": self._wire.content_type, "transfer-encoding": "chunked"})
        for step in self._wire.script.steps:
            self._happen(step)
            for frame in self._wire.render(step.event):
                self._write(frame, step.event)
        for frame in self._wire.end():
            self._write(frame, None)
        self._connection.send(b"0\r\n\r\n")

    def _whole(self) -> None:
        for step in self._wire.script.steps:
            self._happen(step)
        error = next((event for event in self._wire.script.events if isinstance(event, ErrorEvent)), None)
        if error:
            body = self._wire.error(error.type, error.message, error.code)
            self._fail(HTTPError(HTTPStatus.INTERNAL_SERVER_ERROR, body=body))
        else:
            self._document(HTTPStatus.OK, self._wire.document())

    def _fail(self, error: HTTPError) -> None:
        kind = _reason(error.status).lower().replace(" ", "_")
        body = self._wire.error(kind, error.message) if error.body is None else error.body
        self._document(error.status, to_json(body), error.headers)

    def _happen(self, step: Step) -> None:
        self._pass(step.delay)
        match step.event:
            case Drop():
                raise _Dropped
            case Hang(seconds):
                self._pass(seconds)
            case WaitFor(event, timeout):
                if not self._connection.wait_for(event, timeout):
                    raise _Dropped
                self._due_ns = max(self._due_ns, time.perf_counter_ns())

    def _pass(self, seconds: float) -> None:
        self._due_ns += round(seconds * 1e9)
        self._connection.sleep_until(self._due_ns)

    def _write(self, frame: bytes, event: Event | None) -> None:
        # Noted first: whoever has received it finds it in the log.
        self._request.sent.append(Sent(time.perf_counter_ns(), event, frame))
        try:
            self._connection.send(b"%x\r\n%b\r\n" % (len(frame), frame))
        except ClientLeft:
            self._request.sent.pop()
            raise

    def _document(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        length = {"content-type": "application/json", "content-length": str(len(body))}
        self._head(status, length | dict(headers or {}))
        self._connection.send(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        ours = {self._wire.request_id_header: f"req_{self._request.number:06d}"}
        lines = [f"{name}: {value}" for name, value in (ours | dict(headers) | self._wire.script.headers).items()]
        status_line = f"HTTP/1.1 {status} {_reason(status)}"
        self._connection.send("\r\n".join([status_line, *lines, "", ""]).encode("latin-1"))


def _reason(status: int) -> str:
    # Providers use codes of their own, such as 529.
    return http.client.responses.get(status, "Unknown Error")
