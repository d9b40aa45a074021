"""One run of a model, from LangChain's first word of it to the last."""

from __future__ import annotations

from contextvars import Token
from typing import Any, Literal

from tokentape import context
from tokentape.call import CallRecorder

from .answers import read_answer
from .chunks import ChunkReader
from .events import EventReader


class ModelRun:
    """Records one run of a model; its requests to an SDK are its children until it begins to answer.

    A callback says when a chunk arrived, but not when it was asked for: whose time a gap was is not known here. Where
    an SDK adapter records the request beneath, that call knows.

    Args:
        call: the framework call that was opened for it.
        alone: False for one of several that start at once, whose requests cannot be told apart: they stay unlinked.
    """

    __slots__ = ("_before", "_call", "_chunks", "_events", "_now", "_source")

    def __init__(self, call: CallRecorder, *, alone: bool) -> None:
        call.fed_by_hand = True
        self._call = call
        self._now = call.clock.monotonic_ns
        self._chunks = ChunkReader(call)
        self._events = EventReader(call)
        self._source: Literal["chunks", "events"] | None = None
        self._before: Token[CallRecorder | None] | None = context.PARENT.set(call) if alone else None

    def saw_chunk(self, token: Any, chunk: Any) -> None:
        """Append what a chunk adds."""
        at_ns = self._now()
        if self._source is None:
            self._begin("chunks")
        # Locked to what came first: a model may be heard twice, by its chunks and by the events made of them.
        if self._source == "chunks" and self._call.is_open:
            self._chunks.read(token, chunk, at_ns)

    def saw_event(self, event: Any) -> None:
        """Append what an event of the streaming protocol adds, where the model sends nothing else."""
        at_ns = self._now()
        if self._source == "chunks" or not self._call.is_open:
            return
        if self._events.read(event, at_ns) and self._source is None:
            self._begin("events")

    def completed(self, response: Any) -> None:
        """The answer is complete."""
        read_answer(self._call, response, was_read=self._source == "chunks")
        if self._source is None:
            self._call.answered_whole()
        self._call.end("completed")
        self._leave()

    def failed(self, error: BaseException, response: Any) -> None:
        """The run ended with an exception; LangChain's own for a reader that stopped is `GeneratorExit`."""
        read_answer(self._call, response, was_read=True)
        self._call.end_by(error)
        self._leave()

    def _begin(self, source: Literal["chunks", "events"]) -> None:
        """The model has begun to answer: what is asked from now on is the program's own."""
        self._source = source
        self._leave()

    def _leave(self) -> None:
        """Put the context back as it was; where the start was in another context, its call is no parent any more."""
        before, self._before = self._before, None
        if before is not None:
            context.forget_parent(before)
