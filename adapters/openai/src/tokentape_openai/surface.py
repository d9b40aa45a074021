"""What a request to OpenAI's API, or to one that speaks its language, says about the call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from tokentape.call import CallRecorder, Request
from tokentape.stainless import Surface
from tokentape.taps import Reader

from . import chat, completions, responses
from .reading import Reading

_OPERATIONS: Final = (
    (re.compile(r"/chat/completions$"), "chat"),
    (re.compile(r"/completions$"), "text_completion"),
    (re.compile(r"/responses$"), "responses"),
)
_RETRIEVE: Final = re.compile(r"/responses/[^/]+$")

_READERS: Final[dict[str, type[Reading]]] = {
    "chat": chat.ChatReader,
    "text_completion": completions.CompletionReader,
    "responses": responses.ResponsesReader,
}
_BODIES: Final = {
    "chat": chat.read_body,
    "text_completion": chat.read_body,
    "responses": responses.read_body,
}

_SCALARS: Final = (
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "seed",
    "stream",
    "reasoning_effort",
)
_HEADERS: Final = frozenset({"openai-processing-ms", "retry-after", "retry-after-ms"})

# OpenTelemetry's `gen_ai.provider.name`, by the end of the host's name.
_PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "openrouter.ai": "openrouter",
}


def describe(client: Any, options: Any, streaming: bool) -> Request | None:
    """Read a request's options; None when it does not go to a model.

    Args:
        client: the SDK's client.
        options: its `FinalRequestOptions`.
        streaming: whether the answer was asked for as a stream.
    """
    operation = _operation(str(options.method), str(options.url), streaming)
    if operation is None:
        return None
    body = _body(options)
    host = getattr(getattr(client, "base_url", None), "host", None) or None
    choices = body.get("n")
    return Request(
        adapter="openai",
        operation=operation,
        provider=_provider(type(client), host),  # type: ignore[arg-type]  # it can be hashed, as every class can
        model=_text(body.get("model")),
        server_address=host,
        streaming=streaming,
        scalars=_scalars(body),
        body=body or None,
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
    )


def reader(call: CallRecorder) -> Reader:
    """The reader of a call's chunks."""
    return _READERS[call.call.operation](call).read


def read_body(call: CallRecorder, content: bytes) -> None:
    """Read an answer that was not streamed; one that is not the expected JSON says nothing."""
    try:
        body = json.loads(content)
    except ValueError:
        return
    if isinstance(body, dict):
        _BODIES[call.call.operation](call, body)


def is_kept_header(name: str) -> bool:
    """Processing time, what is left of the rate limits, and how long to wait; nothing that could identify anybody."""
    return name in _HEADERS or name.startswith("x-ratelimit-remaining")


SURFACE: Final = Surface("openai", describe, reader, read_body, "x-request-id", is_kept_header)


# A program asks the same few endpoints again and again.
@lru_cache(maxsize=64)
def _operation(method: str, url: str, streaming: bool) -> str | None:
    path = url.partition("?")[0].rstrip("/")
    if method.lower() == "get":
        return "responses" if streaming and _RETRIEVE.search(path) else None
    return next((operation for pattern, operation in _OPERATIONS if pattern.search(path)), None)


def _body(options: Any) -> dict[str, Any]:
    """The request's JSON as it will be sent: `extra_body` is merged in only after this point."""
    json_data, extra = options.json_data, getattr(options, "extra_json", None)
    body = dict(json_data) if isinstance(json_data, Mapping) else {}
    return {**body, **extra} if isinstance(extra, Mapping) else body


def _scalars(body: Mapping[str, Any]) -> dict[str, Any]:
    scalars = {name: body[name] for name in _SCALARS if isinstance(body.get(name), (str, int, float, bool))}
    reasoning = body.get("reasoning")
    if isinstance(reasoning, Mapping) and isinstance(reasoning.get("effort"), str):
        scalars["reasoning_effort"] = reasoning["effort"]
    return scalars


@lru_cache(maxsize=64)
def _provider(client: type, host: str | None) -> str:
    if any("azure" in kind.__name__.lower() for kind in client.__mro__):
        return "azure.ai.openai"
    # A host that is not known speaks OpenAI's language, which is the best that can be said of it.
    return next((name for end, name in _PROVIDERS.items() if host and host.endswith(end)), "openai")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
