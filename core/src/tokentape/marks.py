"""Spans of time between calls, as frameworks announce them: where one begins, and later where it ends."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from . import context
from .models import Mark
from .recorder import Recorder


class _Open(NamedTuple):
    """A span that has begun; which run it belongs to is decided here."""

    run_uid: str
    unix_us: int
    start_ns: int
    kind: str
    name: str


class Marks:
    """Spans that are open, by the framework's own id.

    Args:
        recorder: takes the marks; None to note nothing.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._open: dict[Hashable, _Open] = {}

    def begin(self, span_id: Hashable, kind: str, name: str) -> None:
        """A span begins, unless recording is suppressed here."""
        recorder = self._recorder
        if recorder is None or context.SUPPRESSED.get():
            return
        run = context.RUN.get() or recorder.process_run()
        clock = recorder.clock
        self._open[span_id] = _Open(run.announced(), clock.unix_ns() // 1000, clock.monotonic_ns(), kind, name)

    def end(self, span_id: Hashable) -> None:
        """The span with this id, if there is one, is over."""
        span, recorder = self._open.pop(span_id, None), self._recorder
        if span is not None and recorder is not None:
            took_us = (recorder.clock.monotonic_ns() - span.start_ns) // 1000
            recorder.put("mark", Mark(span.run_uid, None, span.unix_us, took_us, span.kind, span.name))
