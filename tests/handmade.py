"""Tapes with exactly the runs, calls and events that a test asks for, written through the store's own hooks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from programs import read
from tokentape.models import Metrics, Part, Process, TokenBatch
from tokentape.process import this_process
from tokentape.store.plugin import SQLiteStore
from values import STARTED_US, call_value, finished, process_value, run_value

TEXT = Part(0, "text")


class Handmade:
    """A tape that grows as it is told.

    Args:
        path: where it is.
        process: who writes it; the process that runs the tests unless told otherwise, so that its calls are alive.
        waited: how much of the time between two events was spent waiting.
    """

    def __init__(self, path: Path, process: Process | None = None, *, waited: float = 0.25) -> None:
        self.path = path
        self._waited = waited
        self._store = SQLiteStore(path, process or this_process("app.py"), max_buffer=1_000_000)

    def run(self, uid: str = "RUN", *, ended_ms: float | None = None, status: str = "completed", **fields: Any) -> None:
        """Open a run, and close it where it has an end, in ms since it started."""
        run = run_value(uid, **fields)
        self._store.tokentape_run_started(run)
        if ended_ms is not None:
            ended_us = run.started_unix_us + round(ended_ms * 1000)
            self._store.tokentape_run_finished(run_value(uid, **fields, status=status, ended_unix_us=ended_us))
        self._store.tokentape_flush()

    def call(
        self,
        uid: str = "CALL",
        *events: tuple[float, int, str | None],
        after_ms: float = 0,
        parts: Sequence[Part] = (TEXT,),
        running: bool = False,
        ended_ms: float | None = None,
        call: dict[str, Any] | None = None,
        **end: Any,
    ) -> None:
        """Record a call.

        Args:
            events: ms since the call started, part, text.
            after_ms: when it starts, in ms since `STARTED_US`.
            running: leave it without an end.
            ended_ms: its duration; that of the last event unless told otherwise.
            call: fields of the call.
            end: fields of how it ended.
        """
        started_us = STARTED_US + round(after_ms * 1000)
        value = call_value(uid, **{"started_unix_us": started_us, **(call or {})})
        self._store.tokentape_call_started(value)
        self.events(value, *events, parts=parts)
        if not running:
            last_ms = ended_ms if ended_ms is not None else (events[-1][0] if events else 0)
            counted = {"event_count": len(events), "parts": parts, "metrics": Metrics(duration_ms=float(last_ms))}
            fields = {"ended_us": round(last_ms * 1000), **counted, **end}
            self._store.tokentape_call_finished(finished(value, **fields))
        self._store.tokentape_flush()

    def events(self, call: Any, *events: tuple[float, int, str | None], parts: Sequence[Part] = ()) -> None:
        """Add events to a call that runs."""
        offset, part, token = ([*column] for column in zip(*events, strict=True)) if events else ([], [], [])
        us = [round(ms * 1000) for ms in offset]
        waits = [round((at - before) * self._waited) for at, before in zip(us, [0, *us], strict=False)]
        self._store.tokentape_tokens(call, TokenBatch(us, waits, part, token, parts=tuple(parts)))
        self._store.tokentape_flush()

    def end(self, uid: str, **end: Any) -> None:
        """End a call that runs."""
        self._store.tokentape_call_finished(finished(call_value(uid), **end))
        self._store.tokentape_flush()

    def mark(self, mark: Any) -> None:
        """Add a mark."""
        self._store.tokentape_mark(mark)
        self._store.tokentape_flush()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a query finds."""
        return read(self.path, sql)

    def close(self) -> None:
        """Write no more."""
        self._store.tokentape_shutdown()


def gone_process() -> Process:
    """A process of this host and boot that has ended and was collected."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = this_process("gone.py")
    return process_value(host=mine.host, boot_id=mine.boot_id, pid=ended.pid, pid_started_at=mine.pid_started_at)
