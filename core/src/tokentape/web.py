"""The run of one web request, whichever protocol brings it: its name, its labels, and a client that leaves.

It is announced by what is first recorded in it, so that a request in which nothing is recorded leaves no trace, and so
late that the framework has mostly found the route by then.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from . import context, faults
from .models import Status
from .recorder import Recorder, active
from .runs import RunHandle, is_an_end

REQUEST_ID_HEADER: Final = "x-request-id"
# Both come from whoever sends the request.
MAX_NAME_CHARS: Final = 200
MAX_REQUEST_ID_CHARS: Final = 200
SERVER_ERROR: Final = 500

MAX_WORD_CHARS: Final = 40
# Digits alone, three of them anywhere, an address, or longer than words are.
_ID: Final = re.compile(rf"\d+|(?:[^\d]*\d){{3}}.*|.*@.*|.{{{MAX_WORD_CHARS + 1},}}", re.DOTALL)
_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\}")


class RequestRun(RunHandle):
    """The run of one request; made where the request begins, in its context.

    Args:
        recorder: what is recording.
        named: tells the request's method and route as far as they are known; asked again when more may be known.
        request_id: becomes the label `request_id` of the calls inside, and metadata of the run.

    Attributes:
        http_status: of the answer, once it has begun.
    """

    def __init__(self, recorder: Recorder, named: Callable[[], str], request_id: str | None) -> None:
        super().__init__(named()[:MAX_NAME_CHARS])
        self.http_status: int | None = None
        self._named = named
        self._metadata: dict[str, Any] = {}
        self._outer = context.RUN.get()
        self._started_unix_us = recorder.clock.unix_ns() // 1000
        self._announcing = threading.Lock()
        self._is_announced = False
        self._client_left = False
        labels = context.LABELS.get()
        if request_id:
            self._metadata["request_id"] = request_id[:MAX_REQUEST_ID_CHARS]
            labels = {**labels, **self._metadata}
        self._here: tuple[RunHandle | None, Mapping[str, str]] = (self, labels)

    def announced(self) -> str:
        """The run's uid; with the first thing that is recorded in it, outputs hear of the run."""
        if not self._is_announced:
            with self._announcing:
                self._announce()
        return self.uid

    def inside(self) -> _Inside:
        """A block in which code of the request runs; what a block leaves open, such as a run, is open in the next."""
        return _Inside(self)

    def client_left(self) -> None:
        """The client is gone before it had its whole answer: noted on the calls that are open in the request."""
        with faults.guard("web request", "that a client left"):
            recorder = active()
            if self._client_left or recorder is None:
                return
            self._client_left = True
            for call in list(recorder.open):
                if self.uid in call.runs:
                    call.noted["client"] = "disconnected"

    def finish(self, error: BaseException | None = None) -> None:
        """The application is done with the request.

        Args:
            error: what it raised.
        """
        with faults.guard("web request", "the end of a request's run"):
            if self._is_announced:
                self._describe()
                self.end(self._status(error))

    def _announce(self) -> None:
        recorder = active()
        if self._is_announced or recorder is None:
            return  # another thread of the request has come first, or recording has stopped
        self._describe()
        self._begin(recorder, self._outer or recorder.process_run(), self._started_unix_us)
        self._is_announced = True

    def _describe(self) -> None:
        with faults.guard("web request", "the name of a request's run"):
            self.name = self._named()[:MAX_NAME_CHARS]
        if self.http_status is not None:
            self._metadata["http_status"] = self.http_status
        if self._client_left:
            self._metadata["client"] = "disconnected"
        self.metadata = dict(self._metadata)

    def _status(self, error: BaseException | None) -> Status:
        if self._client_left:
            return "completed"  # what is raised because nobody is left to answer is no failure
        failed = error is not None and not is_an_end(error)
        return "error" if failed or (self.http_status or 0) >= SERVER_ERROR else "completed"


class _Inside:
    """Puts run and labels of a request into the context for one block, and takes them out again."""

    __slots__ = ("_labels", "_request", "_run")

    def __init__(self, request: RequestRun) -> None:
        self._request = request

    def __enter__(self) -> None:
        run, labels = self._request._here
        self._run = context.RUN.set(run)
        self._labels = context.LABELS.set(labels)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Code of the request may be in the middle of a block of its own: a generator that has yielded.
        self._request._here = context.RUN.get(), context.LABELS.get()
        try:
            context.RUN.reset(self._run)
            context.LABELS.reset(self._labels)
        except ValueError:
            pass  # left in another context than it was entered in, where nothing was set


def pattern(path: str, route: str | None = None, parameters: Mapping[str, Any] | None = None) -> str:
    """A path without what is different in each request.

    Args:
        path: the request's, without its query string.
        route: the framework's pattern for the end of the path, with `{name}` for what changes.
        parameters: what stands in the path for each name, so far as the framework tells.
    """
    if route is not None:
        for value in ("[^/]+", ".+"):
            found = re.search(f"{_PARAMETER.sub(value, re.escape(route))}\\Z", path)
            if found is not None:
                return _without_ids(path[: found.start()], parameters) + route
    return _without_ids(path, parameters)


def _without_ids(path: str, parameters: Mapping[str, Any] | None) -> str:
    names = {str(value): name for name, value in (parameters or {}).items() if value != ""}
    return "/".join(_segment(segment, names) for segment in path.split("/"))


def _segment(segment: str, names: Mapping[str, str]) -> str:
    if segment in names:
        return f"{{{names[segment]}}}"
    # Most are plain words, which need no closer look.
    if segment.isalpha() and len(segment) <= MAX_WORD_CHARS:
        return segment
    return "{id}" if _ID.fullmatch(segment) else segment
