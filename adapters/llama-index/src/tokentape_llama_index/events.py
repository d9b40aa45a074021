"""The event handler: what LlamaIndex says of its models' answers, on the thread and in the context where it happens.

LlamaIndex announces one answer several times, also as events of chat engines, agents and structured output. Only those
of the model itself are heard. Whatever a handler raises LlamaIndex swallows, so every method guards itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)

from tokentape import faults

from .generations import PLACE, Generations
from .requests import chat_request, text_request


class EventHandler(BaseEventHandler):  # type: ignore[misc]  # to us, every LlamaIndex value is Any
    """Records what LlamaIndex's models answer.

    Args:
        generations: those under way.
    """

    # Slots and not pydantic's private attributes, which take a microsecond to read.
    __slots__ = ("_heard",)
    _heard: Mapping[type, Callable[[Any], None]]

    def __init__(self, generations: Generations) -> None:
        super().__init__()
        heard: dict[type, Callable[[Any], None]] = {
            LLMChatInProgressEvent: generations.saw_chunk,
            LLMCompletionInProgressEvent: generations.saw_chunk,
            LLMChatStartEvent: lambda event: generations.begin(chat_request(event)),
            LLMCompletionStartEvent: lambda event: generations.begin(text_request(event)),
            LLMChatEndEvent: generations.completed,
            LLMCompletionEndEvent: generations.completed,
            ExceptionEvent: lambda event: generations.failed(event.span_id, event.exception),
        }
        object.__setattr__(self, "_heard", heard)

    @classmethod
    def class_name(cls) -> str:
        """How LlamaIndex calls the handler."""
        return "TokentapeEventHandler"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Something happened."""
        hear = self._heard.get(event.__class__)
        if hear is not None:
            # What a guard does, without its price: this is the hot path.
            try:
                hear(event)
            except Exception as fault:
                faults.report(PLACE, fault, "what a model answered")
