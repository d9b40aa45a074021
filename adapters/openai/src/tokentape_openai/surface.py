"""What a request to OpenAI's API, or to one that speaks its language, says about the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.providers import provider_at
from tokentape.raw_reads import EventKind
from tokentape.reading import field, string
from tokentape.stainless import Surface, scalars
from tokentape.taps import Reader

from . import chat, completions, responses
from .reading import OpenAIReading

_OPERATIONS: Final = (
    (re.compile(r"/chat/completions$"), "chat"),
    (re.compile(r"/completions$"), "text_completion"),
    (re.compile(r"/responses$"), "responses"),
)
_RETRIEVE: Final = re.compile(r"/responses/[^/]+$")

_READERS: Final[dict[str, type[OpenAIReading]]] = {
    "chat": chat.ChatReader,
    "text_completion": completions.CompletionReader,
    "responses": responses.ResponsesReader,
}
_BODIES: Final = {
    "chat": chat.read_body,
    "text_completion": chat.read_body,
    "responses": responses.read_body,
}

_SCALARS: Final = frozenset(
    {
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
    }
)
_HEADERS: Final = frozenset({"openai-processing-ms", "retry-after", "retry-after-ms"})


def reader(call: CallRecorder) -> Reader:
    """The reader of a call's chunks."""
    return _READERS[call.call.operation](call).read


def event_kind(name: str | None, data: Any) -> EventKind:
    """Whatever holds an error is raised."""
    return "error" if field(data, "error") else "chunk"


def read_body(call: CallRecorder, body: dict[str, Any]) -> None:
    """Read an answer that was not streamed."""
    _BODIES[call.call.operation](call, body)


def is_kept_header(name: str) -> bool:
    """Processing time, what is left of the rate limits, and how long to wait; nothing that could identify anybody."""
    return name in _HEADERS or name.startswith("x-ratelimit-remaining")


def _operation(method: str, path: str, streaming: bool) -> str | None:
    if method == "get":
        return "responses" if streaming and _RETRIEVE.search(path) else None
    return next((operation for pattern, operation in _OPERATIONS if pattern.search(path)), None)


def _scalars(body: Mapping[str, Any]) -> dict[str, Any]:
    effort = string(field(body.get("reasoning"), "effort"))
    return scalars(body, _SCALARS) | ({} if effort is None else {"reasoning_effort": effort})


def _provider(client: type, host: str | None) -> str:
    if any("azure" in kind.__name__.lower() for kind in client.__mro__):
        return "azure.ai.openai"
    return provider_at(host, "openai")


SURFACE: Final = Surface(
    "openai",
    _operation,
    _provider,
    _scalars,
    reader,
    event_kind,
    read_body,
    ("x-request-id",),
    is_kept_header,
)
