"""Opens calls, knows which are open, and queues for the writer what has begun and ended; one per process."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from . import context
from .call import CallRecorder, Request
from .clock import SYSTEM_CLOCK, Clock
from .ids import new_uid
from .models import Call, ContentLevel, Mark, Run


class Recorder:
    """Opens calls and keeps those that are open; one per process while recording is on.

    Args:
        clock: where times come from.
        labels: put on every call of the process.
        content: content level where neither block nor hook decides.
        keep_prompts: whether request bodies are kept.
        process_run: opens, once, the run of calls that belong to no other.
        decide: what the `tokentape_record` hooks say of a call; None when no plugin implements it.
        sample: whether the token events of the call with this uid are kept.
        notify: wakes the writer; called once per call, never per chunk.
    """

    def __init__(
        self,
        *,
        process_run: Callable[[], Any],
        notify: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
        labels: Mapping[str, str] | None = None,
        content: ContentLevel = "redacted",
        keep_prompts: bool = False,
        decide: Callable[[Call], str | None] | None = None,
        sample: Callable[[str], bool] = lambda uid: True,
    ) -> None:
        self.clock = clock
        self._keep_prompts = keep_prompts
        self.open: set[CallRecorder] = set()
        self.queue: deque[tuple[str, CallRecorder | Run | Mark]] = deque()
        self.process_run = process_run
        self._notify = notify
        self._labels = dict(labels or {})
        self._content: ContentLevel = content
        self._decide = decide
        self._sample = sample
        self._last: CallRecorder | None = None

    def start(self, request: Request) -> CallRecorder | None:
        """Open a call; its clock starts now. Call it just before the request is sent.

        Run, labels, content level and parent are what holds here, so it is called where the program asks: on its
        thread, in its context.

        Args:
            request: what is known of it.

        Returns:
            The call's recorder, or None where recording is suppressed here or a plugin said `skip`.
        """
        if context.SUPPRESSED.get():
            return None
        start_ns, started_unix_us = self.clock.monotonic_ns(), self.clock.unix_ns() // 1000
        run = context.RUN.get() or self.process_run()
        call = self._describe(request, run.uid, started_unix_us)
        if self._decide is not None:
            decided = self._decide(call)
            if decided == "skip":
                return None
            if decided is not None:
                call = replace(call, content_level=decided)  # type: ignore[arg-type]  # checked by the host
        if not self._keep_prompts:
            request.body = None
        run.announced()
        opened = CallRecorder(self, call, request, start_ns, run.lineage)
        self.queue.append(("call_started", opened))
        self.open.add(opened)
        self._last = run.last_call = opened
        self._notify()
        return opened

    def ended(self, call: CallRecorder) -> None:
        """A call has ended; what is left of it now belongs to the writer."""
        if call not in self.open:
            return  # inherited through a fork: the parent records it
        self.open.discard(call)
        if call.beat is not None:
            call.beat.leave(call)
        self.queue.append(("call_finished", call))
        self._notify()

    def forget(self) -> None:
        """Start anew in a forked child: what the parent has open or queued is the parent's."""
        self.open = set()
        self.queue = deque()
        self._last = None

    def put(self, what: str, value: Run | Mark) -> None:
        """Hand a run or a mark to the writer, in order with the calls."""
        self.queue.append((what, value))
        self._notify()

    def decide_with(self, decide: Callable[[Call], str | None] | None) -> None:
        """Ask this of every call from now on."""
        self._decide = decide

    def last_call(self) -> CallRecorder | None:
        """The call opened last in the current run, else in the process."""
        run = context.RUN.get()
        return run.last_call if run is not None and run.last_call is not None else self._last

    def _describe(self, request: Request, run_uid: str, started_unix_us: int) -> Call:
        uid = new_uid()
        parent = context.parent()
        trace_id, span_id = _otel_ids()
        return Call(
            uid=uid,
            run_uid=run_uid,
            parent_uid=parent.uid if parent is not None else None,
            layer=request.layer,
            adapter=request.adapter,
            provider=request.provider,
            server_address=request.server_address,
            operation=request.operation,
            request_model=request.model,
            streaming=request.streaming,
            started_unix_us=started_unix_us,
            content_level=context.CONTENT.get() or self._content,
            name=request.name,
            sampled=self._sample(uid),
            request=request.scalars,
            labels={**self._labels, **context.LABELS.get()},
            framework_run_id=request.framework_run_id,
            metadata=request.metadata,
            trace_id=trace_id,
            span_id=span_id,
            in_flight_at_start=len(self.open),
        )


_active: Recorder | None = None


def active() -> Recorder | None:
    """The recorder of this process while recording is on."""
    return _active


def activate(recorder: Recorder | None) -> None:
    """Make a recorder the one that the process's streams are recorded with; None when recording stops."""
    global _active
    _active = recorder


def _otel_ids() -> tuple[str | None, str | None]:
    """Ids of the current OpenTelemetry span, when the program has OpenTelemetry loaded and a span is active."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None, None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None, None
    return format(span.trace_id, "032x"), format(span.span_id, "016x")
