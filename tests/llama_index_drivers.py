"""Drives a LlamaIndex model for the conformance suite."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms import ChatMessage

from hostile_chunks import CHAT
from openai_drivers import asked, openai_client
from scripted_llama_llm import ServedLLM

MODEL = "gpt-x"


class LlamaIndexDriver:
    model = MODEL
    kinds = frozenset({"text", "reasoning", "tool_args"})
    options = frozenset({"prompt", "include_usage"})
    hostile = CHAT
    is_generator = interleaves = True
    starts = "announced"
    # Events say when a chunk came, not when it was asked for, and nothing of what the SDK beneath does.
    sees_waits = sees_attempts = False

    def client(self, url: str, asynchronous: bool) -> Any:
        return asynchronous, ServedLLM(url=url, client=openai_client(url, asynchronous))

    def send(self, client: Any, prompt: str = "hi", **options: Any) -> Any:
        asynchronous, model = client
        ask = model.astream_chat if asynchronous else model.stream_chat
        return ask([ChatMessage(role="user", content=prompt)], **asked(**options))

    def text(self, chunk: Any) -> str:
        return str(chunk.delta or "")

    def close_client(self, client: Any) -> Any:
        return client[1].client.close()
