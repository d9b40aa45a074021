"""The answers under way, each known by the spans that LlamaIndex announces it under."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, Final

from tokentape import context, faults
from tokentape.call import CallRecorder
from tokentape.recorder import Recorder

from .chunks import ChunkReader
from .requests import ADAPTER, Asked

PLACE: Final = "llama-index adapter"


def guard(lost: str) -> faults.guard:
    """Reports what fails of ours."""
    return faults.guard(PLACE, lost)


class Generation:
    """One answer of a model, which may pass through several spans: `stream_chat` of a model that completes text, say.

    The innermost span that hands out chunks is recorded and no other. An event says when a chunk came, but not when it
    was asked for: whose time a gap was is not known here.

    Args:
        call: the framework's call that was opened for it.
        asked: what opened it.
        forget: called when nobody can read it any more.
    """

    __slots__ = ("__weakref__", "_before", "_forget", "_iterator", "_now", "_read", "_source", "asked", "call", "spans")

    def __init__(self, call: CallRecorder, asked: Asked, forget: Callable[[Generation], None]) -> None:
        call.fed_by_hand = True
        self.call = call
        self.asked = asked
        self._forget = forget
        self._now = call.clock.monotonic_ns
        self.spans: list[str | None] = [asked.span_id]
        self._read = ChunkReader(call)
        self._source: str | None = None
        self._iterator: weakref.ref[Any] | None = None
        # For as long as the model's method runs; a generator that it returns is found by its frame.
        self._before: Token[CallRecorder | None] | None = context.PARENT.set(call)

    def saw_chunk(self, span_id: str | None, response: Any) -> None:
        """Append what a chunk adds."""
        at_ns = self._now()
        if self._source is None:
            self._source = span_id or ""
            self.leave()
        elif span_id != self._source:
            return
        if self.call.is_open:
            self._read.read(response, at_ns, at_ns)

    def answered(self, response: Any) -> None:
        """Note what a whole answer, or the last chunk of one, says of itself."""
        if response is not None:
            self._read.read_end(response)

    def end(self, error: BaseException | None = None, *, dropped: bool = False, whole: bool = False) -> None:
        """The answer is complete, failed, or was left."""
        self.leave()
        if self._source is None and (whole or self.asked.whole):
            self.call.answered_whole()
        if error is not None:
            self.call.end_by(error)
        else:
            self.call.end("abandoned" if dropped else "completed")

    def release(self, span_id: str | None) -> None:
        """A span that was heard failed inside another, which may now ask somebody else."""
        if span_id == self._source:
            self._source = None

    def returned(self, iterator: Any) -> None:
        """The outermost span handed over a generator."""
        own = weakref.ref(self)

        def dropped(_: Any) -> None:
            generation = own()
            if generation is not None and generation.call.is_open:
                with guard("how a call ended"):
                    generation.end(dropped=True)
                    generation._forget(generation)

        self._iterator = weakref.ref(iterator, dropped)

    def frame(self) -> Any:
        """The frame of the generator that is read, once there is one."""
        iterator = self._iterator() if self._iterator is not None else None
        return getattr(iterator, "gi_frame", None) or getattr(iterator, "ag_frame", None)

    def leave(self) -> None:
        """Put the context back as it was."""
        before, self._before = self._before, None
        if before is not None:
            context.forget_parent(before)


class Generations:
    """Those under way.

    Args:
        recorder: opens their calls.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder
        self._by_span: dict[str | None, Generation] = {}

    def stop(self) -> None:
        """Forget what is under way, and begin nothing any more."""
        self._recorder = None
        for generation in tuple(self._by_span.values()):
            generation.leave()
        self._by_span.clear()

    def begin(self, asked: Asked) -> None:
        """A model is about to be asked, for an answer of its own or for the answer of a span around it."""
        recorder = self._recorder
        if recorder is None or asked.span_id in self._by_span:
            return
        around = self._around()
        if around is not None:
            around.spans.append(asked.span_id)
            self._by_span[asked.span_id] = around
            return
        call = recorder.start(asked.request)
        if call is not None:
            self._by_span[asked.span_id] = Generation(call, asked, self._close)

    def saw_chunk(self, event: Any) -> None:
        """A chunk has come."""
        fields = event.__dict__
        span_id = fields["span_id"]
        generation = self._by_span.get(span_id)
        if generation is not None:
            generation.saw_chunk(span_id, fields["response"])

    def completed(self, event: Any) -> None:
        """An answer is complete."""
        generation = self._by_span.get(event.span_id)
        if generation is None:
            return
        generation.answered(event.response)
        if self._is_outermost(generation, event.span_id):
            self._close(generation)
            generation.end(whole=event.response is not None)

    def failed(self, span_id: str | None, error: BaseException | None) -> None:
        """The model failed, or whoever read the answer stopped."""
        generation = self._by_span.get(span_id)
        if generation is None:
            return
        if self._is_outermost(generation, span_id):
            self._close(generation)
            generation.end(error, dropped=True)
        else:
            generation.release(span_id)

    def returned(self, span_id: str, result: Any) -> None:
        """A model's method has returned; a generator is read later, wherever the program reads it."""
        generation = self._by_span.get(span_id)
        if generation is None or not self._is_outermost(generation, span_id):
            return
        generation.leave()
        if hasattr(result, "gi_frame") or hasattr(result, "ag_frame"):
            generation.returned(result)

    def being_read(self) -> CallRecorder | None:
        """The call whose generator is being read on this thread's stack, the innermost of several."""
        generation = self._on_stack()
        return generation.call if generation is not None else None

    def _around(self) -> Generation | None:
        parent = context.PARENT.get()
        if parent is not None and parent.call.adapter == ADAPTER and parent.is_open:
            return next((found for found in tuple(self._by_span.values()) if found.call is parent), None)
        return self._on_stack()

    def _on_stack(self) -> Generation | None:
        frames = {frame: found for found in tuple(self._by_span.values()) if (frame := found.frame()) is not None}
        return _innermost(frames) if frames else None

    def _is_outermost(self, generation: Generation, span_id: str | None) -> bool:
        return generation.asked.span_id == span_id

    def _close(self, generation: Generation) -> None:
        for span_id in generation.spans:
            self._by_span.pop(span_id, None)


def _innermost(frames: Mapping[Any, Generation]) -> Generation | None:
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame in frames:
            return frames[frame]
        frame = frame.f_back
    return None
