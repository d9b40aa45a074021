"""What a request to Anthropic's API, or to a cloud that serves its models, says about the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.providers import provider_at
from tokentape.raw_reads import EventKind
from tokentape.reading import Reading, field
from tokentape.stainless import Surface, scalars
from tokentape.taps import Reader

from . import messages, sessions

_MESSAGES: Final = re.compile(r"/messages$")
_SESSION: Final = re.compile(r"/sessions/[^/]+/(events|threads/[^/]+)/stream$")

_READERS: Final[dict[str, type[Reading]]] = {"messages": messages.MessagesReader, "session": sessions.SessionReader}

_SCALARS: Final = frozenset({"model", "temperature", "top_p", "max_tokens", "stream"})
_HEADERS: Final = frozenset({"retry-after", "retry-after-ms"})

# The clouds by the name of the client's class: its `base_url` may lead through somebody's gateway.
_CLOUDS: Final = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai", "Foundry": "azure.ai.inference"}


def reader(call: CallRecorder) -> Reader:
    """The reader of a call's chunks."""
    return _READERS[call.call.operation](call).read


def event_kind(name: str | None, data: Any) -> EventKind:
    """Events are told by their names; one that has none says nothing."""
    return "error" if name == "error" else "chunk" if name not in (None, "ping") else None


def is_kept_header(name: str) -> bool:
    """What is left of the rate limits, and how long to wait; nothing that could identify anybody."""
    return name in _HEADERS or (name.startswith("anthropic-ratelimit-") and name.endswith("-remaining"))


def _operation(method: str, path: str, streaming: bool) -> str | None:
    if method == "get":
        return "session" if streaming and _SESSION.search(path) else None
    return "messages" if _MESSAGES.search(path) else None


def _scalars(body: Mapping[str, Any]) -> dict[str, Any]:
    found = scalars(body, _SCALARS)
    nested = {"effort": ("output_config", "effort"), "thinking_budget_tokens": ("thinking", "budget_tokens")}
    for name, (outer, inner) in nested.items():
        value = field(body.get(outer), inner)
        if isinstance(value, (str, int)):
            found[name] = value
    return found


def _provider(client: type, host: str | None) -> str:
    names = [kind.__name__ for kind in client.__mro__]
    cloud = next((provider for word, provider in _CLOUDS.items() if any(word in name for name in names)), None)
    return cloud or provider_at(host, "anthropic")


SURFACE: Final = Surface(
    "anthropic",
    _operation,
    _provider,
    _scalars,
    reader,
    event_kind,
    messages.read_body,
    ("request-id", "x-amzn-requestid"),
    is_kept_header,
)
