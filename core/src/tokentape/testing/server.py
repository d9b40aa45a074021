"""A model provider on loopback that answers from scripts, at the pace they say."""

from __future__ import annotations

import itertools
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from .connection import Connection
from .events import Event, HTTPError
from .log import Outcome, Request, Sent
from .player import Player
from .script import Script
from .wire import WIRES, Wire
from .wire.plain import Plain

_CLOSE_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class ProviderServer:
    """Serves scripts over HTTP/1.1 on 127.0.0.1, each connection on a thread of its own; use it as a context manager.

    A request is answered by the first queued script that fits its endpoint and model; the script then leaves the queue.
    Without one the answer is 404. A retry by the SDK is a request like any other.

    Args:
        wires: the formats it speaks; add your own to `tokentape.testing.WIRES`.

    Attributes:
        requests: what was received, in order of arrival.
    """

    def __init__(self, wires: Sequence[type[Wire]] = WIRES) -> None:
        self.requests: list[Request] = []
        self._wires = tuple(wires)
        self._scripts: list[Script] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL for OpenAI's and compatible clients; the port was chosen by the system."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """Scheme, host and port, for clients that bring their own paths, such as Azure's."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    @property
    def sent(self) -> list[Sent]:
        """Everything that was streamed to anybody, in order of time; `request.sent` has it for one request."""
        return sorted((sent for request in self.requests for sent in list(request.sent)), key=lambda sent: sent.at_ns)

    def add(
        self,
        *scripts: Script | Iterable[Event | tuple[float, Event]],
        path: str | None = None,
        model: str | None = None,
    ) -> None:
        """Queue scripts, to be used one after the other.

        Args:
            scripts: `Script` objects, or just their steps.
            path: for scripts given as steps, the endpoint they are for, such as `/chat/completions`.
            model: for scripts given as steps, the model they are for.

        Raises:
            TypeError, ValueError: something that cannot be a script.
        """
        ready = [s if isinstance(s, Script) else Script(s, path=path, model=model) for s in scripts]
        with self._lock:
            self._scripts += ready

    def start(self) -> Self:
        """Begin to answer; entering the context does this."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop within two seconds, cutting off streams that are still open; leaving the context does this."""
        if self._thread.is_alive():
            self._listener.shutdown()
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._listener.server_close()
        self._listener.cut_off(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait_until_left(self, timeout: float = _CLOSE_TIMEOUT_S) -> bool:
        """Wait until no client is connected any more.

        Args:
            timeout: seconds.

        Returns:
            Whether it is so.
        """
        return self._listener.wait_until_left(timeout)

    def log(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
        """Note a request that has been read; called by the connection's thread."""
        at_ns = time.perf_counter_ns()
        url = urlsplit(target)
        with self._lock:
            number = next(self._numbers)
            request = Request(number, method, url.path, dict(parse_qsl(url.query)), headers, body, at_ns)
            self.requests.append(request)
        return request

    def choose(self, request: Request) -> Wire:
        """The answer to a request: the first script that fits, in the format of the endpoint."""
        wire, endpoint = self._format(request)
        with self._lock:
            script = next((s for s in self._scripts if _fits(s, request, endpoint, wire is Plain)), None)
            if script and not script.repeat:
                self._scripts.remove(script)
        return wire(request, script or _nothing_left(request))

    def _format(self, request: Request) -> tuple[type[Wire], str]:
        for wire in self._wires:
            endpoint = wire.endpoint(request.path)
            if endpoint is not None:
                return wire, endpoint
        return Plain, Plain.endpoint(request.path)


def _fits(script: Script, request: Request, endpoint: str, by_path_only: bool) -> bool:
    right_path = script.path == endpoint or (script.path is None and not by_path_only)
    return right_path and script.model in (None, request.model)


def _nothing_left(request: Request) -> Script:
    what = f"{request.method} {request.path}, model {request.model}"
    return Script([HTTPError(404, f"no script is queued for {what}: queue one with ProviderServer.add()")])


class _Listener(socketserver.ThreadingTCPServer):
    """Accepts connections and knows which are open, so that they can be cut off."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, provider: ProviderServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.provider = provider
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection before its thread starts."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection once it is closed."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def cut_off(self, timeout: float) -> None:
        """Close what is open and wait for its threads, at most `timeout` seconds."""
        with self._changed:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client closed it in the same moment
        self.wait_until_left(timeout)

    def wait_until_left(self, timeout: float) -> bool:
        """Wait until every connection is closed."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what arrives here is a client that left between two requests."""


class _Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection and has each answered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_POST(self) -> None:
        """Answer one request of any method."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = self.server.provider.log(self.command, self.path, headers, body)
        outcome = self._answer(request)
        self.close_connection = self.close_connection or outcome != "answered"
        request.end(outcome)

    do_GET = do_DELETE = do_POST  # noqa: N815 - http.server looks them up by these names

    def _answer(self, request: Request) -> Outcome:
        try:
            return Player(Connection(self.connection), self.server.provider.choose(request)).play()
        except Exception:
            logger.exception("ProviderServer: %s %s could not be answered", request.method, request.path)
            return "dropped"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
