"""The SQLite store: a plugin like any other output, which turns what the hooks bring into operations on one tape."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..clock import utc_text
from ..hookspecs import hookimpl
from ..models import Call, FinishedCall, Mark, Process, Run, TokenBatch
from ..settings import DEFAULT_MAX_MB
from . import networks, rows, writes
from .committer import COMMIT_EVENTS, Committer, Operation, Write, is_outage
from .modes import open_to_others
from .retention import Retention
from .text import CallText

logger = logging.getLogger(__name__)

BUSY_MS: Final = 1000
# Events that are tried together or not at all: few, so that a try that fails is a short one.
OPERATION_EVENTS: Final = 500


@dataclass(slots=True)
class _Live:
    """What is kept of a call while it runs.

    Attributes:
        text: None where none is stored.
        held: the operation with events of the call that was added last, what it holds, and in which round that was.
    """

    call: Call
    run: Run | None
    text: CallText | None
    dropped: int = 0
    last_event_at: str | None = None
    held: tuple[Operation, writes.Events, int] | None = None


class SQLiteStore:
    """Writes to one tape, from one thread at a time.

    What cannot be written is kept, and tried again whole at the next flush: nothing is raised for it.

    Args:
        path: the tape; made when it is missing.
        process: who writes.
        max_buffer: token events that are held while the database cannot be written; the newest beyond it are dropped.
        busy_ms: how long one flush waits for other writers.
        max_mb: past this size, in millions of bytes, the token events of the oldest finished calls go.

    Raises:
        TapeError: the path cannot be used as a tape.
    """

    def __init__(
        self,
        path: Path,
        process: Process,
        *,
        max_buffer: int,
        busy_ms: int = BUSY_MS,
        max_mb: int = DEFAULT_MAX_MB,
    ) -> None:
        self.path = path
        self._max_buffer = max_buffer
        self._busy_ms = busy_ms
        self._max_mb = max_mb
        self._reset(process)
        # Closed again at once: a connection that exists when the program forks is trouble for the child.
        self._committer.open()
        self._network = networks.network_of(path)
        if self._network is not None:
            logger.warning(
                "%s is on a network file system (%s), where locks do not always hold: the tape may be damaged, most of "
                "all when several machines record to it. Choose a file on a local disk with TOKENTAPE_DB.",
                path,
                self._network,
            )
        for command in open_to_others(path):
            logger.warning("%s is open to others on this machine; close it with: %s", path, command)

    def _reset(self, process: Process) -> None:
        self._runs: dict[str, Run] = {}
        self._live: dict[str, _Live] = {}
        self._dropped_events = 0
        self._told_events = 0
        self._retention = Retention(self.path, self._max_mb)
        self._committer = Committer(
            self.path, process, busy_ms=self._busy_ms, retention=self._retention, go_on=self._go_on
        )

    @property
    def pending_events(self) -> int:
        """Token events that are held and not yet committed."""
        return self._committer.pending_events

    @property
    def is_holding(self) -> bool:
        """Whether anything, an event or the row of a call, is held and not yet committed."""
        return bool(self._committer.operations)

    @property
    def has_work_left(self) -> bool:
        """Whether a flush would go on with something that nobody waits for: bringing the tape back to its size."""
        return self._retention.is_due

    def health(self) -> dict[str, Any]:
        """How the store is.

        Returns:
            The path; the last error while it fails; what is held and what was dropped; the last commit; damaged files
            that were set aside; the type of the network file system it is on, if it is on one; of how many calls this
            process has removed token events, and whether the tape is past its size all the same; what would close it
            where others on this machine can read it.
        """
        return {
            "path": str(self.path),
            "last_error": self._committer.trouble.error,
            "pending_events": self.pending_events,
            "dropped_events": self._dropped_events + self._committer.given_up_events,
            "last_commit_at": self._committer.last_commit_at,
            "set_aside": [str(path) for path in self._committer.trouble.aside],
            "network_file_system": self._network,
            "thinned_calls": self._retention.thinned_calls,
            "past_max_mb": self._retention.is_stuck,
            "open_to_others": open_to_others(self.path),
        }

    @hookimpl
    def tokentape_run_started(self, run: Run) -> None:
        """Add the run."""
        if self._has_room():
            self._runs[run.uid] = run
            self._add("a run", partial(writes.open_run, run=run))

    @hookimpl
    def tokentape_run_finished(self, run: Run) -> None:
        """Note how the run ended."""
        if self._runs.pop(run.uid, None) is not None or self._has_room():
            self._add("the end of a run", partial(writes.close_run, run=run))

    @hookimpl
    def tokentape_mark(self, mark: Mark) -> None:
        """Add the mark."""
        if self._has_room():
            self._add("a mark", partial(writes.add_mark, mark=mark))

    @hookimpl
    def tokentape_call_started(self, call: Call) -> None:
        """Add the call."""
        if self._has_room():
            keeps_text = call.sampled and call.content_level != "timings"
            run = self._runs.get(call.run_uid)
            self._live[call.uid] = _Live(call, run, CallText() if keeps_text else None)
            self._add("a call", partial(writes.open_call, call=call, run=run))

    @hookimpl
    def tokentape_tokens(self, call: Call, tokens: TokenBatch) -> None:
        """Add the events behind those that the call has; what the buffer cannot hold is dropped and counted."""
        live = self._live.get(call.uid)
        if live is None:
            self._dropped_events += len(tokens)
            return
        size = min(len(tokens), self._max_buffer - self.pending_events)
        if call.sampled:
            live.dropped += len(tokens) - size
            self._dropped_events += len(tokens) - size
        if size or tokens.parts:
            operation, events = self._held_events(call, live)
            self._committer.grow(operation, size)
            _gather(events, call, live, tokens, size)
            # Otherwise all of a backlog would be held here before any of it is written.
            if self.pending_events >= COMMIT_EVENTS and self._committer.trouble.error is None:
                self._committer.commit()

    @hookimpl
    def tokentape_call_labelled(self, call: Call) -> None:
        """Put the call's labels in the place of those it had."""
        live = self._live.get(call.uid)
        if live is not None and self._has_room():
            self._add("labels of a call", partial(writes.relabel_call, call=call, run=live.run))

    @hookimpl
    def tokentape_call_finished(self, call: FinishedCall) -> None:
        """Note how the call ended, with its numbers, parts and stalls."""
        live = self._live.pop(call.uid, None)
        if live is None:
            return
        if live.held is not None and live.held[2] == self._committer.round:
            live.held[1].is_last = True
        text = live.text
        end = writes.End(
            halves=text.rest() if text is not None else [],
            content={p.part: text.content(p.part) for p in call.parts} if text is not None else None,
            last_event_at=live.last_event_at,
            dropped=live.dropped,
        )
        self._add("the end of a call", partial(writes.close_call, call=call, run=live.run, end=end))

    @hookimpl
    def tokentape_flush(self) -> None:
        """Commit everything; keep what cannot be written."""
        self._committer.commit()
        if not self.is_holding:
            self._tell_dropped()

    @hookimpl
    def tokentape_shutdown(self) -> None:
        """Close the tape; what could not be written until now is lost."""
        self._tell_dropped()
        if self.pending_events:
            logger.warning("%s: %d token events could not be written and are lost.", self.path, self.pending_events)
        self._committer.close()

    def before_fork(self) -> None:
        """Close the connection, so that a forked child inherits none; `after_fork_in_parent` has to follow.

        The SQLite of a child would take the locks of an inherited connection for its own, not lock the file itself, and
        lose what it commits when the parent closes its connection.
        """
        self._committer.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on after a fork."""
        self._committer.after_fork_in_parent()

    def after_fork(self, process: Process) -> None:
        """Start anew in a forked child: what the parent holds, the parent writes."""
        self._committer.abandon()
        self._reset(process)

    def _held_events(self, call: Call, live: _Live) -> tuple[Operation, writes.Events]:
        """The operation of this batch with the events of a call, so that a batch writes them at once."""
        held = live.held
        if held is None or held[2] != self._committer.round or held[0].events >= OPERATION_EVENTS:
            events = writes.Events()
            operation = self._add("token events", partial(writes.add_events, call=call, run=live.run, events=events))
            live.held = held = operation, events, self._committer.round
        return held[0], held[1]

    def _go_on(self, to: writes.Transaction) -> None:
        """Put the runs and calls that are under way on a file that may not have them, outer ones first."""
        of_runs: list[Write] = [partial(writes.open_run, run=run) for run in self._runs.values()]
        of_calls: list[Write] = [
            partial(writes.open_call, call=live.call, run=live.run) for live in self._live.values()
        ]
        for write in (*of_runs, *of_calls):
            try:
                write(to)
            except Exception as error:
                if is_outage(error):
                    raise
                # It cannot be stored at all, which is reported where it is first written.

    def _tell_dropped(self) -> None:
        """Say once, when the buffer has emptied, how much did not fit into it."""
        untold, self._told_events = self._dropped_events - self._told_events, self._dropped_events
        if untold:
            logger.warning(
                "%s: %d token events were dropped, because only %d (max_buffer) are held while it cannot be written.",
                self.path,
                untold,
                self._max_buffer,
            )

    def _add(self, what: str, write: Write) -> Operation:
        operation = Operation(write, what)
        self._committer.add(operation)
        return operation

    def _has_room(self) -> bool:
        return len(self._committer.operations) < self._max_buffer


def _gather(events: writes.Events, call: Call, live: _Live, tokens: TokenBatch, size: int) -> None:
    """Put up to `size` events of a batch behind those that are held."""
    events.parts.extend(tokens.parts)
    events.seen += size
    events.dropped = live.dropped
    if size:
        live.last_event_at = events.last_event_at = utc_text(call.started_unix_us + tokens.offset_us[size - 1])
    if not call.sampled:
        return
    first, part = len(events.part), tokens.part[:size]
    events.offset_us.extend(tokens.offset_us[:size])
    events.wait_us.extend(tokens.wait_us[:size])
    events.part.extend(part)
    if live.text is None:
        events.token.extend([None] * size)
        return
    events.token.extend(live.text.take(part, tokens.token[:size]))
    events.n_tokens.update((first + i, n) for i, n in tokens.n_tokens.items() if i < size and rows.fits(n))
    events.logprobs.update((first + i, rows.logprobs_json(v)) for i, v in tokens.logprobs.items() if i < size)
