"""A program that records one call to a provider on loopback, in an environment with one distribution of ours.

Usage: python smoke.py NAME [MODULE …]

NAME is the distribution's folder. It imports nothing that does not come with that, but for the modules named after it.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import tokentape
from tokentape.testing import Finish, ProviderServer, Text

SDKS = {"openai", "anthropic", "httpx", "httpx2", "langchain_core", "llama_index"}


def main(name: str, modules: list[str]) -> None:
    tokentape.enable()
    assert not SDKS & set(sys.modules), "an SDK was imported"
    with ProviderServer() as server:
        server.add([Text("Hel"), Text("lo"), Finish("stop")])
        ASK[name](server)
    assert name != "core" or not SDKS & set(sys.modules), "an SDK was imported"
    for module in modules:
        import_module(module)


def answer(server: ProviderServer) -> Iterator[str]:
    """What the provider says, read without any SDK."""
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    with urllib.request.urlopen(f"{server.url}/chat/completions", body) as lines:
        for line in lines:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])["choices"][0]["delta"].get("content", "")


def by_hand(server: ProviderServer) -> None:
    list(tokentape.record_stream(lambda: answer(server), model="m", provider="acme", text=str))


def openai(server: ProviderServer) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key="none")
    list(client.chat.completions.create(model="m", messages=[], stream=True))


def anthropic(server: ProviderServer) -> None:
    from anthropic import Anthropic

    client = Anthropic(base_url=server.origin, api_key="none")
    list(client.messages.create(model="m", messages=[], max_tokens=9, stream=True))


def langchain(server: ProviderServer) -> None:
    from langchain_core.language_models import SimpleChatModel
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk

    class Model(SimpleChatModel):
        @property
        def _llm_type(self) -> str:
            return "smoke"

        def _call(self, *args: Any, **kwargs: Any) -> str:
            return "".join(answer(server))

        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            return (ChatGenerationChunk(message=AIMessageChunk(word)) for word in answer(server))

    list(Model().stream("hi"))


def llama_index(server: ProviderServer) -> None:
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.llms.callbacks import llm_completion_callback

    class Model(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata()

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            raise NotImplementedError

        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            return (CompletionResponse(text="", delta=word) for word in answer(server))

    list(Model().stream_complete("hi"))


ASK: dict[str, Callable[[ProviderServer], None]] = {
    "core": by_hand,
    "openai": openai,
    "anthropic": anthropic,
    "langchain": langchain,
    "llama-index": llama_index,
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
