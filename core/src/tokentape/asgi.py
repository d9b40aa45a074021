"""A run for each HTTP request of an ASGI application, such as one of FastAPI or Starlette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import faults, recording
from .recorder import active
from .web import REQUEST_ID_HEADER, RequestRun, pattern

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class RunPerRequest:
    """ASGI middleware: what is recorded in a request belongs to a run of its own, named like `POST /chat`.

    The run lasts until the application is done with the request, background tasks included. Requests pass untouched
    while recording is off, websockets always. Before the server stops, what was recorded is written.

    Args:
        app: the application.
        request_id_header: the header of a request whose value becomes the label `request_id` of its calls.
    """

    def __init__(self, app: App, request_id_header: str = REQUEST_ID_HEADER) -> None:
        self.app = app
        self._request_id_header = request_id_header.lower().encode("latin-1")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, _flushing(send))
            return
        run = self._run_of(scope) if scope["type"] == "http" else None
        if run is None:
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(run, receive, send)
        try:
            with run.inside():
                await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            run.finish(error)
            raise
        run.finish()

    def _run_of(self, scope: MutableMapping[str, Any]) -> RequestRun | None:
        with faults.guard("web request", "the run of a request"):
            recorder = active()
            if recorder is not None:
                root = str(scope.get("root_path") or "")
                return RequestRun(recorder, lambda: _name(scope, root), self._request_id(scope))
        return None

    def _request_id(self, scope: MutableMapping[str, Any]) -> str | None:
        wanted = self._request_id_header
        return next((value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted), None)


class _Exchange:
    """The messages of one request, passed on unchanged and looked at for a client that leaves.

    Args:
        run: the request's.
        receive: the server's.
        send: the server's.
    """

    def __init__(self, run: RequestRun, receive: Receive, send: Send) -> None:
        self._run = run
        self._receive = receive
        self._send = send
        self._is_answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        # After a complete answer this is only how the server says that nothing more will come.
        if message.get("type") == "http.disconnect" and not self._is_answered:
            self._run.client_left()
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            self._run.client_left()
            raise
        if message.get("type") == "http.response.start":
            self._run.http_status = message.get("status")
        elif message.get("type") == "http.response.body" and not message.get("more_body"):
            self._is_answered = True


def _name(scope: MutableMapping[str, Any], root: str) -> str:
    """Method and route; frameworks put the route into the scope once they have found it."""
    route = scope.get("route")
    # A mount is a route too, but one that leads to many.
    known = getattr(route, "path_format", None) if hasattr(route, "endpoint") else None
    path = str(scope["path"]).removeprefix(root.rstrip("/")) or "/"
    return f"{scope['method']} {pattern(path, known, scope.get('path_params'))}"


def _flushing(send: Send) -> Send:
    """A `send` that has everything written before it tells the server that it may stop.

    A server that was stopped by a signal may next let that signal end the process, without what runs at a normal exit.
    """

    async def flush_and_send(message: Message) -> None:
        if str(message.get("type")).startswith("lifespan.shutdown."):
            with faults.guard("web request", "what was recorded last"):
                recording.finish_serving()
        await send(message)

    return flush_and_send
