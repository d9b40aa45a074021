"""Drivers of the OpenAI SDK for the conformance suite, one a wire format."""

from __future__ import annotations

import ssl
from typing import Any

import openai

from hostile_chunks import CHAT, COMPLETIONS, RESPONSES

# Read once: for a client of its own it takes longer than most tests.
CERTIFICATES = ssl.create_default_context()


def openai_client(url: str, asynchronous: bool) -> Any:
    """A client of the server at this URL that retries once."""
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    http = openai.DefaultAsyncHttpxClient if asynchronous else openai.DefaultHttpxClient
    return kind(base_url=url, api_key="none", max_retries=1, http_client=http(verify=CERTIFICATES))


class _Driver:
    model = "gpt-x"
    kinds = frozenset({"text", "reasoning", "tool_args", "refusal"})

    def client(self, url: str, asynchronous: bool) -> Any:
        return openai_client(url, asynchronous)

    def close_client(self, client: Any) -> Any:
        return client.close()


class ChatDriver(_Driver):
    options = frozenset({"prompt", "choices", "include_usage"})
    hostile = CHAT
    interleaves = True

    def text(self, chunk: Any) -> str:
        return (chunk.choices[0].delta.content or "") if chunk.choices else ""

    def send(self, client: Any, prompt: str | None = None, **options: Any) -> Any:
        messages = [] if prompt is None else [{"role": "user", "content": prompt}]
        return self.create(client)(model=self.model, messages=messages, stream=True, **asked(**options))

    def create(self, client: Any) -> Any:
        return client.chat.completions.create


class ResponsesDriver(_Driver):
    options = frozenset({"prompt"})
    hostile = RESPONSES
    interleaves = True

    def text(self, chunk: Any) -> str:
        return chunk.delta if chunk.type == "response.output_text.delta" else ""

    def send(self, client: Any, prompt: str = "hi") -> Any:
        return client.responses.create(model=self.model, input=prompt, stream=True)


class CompletionsDriver(_Driver):
    kinds = frozenset({"text"})
    options = frozenset({"prompt", "choices", "include_usage"})
    hostile = COMPLETIONS

    def text(self, chunk: Any) -> str:
        return chunk.choices[0].text if chunk.choices else ""

    def send(self, client: Any, prompt: str = "hi", **options: Any) -> Any:
        return client.completions.create(model=self.model, prompt=prompt, stream=True, **asked(**options))


def asked(choices: int | None = None, include_usage: bool | None = None) -> dict[str, Any]:
    """Options of a request as OpenAI's completions name them."""
    told = {} if include_usage is None else {"stream_options": {"include_usage": include_usage}}
    return told if choices is None else {"n": choices, **told}
