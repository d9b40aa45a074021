"""Every way in which a program can stream messages from the Anthropic SDK, each as one coroutine for both clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic

from surfaces import direct, helper, lines, raw, streaming
from tokentape.testing import ProviderServer

MODEL = "claude-x"
ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True)
class Surface:
    """One way to stream.

    Attributes:
        read: reads a whole answer with the client it is given; what the program saw.
        cloud: whose client it is.
        provider: the name of the cloud on the tape.
    """

    name: str
    read: Callable[[Any], Awaitable[list[Any]]]
    cloud: str = ""
    provider: str = "anthropic"


def client_for(server: ProviderServer, asynchronous: bool, cloud: str = "", **options: Any) -> Any:
    """A client of that server, Anthropic's own or a cloud's."""
    kind = getattr(anthropic, f"{'Async' if asynchronous else ''}Anthropic{cloud}")
    of_cloud: dict[str, Any] = {
        "": {"base_url": server.origin, "api_key": "none"},
        "Foundry": {"base_url": f"{server.origin}/anthropic/", "api_key": "none"},
        "Vertex": {"base_url": server.url, "access_token": "none", "region": "global", "project_id": "p"},
        "Bedrock": {"base_url": server.origin, "aws_region": "eu-west-1", "api_key": "none"},
    }
    return kind(**of_cloud[cloud] | {"max_retries": 0} | options)


def stream(create: Any, **asked: Any) -> Any:
    """A streamed message by this form of `create`."""
    return create(**ASKED | asked, stream=True)


SURFACES = (
    Surface("create", lambda c: direct(stream(c.messages.create))),
    Surface("stream", lambda c: helper(c.messages.stream(**ASKED))),
    Surface("raw", lambda c: raw(stream(c.messages.with_raw_response.create))),
    Surface("streaming", lambda c: streaming(stream(c.messages.with_streaming_response.create))),
    Surface("beta.create", lambda c: direct(stream(c.beta.messages.create))),
    Surface("beta.stream", lambda c: helper(c.beta.messages.stream(**ASKED))),
    Surface("beta.raw", lambda c: raw(stream(c.beta.messages.with_raw_response.create))),
    Surface("beta.streaming", lambda c: streaming(stream(c.beta.messages.with_streaming_response.create))),
    Surface("foundry", lambda c: direct(stream(c.messages.create)), "Foundry", "azure.ai.inference"),
    Surface("vertex", lambda c: direct(stream(c.messages.create)), "Vertex", "gcp.vertex_ai"),
    Surface("bedrock", lambda c: direct(stream(c.messages.create)), "Bedrock", "aws.bedrock"),
    Surface("bedrock.stream", lambda c: helper(c.messages.stream(**ASKED)), "Bedrock", "aws.bedrock"),
)
# Where the program reads lines and the SDK makes no objects.
LINES = (
    Surface("lines", lambda c: lines(stream(c.messages.with_streaming_response.create))),
    Surface("beta.lines", lambda c: lines(stream(c.beta.messages.with_streaming_response.create))),
)
