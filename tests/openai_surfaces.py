"""Every way in which a program can stream from the OpenAI SDK, each as one coroutine for its two kinds of clients."""

from __future__ import annotations

from functools import partial
from typing import Any

import openai

from surfaces import Surface, direct, helper, lines, raw, streaming
from tokentape.testing import ProviderServer

MODEL = "gpt-x"
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


def client_for(server: ProviderServer, asynchronous: bool, cloud: str = "", **options: Any) -> Any:
    """A client of that server, OpenAI's own or Azure's."""
    if cloud:
        kind = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
        return kind(azure_endpoint=server.origin, api_key="none", api_version="2026-01-01", max_retries=0)
    plain = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return plain(**{"base_url": server.url, "api_key": "none", "max_retries": 0} | options)


def chat(create: Any) -> Any:
    """A streamed chat completion by this form of `create`."""
    return create(model=MODEL, messages=MESSAGES, stream=True)


def responses(create: Any) -> Any:
    """A streamed response by this form of `create`."""
    return create(model=MODEL, input="hi", stream=True)


def completion(create: Any) -> Any:
    """A streamed legacy completion by this form of `create`."""
    return create(model=MODEL, prompt="hi", stream=True)


AZURE = {"provider": "azure.ai.openai", "cloud": "Azure"}
surface = partial(Surface, provider="openai")
SURFACES = (
    surface("chat.create", "chat", lambda c: direct(chat(c.chat.completions.create))),
    surface("chat.stream", "chat", lambda c: helper(c.chat.completions.stream(model=MODEL, messages=MESSAGES))),
    surface("chat.raw", "chat", lambda c: raw(chat(c.chat.completions.with_raw_response.create))),
    surface("chat.streaming", "chat", lambda c: streaming(chat(c.chat.completions.with_streaming_response.create))),
    surface("chat.azure", "chat", lambda c: direct(chat(c.chat.completions.create)), **AZURE),
    surface("completions.create", "text_completion", lambda c: direct(completion(c.completions.create))),
    surface("completions.raw", "text_completion", lambda c: raw(completion(c.completions.with_raw_response.create))),
    surface("responses.create", "responses", lambda c: direct(responses(c.responses.create))),
    surface("responses.stream", "responses", lambda c: helper(c.responses.stream(model=MODEL, input="hi"))),
    surface("responses.raw", "responses", lambda c: raw(responses(c.responses.with_raw_response.create))),
    surface(
        "responses.streaming", "responses", lambda c: streaming(responses(c.responses.with_streaming_response.create))
    ),
    surface("responses.retrieve", "responses", lambda c: direct(c.responses.retrieve("resp_1", stream=True))),
    surface(
        "responses.stream(id)",
        "responses",
        lambda c: helper(c.responses.stream(response_id="resp_1", starting_after=2)),
    ),
    surface("responses.azure", "responses", lambda c: direct(responses(c.responses.create)), **AZURE),
)
# Where the program reads lines and the SDK makes no objects.
LINES = (
    surface("chat.lines", "chat", lambda c: lines(chat(c.chat.completions.with_streaming_response.create))),
    surface(
        "completions.lines",
        "text_completion",
        lambda c: lines(completion(c.completions.with_streaming_response.create)),
    ),
    surface("responses.lines", "responses", lambda c: lines(responses(c.responses.with_streaming_response.create))),
)
