"""Chat models that stream what a test gives them, in the shapes that LangChain's integrations stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


def chunk(content: Any = "", **fields: Any) -> ChatGenerationChunk:
    """A chunk of a message; `generation_info` goes beside it."""
    info = fields.pop("generation_info", None)
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields), generation_info=info)


class ScriptedChatModel(BaseChatModel):
    """Streams its chunks; raises what it finds among them."""

    chunks: list[Any]
    model: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("whole"))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for item in self.chunks:
            if isinstance(item, BaseException):
                raise item
            # As integrations do: heard by the callbacks here, where LangChain hands them in.
            if run_manager is not None:
                run_manager.on_llm_new_token(item.text, chunk=item)
            yield item


class SilentChatModel(ScriptedChatModel):
    """One whose `_stream` leaves the callbacks to LangChain."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        yield from super()._stream(messages, stop, None, **kwargs)


class NativeChatModel(ScriptedChatModel):
    """One that speaks LangChain's streaming protocol itself."""

    events: list[dict[str, Any]]

    def _stream_chat_model_events(self, messages: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        yield from self.events
