"""What the cassettes are recorded and replayed through: for each adapter its SDK or its framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import anthropic
import openai
from llama_index.core.llms import ChatMessage

from cassettes import Exchange
from langchain_drivers import anthropic_model, chat_model
from scripted_llama_llm import ServedLLM
from surfaces import drain
from tokentape.testing.rig import resolved

MODEL = "scripted-model"
ROOT = "/v1"
# Where a model of Anthropic's has to say how long an answer may be.
LIMIT = 50


class Client(Protocol):
    """Asks a server, in one format and one of the modes.

    Attributes:
        refused: what it raises for status 400.
    """

    refused: type[Exception]

    async def send(self, exchange: Exchange) -> None:
        """Make the request, and read the answer to its end."""

    async def close(self) -> None:
        """Release the connections."""


class SdkClient:
    """A client of OpenAI's SDK or Anthropic's."""

    def __init__(self, wire: str, mode: str, origin: str, key: str) -> None:
        of_anthropic, asynchronous = wire == "messages", mode == "async"
        sdk: Any = anthropic if of_anthropic else openai
        kinds = (sdk.Anthropic, sdk.AsyncAnthropic) if of_anthropic else (sdk.OpenAI, sdk.AsyncOpenAI)
        url = origin if of_anthropic else origin + ROOT
        self.refused: type[Exception] = sdk.BadRequestError
        self._wire = wire
        self._client: Any = kinds[asynchronous](base_url=url, api_key=key, max_retries=0)

    async def send(self, exchange: Exchange) -> None:
        client, name = self._client, exchange.name
        # The name in the question makes each request one of its own, by which its answer is found again.
        said = [{"role": "user", "content": name}]
        surface, question = {
            "chat": lambda: (client.chat.completions, {"messages": said}),
            "responses": lambda: (client.responses, {"input": name}),
            "completions": lambda: (client.completions, {"prompt": name}),
            "messages": lambda: (client.messages, {"messages": said, "max_tokens": LIMIT}),
        }[self._wire]()
        await _read(surface.create(model=MODEL, stream=exchange.streaming, **question, **exchange.request), exchange)

    async def close(self) -> None:
        await resolved(self._client.close())


class LangChainClient:
    """A chat model of LangChain's integration of OpenAI or of Anthropic."""

    def __init__(self, wire: str, mode: str, origin: str, key: str) -> None:
        self._asynchronous = mode == "async"
        self._of_anthropic = wire == "messages"
        if self._of_anthropic:
            self.refused: type[Exception] = anthropic.BadRequestError
            self._model: Any = anthropic_model(origin, model=MODEL, api_key=key, max_tokens=LIMIT)
        else:
            self.refused = openai.BadRequestError
            self._model = chat_model(origin + ROOT, model=MODEL, api_key=key, use_responses_api=wire == "responses")

    async def send(self, exchange: Exchange) -> None:
        method = ("a" if self._asynchronous else "") + ("stream" if exchange.streaming else "invoke")
        await _read(getattr(self._model, method)(exchange.name, **exchange.request), exchange)

    async def close(self) -> None:
        # The integration of Anthropic shares its connections among all models of an address, so they stay open.
        if not self._of_anthropic:
            client = self._model.root_async_client if self._asynchronous else self._model.root_client
            await resolved(client.close())


class LlamaIndexClient:
    """A LlamaIndex model that asks through OpenAI's SDK."""

    refused: type[Exception] = openai.BadRequestError

    def __init__(self, wire: str, mode: str, origin: str, key: str) -> None:
        self._asynchronous = mode == "async"
        self._model = ServedLLM(url=origin + ROOT, model=MODEL, key=key)

    async def send(self, exchange: Exchange) -> None:
        method = ("a" if self._asynchronous else "") + ("stream_chat" if exchange.streaming else "chat")
        said = [ChatMessage(role="user", content=exchange.name)]
        await _read(getattr(self._model, method)(said, **exchange.request), exchange)

    async def close(self) -> None:
        """Every answer has a client of its own."""


async def _read(answer: Any, exchange: Exchange) -> None:
    answer = await resolved(answer)
    if exchange.streaming:
        await drain(answer)


KINDS: Mapping[str, Any] = {
    "openai": SdkClient,
    "anthropic": SdkClient,
    "langchain": LangChainClient,
    "llama-index": LlamaIndexClient,
}


def client_for(cassette: str, mode: str, origin: str, key: str) -> Client:
    """A client of the server at this origin that makes the requests of a cassette."""
    adapter, _, wire = cassette.partition("/")
    client: Client = KINDS[adapter](wire, mode, origin, key)
    return client
