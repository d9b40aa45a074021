"""Recording by hand the stream of an SDK that has no adapter: fed, wrapped, or sent from here.

All of it works when recording is off: it then costs next to nothing and records nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from .call import CallRecorder, Request
from .fragments import Fragment
from .models import KINDS, Kind, Usage
from .recorder import active
from .taps import Reader
from .wrapped import guard, note_sent, wrap

ADAPTER = "python"


class LLMStream:
    """A call that the program records itself; the clock started when it was made.

    Attributes:
        request_id: set it to the provider's request id.
    """

    def __init__(self, call: CallRecorder | None) -> None:
        self._call = call

    @property
    def uid(self) -> str | None:
        """The call's public ULID; None while recording is off."""
        return self._call.uid if self._call is not None else None

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request."""
        return self._call.request_id if self._call is not None else None

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        if self._call is not None:
            self._call.request_id = value

    def add_token(
        self, text: str, kind: Kind = "text", part: str | None = None, choice: int = 0, n_tokens: int | None = None
    ) -> None:
        """Append what just arrived; its arrival is now.

        Args:
            text: exactly as received; an empty one is no event.
            kind: one of `text`, `reasoning`, `tool_args`, `refusal`, `audio_transcript`.
            part: tells several parts of one kind and choice apart.
            choice: number of the answer, from 0.
            n_tokens: how many model tokens the text holds, only if that is known.

        Raises:
            ValueError: there is no such kind.
            TypeError: the text is none.
        """
        _check(str, text=text)
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
        call = self._call
        if call is None:
            return
        call.fed_by_hand = True
        with guard("a token event"):
            now = call.clock.monotonic_ns()
            self._add(call, ((kind, text),), now, now, part, choice, n_tokens)

    def wrap(self, stream: Any, events: Callable[[Any], Iterable[tuple[Kind, str]]]) -> Any:
        """Record an iterator, with wait and hold.

        Args:
            stream: a synchronous or asynchronous iterable.
            events: says what a chunk adds, as pairs of kind and text. What it raises is reported, never passed on.

        Returns:
            As `record_stream` does.
        """
        return wrap(stream, self._call, self._reader(events))

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_input_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        reasoning_tokens: int | None = None,
    ) -> None:
        """Say what the provider billed; the last word counts.

        Raises:
            TypeError: a count is no whole number.
        """
        _check(
            int,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_input_tokens=cached_input_tokens,
            cache_write_tokens=cache_write_tokens,
            reasoning_tokens=reasoning_tokens,
        )
        if self._call is not None:
            self._call.usage_counts = Usage(
                input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens
            )

    def finish(self, reason: str | None = None) -> None:
        """The answer is complete.

        Args:
            reason: the provider's finish reason.

        Raises:
            TypeError: the reason is no text.
        """
        _check(str, reason=reason)
        if self._call is not None and self._call.is_open:
            if reason is not None:
                self._call.finish_reasons[0] = reason
            self._call.terminal = True
            with guard("how a call ended"):
                self._call.end("completed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._call is None:
            return
        with guard("how a call ended"):
            if exc is not None:
                self._call.end_by(exc)
            # A block that was left in peace has said all it had to say, unless it wrapped an iterator and stopped
            # reading it.
            self._call.end("abandoned" if self._call.tapped else "completed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _send(self, send: Callable[[], Any], events: Callable[[Any], Iterable[tuple[Kind, str]]]) -> Any:
        try:
            stream = send()
            if self._call is not None:
                note_sent(self._call)
            return self.wrap(stream, events)
        except BaseException as exc:
            self.__exit__(type(exc), exc, None)
            raise

    def _reader(self, events: Callable[[Any], Iterable[tuple[Kind, str]]]) -> Reader:
        call = self._call

        def read(chunk: Any, asked_ns: int, at_ns: int) -> None:
            if call is not None:
                self._add(call, events(chunk), asked_ns, at_ns)

        return read

    def _add(
        self,
        call: CallRecorder,
        events: Iterable[tuple[Kind, str]],
        asked_ns: int,
        at_ns: int,
        part: str | None = None,
        choice: int = 0,
        n_tokens: int | None = None,
    ) -> None:
        events = [(kind, text) for kind, text in events if text]
        for _, text in events:
            _check(str, text=text)
        fragments = [Fragment(call.part(kind, choice, part), text, n_tokens) for kind, text in events]
        call.add_chunk(asked_ns, at_ns, fragments)


def start_llm_stream(
    model: str | None = None,
    provider: str | None = None,
    prompt: Any = None,
    *,
    operation: str = "chat",
    name: str | None = None,
) -> LLMStream:
    """Record a call of an SDK that has no adapter. The clock starts here: call it just before the request.

    Args:
        model: name of the model.
        provider: OpenTelemetry's `gen_ai.provider.name`, e.g. `openai`.
        prompt: any JSON value; kept only where prompts are kept.
        operation: what kind of request, e.g. `chat`, `text_completion`.
        name: what the call is called in tables and pages.

    Returns:
        A context manager to feed; leaving it ends the call.

    Raises:
        TypeError: a name is no text.
    """
    _check(str, model=model, provider=provider, operation=operation, name=name)
    return LLMStream(_open(model, provider, prompt, operation, name))


def record_stream(
    send: Callable[[], Any],
    *,
    model: str | None = None,
    provider: str | None = None,
    text: Callable[[Any], str | None] | None = None,
    events: Callable[[Any], Iterable[tuple[Kind, str]]] | None = None,
    prompt: Any = None,
    operation: str = "chat",
    name: str | None = None,
) -> Any:
    """Send a request and record the stream it returns, from just before it is sent.

    Args:
        send: sends the request and returns a synchronous or asynchronous iterable, or an awaitable of the latter.
        text: the text a chunk adds; or
        events: what a chunk adds, as pairs of kind and text.
        model, provider, prompt, operation, name: as for `start_llm_stream`.

    Returns:
        An iterator (or asynchronous iterator) over the same chunks; also a context manager, with `close()` or
        `aclose()`.

    Raises:
        TypeError: neither or both of `text` and `events` were given, or `send` is no function.
        Exception: whatever `send` raises, unchanged.
    """
    if (text is None) == (events is None):
        raise TypeError("record_stream() takes one of text= and events=")
    if not callable(send):
        raise TypeError("record_stream() takes a function that sends the request: lambda: client.stream(…)")
    pairs: Callable[[Any], Iterable[tuple[Kind, str]]] = events or (lambda chunk: [("text", text(chunk) or "")])  # type: ignore[misc]
    recorded = start_llm_stream(model, provider, prompt, operation=operation, name=name)
    return recorded._send(send, pairs)


def _check(kind: type, **given: Any) -> None:
    """Refuse here, where the mistake is, what could not be written later."""
    for name, value in given.items():
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")


def _open(
    model: str | None, provider: str | None, prompt: Any, operation: str, name: str | None
) -> CallRecorder | None:
    recorder = active()
    if recorder is None:
        return None
    with guard("a call"):
        return recorder.start(Request(ADAPTER, operation, provider, model, body=prompt, name=name))
    return None
