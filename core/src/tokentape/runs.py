"""Runs, and marks between calls: the blocks that programs put around their work.

All of it works when recording is off: it then costs next to nothing and records nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from . import context, faults
from .call import CallRecorder
from .clock import SYSTEM_CLOCK
from .ids import new_uid
from .models import Mark, Run, Status
from .recorder import Recorder, active
from .settings import text_of


class RunHandle:
    """A run that is open; `with` and `async with` close it.

    Attributes:
        uid: the run's public ULID.
        lineage: its uid, and those of the runs it was opened in, from the inside out.
        last_call: the call opened last inside it.
    """

    def __init__(self, name: str, metadata: Mapping[str, Any] | None = None, uid: str | None = None) -> None:
        self.uid = uid or new_uid()
        self.lineage: tuple[str, ...] = (self.uid,)
        self.name = name
        self.metadata = metadata
        self.last_call: CallRecorder | None = None
        self._row: Run | None = None
        self._block: Any = None

    def start(self, parent: RunHandle | None) -> None:
        """Announce the run; under which other run it hangs is decided here."""
        recorder = active()
        clock = recorder.clock if recorder is not None else SYSTEM_CLOCK
        self._begin(recorder, parent, clock.unix_ns() // 1000)

    def announced(self) -> str:
        """The run's uid, for what is recorded in it: from here on outputs know the run."""
        return self.uid

    def _begin(self, recorder: Recorder | None, parent: RunHandle | None, started_unix_us: int) -> None:
        parent_uid = parent.announced() if parent is not None else None
        self.lineage = (self.uid, *(parent.lineage if parent is not None else ()))
        self._row = Run(self.uid, parent_uid, self.name, started_unix_us, metadata=self.metadata)
        if recorder is not None:
            recorder.put("run_started", self._row)

    def end(self, status: Status) -> None:
        """Close the run with its final status, and the name and metadata that it has by now."""
        recorder = active()
        if recorder is not None and self._row is not None:
            with faults.guard("python api", "the end of a run"):
                ended_us = recorder.clock.unix_ns() // 1000
                ended = replace(
                    self._row, name=self.name, metadata=self.metadata, status=status, ended_unix_us=ended_us
                )
                recorder.put("run_finished", ended)

    def __enter__(self) -> Self:
        with faults.guard("python api", "a run"):
            self.start(current_run())
        self._block = context.setting(context.RUN, self)
        self._block.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._block.__exit__(None, None, None)
        self.end("completed" if exc is None or is_an_end(exc) else "error")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def is_an_end(exc: BaseException) -> bool:
    """Whether an exception is how Python says that all is done, and no failure."""
    return isinstance(exc, GeneratorExit) or (isinstance(exc, SystemExit) and not exc.code)


def run(name: str, metadata: Mapping[str, Any] | None = None) -> RunHandle:
    """Group the calls made inside the block; nests.

    Args:
        name: what the run is called in tables and pages.
        metadata: any JSON values; kept redacted.

    Returns:
        A context manager, `with` or `async with`, that gives the run; `run.uid` is its public id.

    Raises:
        TypeError: the name is no text, and has none.
    """
    return RunHandle(text_of("name of a run", name), metadata)


def current_run() -> RunHandle | None:
    """The innermost run that is open here, else the process's own; None while recording is off."""
    recorder = active()
    return context.RUN.get() or (recorder.process_run() if recorder is not None else None)


def last_call() -> CallRecorder | None:
    """The call opened last in the current run, else in the process; None when there was none."""
    recorder = active()
    return recorder.last_call() if recorder is not None else None


class mark:  # noqa: N801 - reads as a statement: `with tokentape.mark("search"): …`
    """Note a span of time between calls.

    Args:
        name: which tool, retrieval or node; arguments and results do not belong here.
        kind: `tool`, `retriever`, `node`, or a word of your own.

    Raises:
        TypeError: one of them is no text, and has none.
    """

    def __init__(self, name: str, kind: str = "tool") -> None:
        self._name = text_of("name of a mark", name)
        self._kind = text_of("kind of a mark", kind)
        self._started: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._started = None
        recorder = active()
        if recorder is not None:
            with faults.guard("python api", "a mark"):
                self._started = recorder.clock.unix_ns() // 1000, recorder.clock.monotonic_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        recorder = active()
        if recorder is not None and self._started is not None:
            with faults.guard("python api", "a mark"):
                recorder.put("mark", self._ended(recorder, *self._started))

    def _ended(self, recorder: Recorder, unix_us: int, start_ns: int) -> Mark:
        run = context.RUN.get() or recorder.process_run()
        parent = context.PARENT.get()
        call_uid = parent.uid if parent is not None and parent.is_open else None
        took_us = (recorder.clock.monotonic_ns() - start_ns) // 1000
        return Mark(run.announced(), call_uid, unix_us, took_us, self._kind, self._name)
