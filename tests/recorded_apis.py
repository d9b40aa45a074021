"""How each recorded wire format is asked for again through the SDK it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent


@dataclass(frozen=True)
class Api:
    """One wire format.

    Attributes:
        path: where the SDK asks, below the client's `base_url`.
        recorded_path: matches where it was asked for when it was recorded.
        client: the SDK's class of clients.
        stream: its class of streams.
        error: the base of its exceptions.
        types: of an answer in one piece, and of what a stream yields.
        beta_types: the same, where the recorded address asks for the beta.
    """

    path: str
    recorded_path: str
    client: Callable[..., Any]
    stream: Any
    error: type[Exception]
    types: tuple[Any, Any]
    beta_types: tuple[Any, Any] | None = None

    def base_url(self, uri: str) -> str:
        """What a client's `base_url` was."""
        return re.sub(rf"({self.recorded_path})([?#].*)?$", "", uri)

    def types_for(self, uri: str) -> tuple[Any, Any]:
        """The types that the answer of this address is read into."""
        return self.beta_types if self.beta_types and "beta=true" in uri else self.types


def _openai(path: str, types: tuple[Any, Any], recorded_path: str | None = None) -> Api:
    return Api(path, recorded_path or path, openai.OpenAI, openai.Stream, openai.APIError, types)


APIS = {
    # Writer's own SDK asked for `/chat`, OpenAI's asks for `/chat/completions`.
    "openai-chat": _openai("/chat/completions", (ChatCompletion, ChatCompletionChunk), "/chat/completions|/chat"),
    "openai-completions": _openai("/completions", (Completion, Completion)),
    "openai-responses": _openai("/responses", (Response, ResponseStreamEvent)),
    "anthropic-messages": Api(
        "/v1/messages",
        "/v1/messages",
        anthropic.Anthropic,
        anthropic.Stream,
        anthropic.APIError,
        (Message, RawMessageStreamEvent),
        (BetaMessage, BetaRawMessageStreamEvent),
    ),
}
