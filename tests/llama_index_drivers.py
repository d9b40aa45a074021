"""Drives a LlamaIndex model for the conformance suite."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms import ChatMessage

from hostile_chunks import CHAT
from openai_drivers import openai_client
from scripted_llama_llm import ServedLLM

MODEL = "gpt-x"


class LlamaIndexDriver:
    model = MODEL
    kinds = frozenset({"text", "reasoning", "tool_args"})
    options = frozenset({"prompt"})
    hostile = CHAT
    interleaves = True
    starts = "announced"
    # Events say when a chunk came, not when it was asked for, and nothing of what the SDK beneath does.
    sees_waits = sees_attempts = False

    def client(self, url: str, asynchronous: bool) -> Any:
        return asynchronous, ServedLLM(url=url, client=openai_client(url, asynchronous))

    def send(self, client: Any, prompt: str = "hi") -> Any:
        asynchronous, model = client
        return (model.astream_chat if asynchronous else model.stream_chat)([ChatMessage(role="user", content=prompt)])

    def text(self, chunk: Any) -> str:
        return str(chunk.delta or "")

    def close_client(self, client: Any) -> Any:
        return client[1].client.close()
