"""LlamaIndex models for tests: one that streams what it is given, one that asks a server through OpenAI's SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import openai
from llama_index.core.base.llms.types import ThinkingBlock, ToolCallBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import (
    LLM,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
    MessageRole,
    TextBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM

ASKED = [ChatMessage(role="user", content="hi")]


def piece(delta: str | None = "", blocks: Sequence[Any] = (), **fields: Any) -> ChatResponse:
    """A chunk of a chat answer; `said` goes beside the message's blocks."""
    said = fields.pop("said", {})
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=list(blocks), additional_kwargs=said)
    return ChatResponse(message=message, delta=delta, **fields)


def _read(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item


class CompletingLLM(CustomLLM):
    """Completes text; LlamaIndex makes its chat methods out of that, which announces each answer more than once."""

    pieces: list[Any]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="".join(_read(self.pieces)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return (CompletionResponse(text="", delta=text) for text in _read(self.pieces))


class ChattingLLM(FunctionCallingLLM):
    """Streams the chunks of the next answer; raises what it finds among them."""

    answers: list[list[Any]]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted", is_chat_model=True, is_function_calling_model=True)

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return list(_read(self.answers.pop(0)))[-1]

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return _read(self.answers.pop(0))

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return list(_read(self.answers.pop(0)))[-1]

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def chunks() -> AsyncIterator[Any]:
            for item in _read(self.answers.pop(0)):
                yield item

        return chunks()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    stream_complete = acomplete = astream_complete = complete

    def _prepare_chat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **_: Any) -> Any:
        return {"messages": chat_history or ASKED}

    def get_tool_calls_from_response(self, response: Any, *args: Any, **kwargs: Any) -> list[Any]:
        from llama_index.core.llms.llm import ToolSelection

        tools = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        return [ToolSelection(tool_id=t.tool_call_id, tool_name=t.tool_name, tool_kwargs={"query": "x"}) for t in tools]


class ServedLLM(LLM):
    """Asks a server once its generator is first read, as LlamaIndex's own integration does.

    Attributes:
        client: of OpenAI's, for all answers; without one each has a client of its own.
    """

    url: str
    model: str = "gpt-x"
    key: str = "none"
    client: Any = Field(default=None, exclude=True)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def _request(self, messages: Any, stream: bool, asked: dict[str, Any]) -> dict[str, Any]:
        said = [{"role": message.role.value, "content": message.content} for message in messages]
        return {"model": self.model, "messages": said, "stream": stream, **asked}

    def _connected(self, kind: Any) -> Any:
        """The client to ask with, in a block that closes it where it is nobody else's."""
        own = not self.client
        return kind(base_url=self.url, api_key=self.key, max_retries=0) if own else nullcontext(self.client)

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        def chunks() -> Iterator[ChatResponse]:
            held = _Held()
            with self._connected(openai.OpenAI) as client:
                for raw in client.chat.completions.create(**self._request(messages, True, kwargs)):
                    yield held.grown(raw)

        return chunks()

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def chunks() -> AsyncIterator[ChatResponse]:
            held = _Held()
            async with self._connected(openai.AsyncOpenAI) as client:
                async for raw in await client.chat.completions.create(**self._request(messages, True, kwargs)):
                    yield held.grown(raw)

        return chunks()

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        with self._connected(openai.OpenAI) as client:
            raw = client.chat.completions.create(**self._request(messages, False, kwargs))
        return piece(None, [TextBlock(text=raw.choices[0].message.content or "")], raw=raw)

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        async with self._connected(openai.AsyncOpenAI) as client:
            raw = await client.chat.completions.create(**self._request(messages, False, kwargs))
        return piece(None, [TextBlock(text=raw.choices[0].message.content or "")], raw=raw)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return CompletionResponse(text=self.chat(ASKED).message.content)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return (CompletionResponse(text="", delta=r.delta, raw=r.raw) for r in self.stream_chat(ASKED))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return CompletionResponse(text=(await self.achat(ASKED)).message.content)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        stream = await self.astream_chat(ASKED)
        return (CompletionResponse(text="", delta=r.delta, raw=r.raw) async for r in stream)


class _Held:
    """What has come so far, as LlamaIndex's integrations carry it along."""

    def __init__(self) -> None:
        self.text = self.thoughts = ""
        self.tools: dict[int, ToolCallBlock] = {}

    def grown(self, raw: Any) -> ChatResponse:
        delta = raw.choices[0].delta if raw.choices else None
        text = getattr(delta, "content", None) or ""
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
        self.text, self.thoughts = self.text + text, self.thoughts + thought
        for call in getattr(delta, "tool_calls", None) or ():
            block = self.tools.setdefault(
                call.index, ToolCallBlock(tool_call_id=call.id, tool_name=call.function.name or "", tool_kwargs="")
            )
            block.tool_kwargs += call.function.arguments or ""
        blocks = [ThinkingBlock(content=self.thoughts)] if self.thoughts else []
        tools = [block.model_copy() for block in self.tools.values()]
        extra = {"thinking_delta": thought} if thought else {}
        return piece(text, [*blocks, TextBlock(text=self.text), *tools], raw=raw, additional_kwargs=extra)
