"""Drivers of the OpenAI SDK for the conformance suite, one a wire format."""

from __future__ import annotations

from typing import Any

import openai


class _Driver:
    model = "gpt-x"
    kinds = frozenset({"text", "reasoning", "tool_args", "refusal"})

    def client(self, url: str, asynchronous: bool) -> Any:
        kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        return kind(base_url=url, api_key="none", max_retries=1)

    def close_client(self, client: Any) -> Any:
        return client.close()


class ChatDriver(_Driver):
    def text(self, chunk: Any) -> str:
        return (chunk.choices[0].delta.content or "") if chunk.choices else ""

    def send(self, client: Any) -> Any:
        return client.chat.completions.create(model=self.model, messages=[], stream=True)


class ResponsesDriver(_Driver):
    def text(self, chunk: Any) -> str:
        return chunk.delta if chunk.type == "response.output_text.delta" else ""

    def send(self, client: Any) -> Any:
        return client.responses.create(model=self.model, input="hi", stream=True)


class CompletionsDriver(_Driver):
    kinds = frozenset({"text"})

    def text(self, chunk: Any) -> str:
        return chunk.choices[0].text if chunk.choices else ""

    def send(self, client: Any) -> Any:
        return client.completions.create(model=self.model, prompt="hi", stream=True)
