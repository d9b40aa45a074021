"""One call being recorded: its events appended as they arrive, and the one place where it ends.

A call's events lie in one flat list, four values an event: asked (ns), arrival (ns), part, text. One `extend` with a
tuple that dies at once is atomic, keeps no container alive that the garbage collector would have to visit, and is taken
apart again by strided slices. The writer takes complete events from the front; nobody needs a lock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from . import faults
from .causes import cancellation, message_of, status_of
from .fragments import Extra, Fragment, joined
from .models import KINDS, Call, Kind, Layer, Part, Status, Usage

if TYPE_CHECKING:
    from .heartbeat import Heartbeat
    from .raw_reads import RawReads
    from .recorder import Recorder

STRIDE: Final = 4


@dataclass(slots=True)
class Request:
    """What an adapter knows of a call when it is sent.

    Attributes:
        adapter: the adapter's name, as in its entry point.
        operation: what kind of request, e.g. `chat`, `text_completion`, `responses`, `messages`.
        provider: OpenTelemetry's `gen_ai.provider.name`; `tokentape.providers.provider_at` knows it by a host.
        model: the model that is asked for.
        server_address: the host only.
        streaming: False for an answer that comes in one piece.
        layer: `sdk` for a provider's client, `framework` for what calls one.
        scalars: allow-listed parameters of the request: never text that a user may have written.
        body: the request body, kept by reference until the writer has turned it into JSON, where prompts are kept.
        choices: how many answers were asked for.
        name: what the call is called in tables and pages, if the user gave it a name.
        metadata: JSON values that the user gave.
        framework_run_id: the framework's own id of this call.
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

    All times are whole nanoseconds on `clock.monotonic_ns()`. The attributes from `response_id` to `fed_by_hand` are
    for adapters to set, as they learn of them.

    Attributes:
        call: what was known when the request was sent.
        clock: what the call is timed with.
        start_ns: when it was opened.
        first_ns: when the first chunk came; None until then.
        response_id: the provider's id of the answer.
        response_model: the model that answered.
        request_id: the provider's id of the request, often a response header.
        response_meta: plain values from an allow-list of response headers.
        finish_reasons: the provider's word for each choice that is complete, by the choice's number.
        terminal: whether the provider has said that the answer is complete.
        usage_counts: what was billed, the last word; None as long as the provider has not said.
        late: work put off to the writer thread, done before the call is finished there.
        fed_by_hand: whether chunks are announced, so that nobody knows when they were asked for; the cause of a stall
            is then `unknown`.
        watched: whether the bytes beneath the stream are watched.
        tapped: whether a tap reads the stream.
        http_status: of the last response that came.
        rows: the events not yet taken by the writer, flat, `STRIDE` values each.
        chunks_beyond_events: how many more chunks than events there were; so the common chunk, which is one event, is
            not counted on the hot path.
        asked_ns: when the program asked for the chunk it is waiting for; 0 while it is not waiting.
        carry_ns: time inside `next()` since the last event that no event has accounted for yet.
        tail_wait_ns: the time inside the last `next()`, which brought the end.
        raw: bytes that the program reads itself, to be read as events on the writer thread.
        runs: uids of the runs it was opened in, from the inside out.
        noted: labels that came after it was opened; only ever added to.
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
        "call",
        "carry_ns",
        "chunks_beyond_events",
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
        "noted",
        "parts",
        "raw",
        "request",
        "request_id",
        "response_id",
        "response_meta",
        "response_model",
        "rows",
        "runs",
        "start_ns",
        "status",
        "tail_wait_ns",
        "tapped",
        "terminal",
        "usage_counts",
        "verdict",
        "watched",
    )

    def __init__(
        self, owner: Recorder, call: Call, request: Request, start_ns: int, runs: tuple[str, ...] = ()
    ) -> None:
        self._owner = owner
        self._once = [True]
        self._keys: dict[tuple[Kind, int, str | None, str | None], int] = {}
        self._caller_exc = id(sys.exc_info()[1])
        self.clock = owner.clock
        self.call = call
        self.runs = runs
        self.noted: dict[str, str] = {}
        self.request = request
        self.start_ns = start_ns
        self.rows: list[Any] = []
        self.parts: list[Part] = []
        self.has_extras = False
        self.chunks_beyond_events = 0
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
        self.raw: RawReads | None = None
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

    @property
    def takes_children(self) -> bool:
        """Whether a request sent here is this framework call's; once it has begun to answer, it is the program's."""
        return self.is_open and self.first_ns is None

    def part(
        self,
        kind: Kind,
        choice: int = 0,
        provider_index: str | None = None,
        name: str | None = None,
        external_id: str | None = None,
    ) -> int:
        """Number of the part with this kind, choice and provider's index; announces it when it is new.

        Args:
            kind: one of `text`, `reasoning`, `tool_args`, `refusal`, `audio_transcript`.
            choice: number of the answer, from 0, where several were asked for.
            provider_index: tells parts of one kind and choice apart, as the provider numbers them: `0` for its first
                tool call, say.
            name: the tool's name; `summary` for reasoning that is a summary.
            external_id: the provider's id of the tool call or item.

        Returns:
            The part's number within the call, from 0.

        Raises:
            ValueError: there is no such kind.
        """
        # A summary and the reasoning it sums up have the same place in the provider's own numbering.
        key = (kind, choice, provider_index, name if kind == "reasoning" else None)
        number = self._keys.get(key)
        if number is None:
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
            number = self._keys[key] = len(self.parts)
            self.parts.append(Part(number, kind, choice, provider_index, name, external_id))
        return number

    def add_chunk(self, asked_ns: int, at_ns: int, fragments: list[Fragment]) -> None:
        """Append what one chunk brought; several fragments for one part are one event.

        The first event has the wait of this chunk and of those before it that brought nothing; the others have none.

        Args:
            asked_ns: when the SDK's `next()` was entered, on the call's clock.
            at_ns: when the chunk was handed over.
            fragments: empty for a chunk without content.
        """
        if self.first_ns is None:
            self.first_ns = at_ns
        if not fragments:
            self.chunks_beyond_events += 1
            self.carry_ns += at_ns - asked_ns
            return
        asked_ns -= self.carry_ns
        self.carry_ns = 0
        for part, text, n_tokens, logprobs in joined(fragments):
            shown: Any = part
            if n_tokens is not None or logprobs is not None:
                self.has_extras = True
                shown = Extra(part, n_tokens, logprobs)
            self.rows.extend((asked_ns, at_ns, shown, text))
            self.chunks_beyond_events -= 1
            asked_ns = at_ns
        self.chunks_beyond_events += 1

    def saw_attempt(self) -> None:
        """An attempt to send the request begins."""
        self.attempts += 1
        self.attempt_ns = self.clock.monotonic_ns()

    def saw_response(self, status: int | None) -> None:
        """The response headers of the attempt that succeeded are here.

        Args:
            status: its HTTP status, where there is such a thing.
        """
        self.headers_ns = self.clock.monotonic_ns()
        self.http_status = status

    def saw_stream(self) -> None:
        """The program is handed its stream: what that took is the first thing it has waited for."""
        self.carry_ns = self.clock.monotonic_ns() - self.start_ns

    def answered_whole(self) -> None:
        """The answer came in one piece, which was not known when the call was opened: it was no stream."""
        self.call = replace(self.call, streaming=False)

    def judge(self, status: Status, error_type: str | None = None, message: str | None = None) -> None:
        """The provider said inside the stream that the answer failed or was cancelled; that decides the status.

        Args:
            status: `error` or `cancelled`.
            error_type: the provider's word for what went wrong.
            message: as it came; it is masked like the answer's text.
        """
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
        if not self._once:
            return  # read on after the end
        self.tail_wait_ns = now - asked_ns
        if isinstance(exc, (StopIteration, StopAsyncIteration)):
            self.end("completed", at_ns=now)
        else:
            self.end_by(exc, at_ns=now)

    def end_by(self, exc: BaseException, at_ns: int | None = None) -> None:
        """End the call with an exception that the SDK or the program raised; a generator's own end is no error.

        Args:
            exc: decides the status: `cancelled` for a cancelled task, `error` for any other failure, else `abandoned`.
                Its `status_code`, if it has one, is the HTTP status of a request that was refused.
            at_ns: when; now unless told otherwise.
        """
        if isinstance(exc, GeneratorExit):
            # Thrown into a generator that is closed. What it was closed in the middle of is its context, but that of an
            # asynchronous one is lost on the way; only that its task is cancelled can be seen.
            self._left_by(self._in_body(exc.__context__) or cancellation(), at_ns)
            return
        status = status_of(exc)
        if self.http_status is None:
            code = getattr(exc, "status_code", None)
            self.http_status = code if isinstance(code, int) else None
        self.end(status, type(exc).__qualname__, message_of(exc), at_ns)

    def closed(self, *, dropped: bool = False) -> None:
        """The transport's byte stream was closed, or collected: the program stopped reading.

        A close while the program is inside `next()` comes from the SDK, which is about to say how the reading ended.
        Nothing happens to a call that has ended before. May be called from any thread, also by a finalizer.

        Args:
            dropped: nobody closed it; it was collected as garbage.
        """
        # Whoever closes a stream is the program, which must not hear of our faults.
        with faults.guard(f"{self.call.adapter} adapter", "how a call ended"):
            if self._once:
                self._closed(dropped)

    def _closed(self, dropped: bool) -> None:
        now = self.clock.monotonic_ns()
        if self.asked_ns and not dropped:
            self.closed_ns = now
            return
        self._left_by(None if dropped else self._in_body(sys.exc_info()[1]), self.closed_ns or now)

    def _left_by(self, error: BaseException | None, at_ns: int | None) -> None:
        """The program stopped reading; an exception in its loop body is noted."""
        cancelled = error is not None and status_of(error) == "cancelled"
        self.end(
            "cancelled" if cancelled else "abandoned",
            type(error).__qualname__ if error is not None else None,
            at_ns=at_ns,
        )

    def end(
        self, status: Status, error_type: str | None = None, error_message: str | None = None, at_ns: int | None = None
    ) -> bool:
        """End the call; only the first of several ends counts.

        Args:
            status: how the reading ended. A terminal event of the provider makes it `completed` all the same, a failure
                it reported decides.
            error_type: name of what went wrong.
            error_message: what it says; masked like the answer's text.
            at_ns: when, on the call's clock; now unless told otherwise.

        Returns:
            Whether this was the first end.
        """
        end_ns = self.clock.monotonic_ns() if at_ns is None else at_ns
        try:
            self._once.pop()
        except IndexError:
            return False
        self.end_ns = end_ns
        self.status, self.error_type, self.error_message = status, error_type, error_message
        if self.raw is None:
            self.settle()
        self._owner.ended(self)
        return True

    def settle(self) -> None:
        """Let what the provider said decide over how the reading ended: at the end, or once all of it is decoded."""
        if self.verdict is not None:
            self.status, self.error_type, self.error_message = self.verdict
        elif self.terminal:
            self.status = "completed"

    def conclude(self) -> None:
        """Do what was put off, on the writer thread: the call has ended, and its last event has been taken."""
        raw, self.raw = self.raw, None
        if raw is not None:
            raw.finish()
        if self.late is not None:
            self.late()

    def _in_body(self, error: BaseException | None) -> BaseException | None:
        """The exception that is unwinding the program's loop, if it is not one that was there before the call."""
        if error is None or id(error) == self._caller_exc:
            return None
        # These come from the iterator being wound up, not from the loop that read it.
        return None if isinstance(error, (GeneratorExit, StopIteration, StopAsyncIteration)) else error
