"""Every way in which a program can stream messages from the Anthropic SDK, each as one coroutine for both clients."""

from __future__ import annotations

from functools import partial
from typing import Any

import anthropic

from surfaces import Surface, direct, helper, lines, raw, streaming
from tokentape.testing import ProviderServer

MODEL = "claude-x"
ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


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


surface = partial(Surface, operation="messages", provider="anthropic")
SURFACES = (
    surface("create", read=lambda c: direct(stream(c.messages.create))),
    surface("stream", read=lambda c: helper(c.messages.stream(**ASKED))),
    surface("raw", read=lambda c: raw(stream(c.messages.with_raw_response.create))),
    surface("streaming", read=lambda c: streaming(stream(c.messages.with_streaming_response.create))),
    surface("beta.create", read=lambda c: direct(stream(c.beta.messages.create))),
    surface("beta.stream", read=lambda c: helper(c.beta.messages.stream(**ASKED))),
    surface("beta.raw", read=lambda c: raw(stream(c.beta.messages.with_raw_response.create))),
    surface("beta.streaming", read=lambda c: streaming(stream(c.beta.messages.with_streaming_response.create))),
    surface(
        "foundry", read=lambda c: direct(stream(c.messages.create)), cloud="Foundry", provider="azure.ai.inference"
    ),
    surface("vertex", read=lambda c: direct(stream(c.messages.create)), cloud="Vertex", provider="gcp.vertex_ai"),
    surface("bedrock", read=lambda c: direct(stream(c.messages.create)), cloud="Bedrock", provider="aws.bedrock"),
    surface(
        "bedrock.stream", read=lambda c: helper(c.messages.stream(**ASKED)), cloud="Bedrock", provider="aws.bedrock"
    ),
)
# Where the program reads lines and the SDK makes no objects.
LINES = (
    surface("lines", read=lambda c: lines(stream(c.messages.with_streaming_response.create))),
    surface("beta.lines", read=lambda c: lines(stream(c.beta.messages.with_streaming_response.create))),
)
