"""Puts our handlers on LlamaIndex's root dispatcher, which all the others report to, and takes them off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.instrumentation import get_dispatcher

from tokentape import context
from tokentape.recorder import Recorder

from .events import EventHandler
from .generations import Generations
from .spans import SpanHandler


def listen(recorder: Recorder) -> Callable[[], None]:
    """Hear what LlamaIndex tells from now on.

    Returns:
        A function that ends it; what is under way then goes on unheard.
    """
    root = get_dispatcher()
    generations = Generations(recorder)
    event_handler, span_handler = EventHandler(generations), SpanHandler(generations, recorder)
    root.add_event_handler(event_handler)
    root.add_span_handler(span_handler)
    context.PARENT_FINDERS.append(generations.being_read)

    def stop() -> None:
        context.PARENT_FINDERS.remove(generations.being_read)
        # New lists, for another thread may be going through the old ones.
        root.event_handlers = _without(root.event_handlers, event_handler)
        root.span_handlers = _without(root.span_handlers, span_handler)
        generations.stop()

    return stop


def _without(handlers: list[Any], ours: Any) -> list[Any]:
    return [handler for handler in handlers if handler is not ours]
