"""The hot path: one call's events appended as they arrive, and the one place where a call ends.

A call's events lie in one flat list, four values an event: arrival (ns), wait (ns), part, text. One `extend` with a
tuple that dies at once is atomic, keeps no container alive that the garbage collector would have to visit, and is taken
apart again by strided slices. The writer takes complete events from the front; nobody needs a lock.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import context
from .clock import SYSTEM_CLOCK, Clock
from .models import Call, ContentLevel, Kind, Layer, Mark, Part, Run, Status, Usage

if TYPE_CHECKING:
    from .heartbeat import Heartbeat

STRIDE: Final = 4


class Extra(NamedTuple):
    """Stands in the part column for an event whose tokens are known."""

    part: int
    n_tokens: int | None
    logprobs: Any


@dataclass(slots=True)
class Request:
    """What an adapter knows of a call when it is sent.

    Attributes:
        scalars: allow-listed parameters of the request.
        body: the request body, kept by reference until the writer has turned it into JSON; only where prompts are kept.
        choices: how many answers were asked for.
    """

    adapter: str
    operation: str
    provider: str | None = None
    model: str | None = None
    server_address: str | None = None
    streaming: bool = True
    layer: Layer = "sdk"
    scalars: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    choices: int = 1
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    framework_run_id: str | None = None


class CallRecorder:
    """Records one call. Adapters write to it on the caller's thread; the writer thread takes from it.

    Attributes:
        call: what was known when the request was sent.
        rows: the events not yet taken by the writer, flat, `STRIDE` values each.
        chunks: how many objects the SDK has yielded.
        asked_ns: when the program asked for the chunk it is waiting for; 0 while it is not waiting.
        carry_ns: time inside `next()` since the last event that no event has accounted for yet.
        tapped: whether a tap reads the stream; watched: whether the bytes beneath it are.
        terminal: whether the provider has said that the answer is complete.
        late: work put off to the writer thread, done before the call is finished there.
    """

    __slots__ = (
        "__weakref__",
        "_caller_exc",
        "_keys",
        "_once",
        "_owner",
        "asked_ns",
        "attempt_ns",
        "attempts",
        "beat",
        "blocked",
        "body",
        "call",
        "carry_ns",
        "chunks",
        "clock",
        "closed_ns",
        "end_ns",
        "error_message",
        "error_type",
        "fed_by_hand",
        "finish_reasons",
        "first_ns",
        "has_extras",
        "headers_ns",
        "http_status",
        "late",
        "parts",
        "request",
        "request_id",
        "response_id",
        "response_meta",
        "response_model",
        "rows",
        "start_ns",
        "status",
        "tail_wait_ns",
        "tapped",
        "terminal",
        "usage_counts",
        "verdict",
        "watched",
    )

    def __init__(self, owner: Recorder, call: Call, request: Request, start_ns: int) -> None:
        self._owner = owner
        self._once = [True]
        self._keys: dict[tuple[Kind, int, str | None], int] = {}
        self._caller_exc = id(sys.exc_info()[1])
        self.clock = owner.clock
        self.call = call
        self.request = request
        self.body: Any = request.body
        self.start_ns = start_ns
        self.rows: list[Any] = []
        self.parts: list[Part] = []
        self.has_extras = False
        self.chunks = 0
        self.first_ns: int | None = None
        self.attempts = 0
        self.attempt_ns: int | None = None
        self.headers_ns: int | None = None
        self.asked_ns = 0
        self.carry_ns = 0
        self.closed_ns: int | None = None
        self.tail_wait_ns = 0
        self.tapped = False
        self.watched = False
        self.fed_by_hand = False
        self.terminal = False
        self.verdict: tuple[Status, str | None, str | None] | None = None
        self.status: Status = "running"
        self.end_ns = 0
        self.error_type: str | None = None
        self.error_message: str | None = None
        self.http_status: int | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.request_id: str | None = None
        self.response_meta: dict[str, Any] = {}
        self.late: Callable[[], None] | None = None
        self.finish_reasons: dict[int, str] = {}
        self.usage_counts: Usage | None = None
        self.blocked: list[tuple[int, int]] = []
        self.beat: Heartbeat | None = None

    @property
    def uid(self) -> str:
        """The call's public ULID."""
        return self.call.uid

    @property
    def is_open(self) -> bool:
        """Whether the call has not ended yet."""
        return bool(self._once)

    def part(
        self,
        kind: Kind,
        choice: int = 0,
        provider_index: str | None = None,
        name: str | None = None,
        external_id: str | None = None,
    ) -> int:
        """Number of the part with this kind, choice and provider's index; announces it when it is new."""
        key = (kind, choice, provider_index)
        number = self._keys.get(key)
        if number is None:
            number = self._keys[key] = len(self.parts)
            self.parts.append(Part(number, kind, choice, provider_index, name, external_id))
        return number

    def add(
        self, at_ns: int, wait_ns: int, part: int, text: str, n_tokens: int | None = None, logprobs: Any = None
    ) -> None:
        """Append one event.

        Args:
            at_ns: when the chunk was handed over, on the call's clock.
            wait_ns: time inside `next()` since the previous event; 0 for a second event of one chunk.
            part: number of the part.
            text: exactly as received, not empty.
            n_tokens: how many model tokens it holds, only if that is known.
            logprobs: plain values, never the SDK's objects.
        """
        if n_tokens is None and logprobs is None:
            self.rows.extend((at_ns, wait_ns, part, text))
        else:
            self.has_extras = True
            self.rows.extend((at_ns, wait_ns, Extra(part, n_tokens, logprobs), text))

    def take_wait(self, wait_ns: int) -> int:
        """The wait of the event being added: this `next()` and those since the last event that brought no content."""
        wait_ns += self.carry_ns
        self.carry_ns = 0
        return wait_ns

    def saw_attempt(self) -> None:
        """An attempt to send the request begins."""
        self.attempts += 1
        self.attempt_ns = self.clock.monotonic_ns()

    def saw_response(self, status: int | None) -> None:
        """The response headers of the attempt that succeeded are here."""
        self.headers_ns = self.clock.monotonic_ns()
        self.http_status = status

    def judge(self, status: Status, error_type: str | None = None, message: str | None = None) -> None:
        """The provider said inside the stream that the answer failed or was cancelled; that decides the status."""
        if self.verdict is None:
            self.verdict = (status, error_type, message)

    def stopped(self, exc: BaseException, asked_ns: int) -> None:
        """The iterator raised: a normal end, a failure or a cancellation.

        Args:
            exc: what the SDK's `next()` raised.
            asked_ns: when that `next()` was entered.
        """
        now = self.clock.monotonic_ns()
        self.asked_ns = 0
        self.tail_wait_ns = self.carry_ns + now - asked_ns
        if isinstance(exc, (StopIteration, StopAsyncIteration)):
            self.end("completed", at_ns=now)
        else:
            self.end_by(exc, at_ns=now)

    def end_by(self, exc: BaseException, at_ns: int | None = None) -> None:
        """End the call with an exception that the SDK or the program raised."""
        status = _status_of(exc)
        if self.http_status is None:
            code = getattr(exc, "status_code", None)
            self.http_status = code if isinstance(code, int) else None
        self.end(status, type(exc).__qualname__, str(exc), at_ns)

    def closed(self, *, dropped: bool = False) -> None:
        """The transport's byte stream was closed, or collected (`dropped`): the program stopped reading.

        A close while the program is inside `next()` comes from the SDK, which is about to say how the reading ended.
        """
        now = self.clock.monotonic_ns()
        if self.asked_ns and not dropped:
            self.closed_ns = now
            return
        self.tail_wait_ns = self.carry_ns
        error = None if dropped else self._error_in_body()
        cancelled = error is not None and _status_of(error) == "cancelled"
        self.end(
            "cancelled" if cancelled else "abandoned",
            type(error).__qualname__ if error is not None else None,
            at_ns=self.closed_ns or now,
        )

    def end(
        self, status: Status, error_type: str | None = None, error_message: str | None = None, at_ns: int | None = None
    ) -> bool:
        """End the call; only the first of several ends counts.

        Args:
            status: how the reading ended. A terminal event of the provider makes it `completed` all the same, a failure
                it reported decides.
            at_ns: when, on the call's clock; now unless told otherwise.

        Returns:
            Whether this was the first end.
        """
        try:
            self._once.pop()
        except IndexError:
            return False
        self.end_ns = self.clock.monotonic_ns() if at_ns is None else at_ns
        if self.verdict is not None:
            status, error_type, error_message = self.verdict
        elif self.terminal:
            status = "completed"
        self.error_type, self.error_message = error_type, error_message
        self.status = status
        self._owner.ended(self)
        return True

    def _error_in_body(self) -> BaseException | None:
        """The exception that is unwinding the program's loop, if it is not one that was there before the call."""
        error = sys.exc_info()[1]
        if error is None or id(error) == self._caller_exc:
            return None
        # These come from the iterator being wound up, not from the loop that read it.
        return None if isinstance(error, (GeneratorExit, StopIteration, StopAsyncIteration)) else error


def _status_of(exc: BaseException) -> Status:
    # asyncio is imported by whoever raises its CancelledError; looking it up keeps it out of our import.
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(exc, asyncio.CancelledError):
        return "cancelled"
    return "error" if isinstance(exc, Exception) else "abandoned"


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
        self.keep_prompts = keep_prompts
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
        """Open a call; its clock starts now.

        Returns:
            The call's recorder, or None where recording is suppressed here or a plugin said `skip`.
        """
        if context.SUPPRESSED.get():
            return None
        start_ns = self.clock.monotonic_ns()
        run = context.RUN.get() or self.process_run()
        call = self._describe(request, run.uid)
        if self._decide is not None:
            decided = self._decide(call)
            if decided == "skip":
                return None
            if decided is not None:
                call = replace(call, content_level=decided)  # type: ignore[arg-type]  # checked by the host
        opened = CallRecorder(self, call, request, start_ns)
        self.open.add(opened)
        self._last = run.last_call = opened
        self.queue.append(("call_started", opened))
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

    def _describe(self, request: Request, run_uid: str) -> Call:
        from .ids import new_uid

        uid = new_uid()
        parent = context.PARENT.get()
        trace_id, span_id = _otel_ids()
        return Call(
            uid=uid,
            run_uid=run_uid,
            parent_uid=parent.uid if parent is not None and parent.is_open else None,
            layer=request.layer,
            adapter=request.adapter,
            provider=request.provider,
            server_address=request.server_address,
            operation=request.operation,
            request_model=request.model,
            streaming=request.streaming,
            started_unix_us=self.clock.unix_ns() // 1000,
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
