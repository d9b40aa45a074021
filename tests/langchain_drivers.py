"""LangChain's chat models of a server, and what drives the OpenAI one for the conformance suite."""

from __future__ import annotations

from typing import Any

import openai
from langchain_openai import ChatOpenAI

from hostile_chunks import CHAT
from openai_drivers import CERTIFICATES

MODEL = "gpt-x"


def chat_model(url: str, **options: Any) -> ChatOpenAI:
    """A chat model of the server at this URL.

    With connections of its own: LangChain keeps those it makes for later models, also beyond the event loop they need.
    """
    own = {
        "http_client": openai.DefaultHttpxClient(verify=CERTIFICATES),
        "http_async_client": openai.DefaultAsyncHttpxClient(verify=CERTIFICATES),
    }
    return ChatOpenAI(**{"model": MODEL, "base_url": url, "api_key": "none", "max_retries": 0} | own | options)


def anthropic_model(origin: str, **options: Any) -> Any:
    """A chat model of Anthropic's messages at this origin."""
    from langchain_anthropic import ChatAnthropic  # which is not there beside every version of other packages

    return ChatAnthropic(**{"model": MODEL, "base_url": origin, "api_key": "none", "max_retries": 0} | options)


class LangChainDriver:
    model = MODEL
    # LangChain's OpenAI integration drops reasoning and refusals that chat completions stream.
    kinds = frozenset({"text", "tool_args"})
    options = frozenset({"prompt", "include_usage"})
    hostile = CHAT
    is_generator = interleaves = True
    starts = "read"
    # Callbacks say when a chunk came, not when it was asked for, and nothing of what the SDK beneath does.
    sees_waits = sees_attempts = False

    def client(self, url: str, asynchronous: bool) -> Any:
        return asynchronous, chat_model(url, max_retries=1)

    def send(self, client: Any, prompt: str = "hi", include_usage: bool | None = None) -> Any:
        asynchronous, model = client
        options = {} if include_usage is None else {"stream_usage": include_usage}
        return (model.astream if asynchronous else model.stream)(prompt, **options)

    def value(self, chunk: Any) -> Any:
        # Messages have random ids of LangChain's own.
        return chunk.model_dump(exclude={"id"})

    def text(self, chunk: Any) -> str:
        return str(chunk.content)

    def close_client(self, client: Any) -> Any:
        asynchronous, model = client
        return model.root_async_client.close() if asynchronous else model.root_client.close()
