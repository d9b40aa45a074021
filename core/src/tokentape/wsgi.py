"""A run for each request of a WSGI application, such as one of Flask or Django."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import faults
from .recorder import active
from .web import REQUEST_ID_HEADER, RequestRun, pattern

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RunPerRequest:
    """WSGI middleware: what is recorded in a request belongs to a run of its own, named like `POST /chat`.

    The run lasts until the server closes the response, so a streamed answer belongs to it. Requests pass untouched
    while recording is off.

    Args:
        app: the application; for Flask, `app.wsgi_app = RunPerRequest(app.wsgi_app)`.
        request_id_header: the header of a request whose value becomes the label `request_id` of its calls.
    """

    def __init__(self, app: App, request_id_header: str = REQUEST_ID_HEADER) -> None:
        self.app = app
        self._request_id_key = f"HTTP_{request_id_header.upper().replace('-', '_')}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        named = _Name(environ)
        run = self._run_of(environ, named)
        if run is None:
            return self.app(environ, start_response)

        def start(status: str, *more: Any) -> Any:
            with faults.guard("web request", "the status of an answer"):
                named.look()
                run.http_status = int(status.split(maxsplit=1)[0])
            return start_response(status, *more)

        try:
            with run.inside():
                body = self.app(environ, start)
                if _is_whole(body, environ):
                    run.finish()
                    return body
                return _Body(body, run)
        except BaseException as error:
            run.finish(error)
            raise

    def _run_of(self, environ: dict[str, Any], named: _Name) -> RequestRun | None:
        with faults.guard("web request", "the run of a request"):
            recorder = active()
            if recorder is not None:
                return RequestRun(recorder, named, environ.get(self._request_id_key))
        return None


class _Body:
    """The body of a streamed answer: the application's own, with the run of its request around each step.

    Args:
        body: what the application returned.
        run: the request's.
    """

    def __init__(self, body: Iterable[bytes], run: RequestRun) -> None:
        self._body = body
        self._pieces = iter(body)
        self._run = run
        self._has_begun = False
        self._has_ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._has_begun = True
        try:
            with self._run.inside():
                return next(self._pieces)
        except BaseException as error:
            self._has_ended = True
            self._error = None if isinstance(error, StopIteration) else error
            raise

    def close(self) -> None:
        """Called by the server when the answer was sent, or cannot be."""
        if self._has_begun and not self._has_ended and not _is_leaving(sys.exc_info()[1]):
            self._run.client_left()
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                with self._run.inside():
                    close()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._run.finish(self._error)


def _is_whole(body: Iterable[bytes], environ: dict[str, Any]) -> bool:
    """Whether no more code of the application runs for this answer, so that the server may have it as it is.

    Servers send files faster when they recognise their own wrapper, and know the length of a list.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _is_leaving(error: BaseException | None) -> bool:
    """Whether it is the server that is being stopped."""
    return isinstance(error, (SystemExit, KeyboardInterrupt))


class _Name:
    """Tells method and route of a request; for a while Flask's own request, in the environment, knows its rule.

    Args:
        environ: of the request.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._rule: str | None = None

    def look(self) -> None:
        """Take the route while it can be seen: it is gone before the body is streamed."""
        rule = getattr(self._environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            self._rule = rule.rule

    def __call__(self) -> str:
        self.look()
        return f"{self._environ.get('REQUEST_METHOD', '')} {self._rule or self._path()}"

    def _path(self) -> str:
        # Comes as bytes that were read as Latin-1.
        path = str(self._environ.get("PATH_INFO") or "/")
        return pattern(path.encode("latin-1", "replace").decode("utf-8", "replace"))
