"""Ways to ask a model of LlamaIndex's, each as one function of the model."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode

from scripted_llama_llm import ASKED

SECRET = "what nobody else may read"


class Shelf(BaseRetriever):
    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=SECRET), score=1.0)]


def query_engine(model: Any, streaming: bool) -> Any:
    synthesizer = get_response_synthesizer(llm=model, streaming=streaming)
    return RetrieverQueryEngine(Shelf(), response_synthesizer=synthesizer)


def in_a_thread(model: Any) -> None:
    stream = model.stream_chat(ASKED)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    thread.join()


async def drained(stream: Any) -> list[Any]:
    return [item async for item in await stream]


async def step_by_step(model: Any) -> None:
    stream = await model.astream_chat(ASKED)
    await asyncio.create_task(anext(stream))
    await asyncio.create_task(asyncio.wait_for(_rest(stream), 10))


async def _rest(stream: Any) -> list[Any]:
    return [item async for item in stream]


STREAMED: dict[str, Callable[[Any], Any]] = {
    "stream_chat": lambda m: list(m.stream_chat(ASKED)),
    "astream_chat": lambda m: asyncio.run(drained(m.astream_chat(ASKED))),
    "stream_complete": lambda m: list(m.stream_complete("hi")),
    "astream_complete": lambda m: asyncio.run(drained(m.astream_complete("hi"))),
    "chat engine": lambda m: list(SimpleChatEngine.from_defaults(llm=m).stream_chat("hi").response_gen),
    "query engine": lambda m: list(query_engine(m, streaming=True).query("hi").response_gen),
    "another thread": in_a_thread,
    "task by task": lambda m: asyncio.run(step_by_step(m)),
    "another context": lambda m: contextvars.Context().run(list, m.stream_chat(ASKED)),
}
WHOLE: dict[str, Callable[[Any], Any]] = {
    "chat": lambda m: m.chat(ASKED),
    "achat": lambda m: asyncio.run(m.achat(ASKED)),
    "complete": lambda m: m.complete("hi"),
    "acomplete": lambda m: asyncio.run(m.acomplete("hi")),
    "query engine": lambda m: query_engine(m, streaming=False).query("hi"),
}
