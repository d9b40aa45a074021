"""What streams are read through, answered from memory: SDKs and frameworks, and how long they take for a chunk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import answers
import anthropic
import openai

from langchain_drivers import chat_model
from scripted_llama_llm import ASKED, ServedLLM

CHUNKS = 2_000
# Streams in a row, of which the fastest counts: each is short enough to be left alone by the scheduler.
STREAMS = 5


@dataclass(frozen=True, slots=True)
class Surface:
    """One way to read a stream, of an SDK or of a framework above it.

    Attributes:
        adapter: what records it.
        sdk: whose bytes, or objects in their place, are handed over.
        objects: makes the SDK's own objects.
        make: makes what is asked, of either kind, whose answers are so many chunks really parsed.
        ask: asks it, in either of the modes: a stream, or an awaitable of it.
    """

    name: str
    adapter: str
    sdk: ModuleType
    objects: Callable[[], list[Any]]
    make: Callable[[int, bool], Any]
    ask: Callable[[Any, bool], Any]

    def per_chunk(
        self,
        asynchronous: bool,
        chunks: int = CHUNKS,
        *,
        parsed: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> float:
        """Microseconds from one chunk to the next, in the fastest of a few streams.

        Args:
            chunks: how many there are in a stream.
            parsed: whether they are really parsed. If not, `answers.prebuilt` has been entered with as many.
            clock: tells seconds.
        """
        of = self.make(chunks if parsed else 0, asynchronous)
        if asynchronous:
            times = asyncio.run(self._read_async(of, chunks, clock))
        else:
            times = [_read(self.ask(of, False), chunks, clock) for _ in range(STREAMS)]
        return min(times) / (chunks - 1) * 1e6

    async def _read_async(self, of: Any, chunks: int, clock: Callable[[], float]) -> list[float]:
        return [await _read_async(self.ask(of, True), chunks, clock) for _ in range(STREAMS)]


def _read(stream: Any, chunks: int, clock: Callable[[], float]) -> float:
    """Seconds from the first chunk to the last: how a stream begins and ends is the call's, not a chunk's."""
    first = last = 0.0
    for count, _ in enumerate(stream, start=1):
        if count == 1:
            first = clock()
        elif count == chunks:
            last = clock()
    return last - first


async def _read_async(stream: Any, chunks: int, clock: Callable[[], float]) -> float:
    if not hasattr(stream, "__aiter__"):
        stream = await stream
    count, first, last = 0, 0.0, 0.0
    async for _ in stream:
        count += 1
        if count == 1:
            first = clock()
        elif count == chunks:
            last = clock()
    return last - first


def _of_sdk(name: str, sdk: ModuleType, objects: Callable[[], list[Any]], ask: Callable[[Any], Any]) -> Surface:
    def make(frames: int, asynchronous: bool) -> Any:
        return (answers.async_client if asynchronous else answers.client)(frames, sdk)

    return Surface(name, sdk.__name__, sdk, objects, make, lambda client, _: ask(client))


class _FromMemory(ServedLLM):
    """A LlamaIndex model whose client is answered from memory."""

    frames: int

    def _connected(self, kind: Any) -> Any:
        return (answers.client if kind is openai.OpenAI else answers.async_client)(self.frames)


def _langchain_model(frames: int, asynchronous: bool) -> Any:
    kinds = {"http_client": answers.http_client(frames), "http_async_client": answers.async_http_client(frames)}
    return chat_model(answers.URL, **kinds)


CHAT = _of_sdk("chat", openai, answers.chat_chunks, answers.chat)
RESPONSES = _of_sdk("Responses", openai, answers.responses_events, answers.responses)
MESSAGES = _of_sdk("Anthropic messages", anthropic, answers.messages_events, answers.messages)
LANGCHAIN = Surface(
    "LangChain",
    "langchain",
    openai,
    answers.chat_chunks,
    _langchain_model,
    lambda model, asynchronous: model.astream("Hi") if asynchronous else model.stream("Hi"),
)
LLAMA_INDEX = Surface(
    "LlamaIndex",
    "llama-index",
    openai,
    answers.chat_chunks,
    lambda frames, _: _FromMemory(url=answers.URL, frames=frames),
    lambda model, asynchronous: model.astream_chat(ASKED) if asynchronous else model.stream_chat(ASKED),
)
