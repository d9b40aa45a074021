"""Drives a LlamaIndex model for the conformance suite."""

from __future__ import annotations

from typing import Any

from scripted_llama_llm import ASKED, ServedLLM

MODEL = "gpt-x"


class LlamaIndexDriver:
    model = MODEL
    kinds = frozenset({"text", "reasoning", "tool_args"})

    def client(self, url: str, asynchronous: bool) -> Any:
        return asynchronous, ServedLLM(url=url, max_retries=1)

    def send(self, client: Any) -> Any:
        asynchronous, model = client
        return model.astream_chat(ASKED) if asynchronous else model.stream_chat(ASKED)

    def text(self, chunk: Any) -> str:
        return str(chunk.delta or "")

    def close_client(self, client: Any) -> None:
        """Every answer has a client of its own."""
