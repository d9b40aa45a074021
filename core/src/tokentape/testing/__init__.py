"""Test kit: a model provider on loopback that answers from scripts at a true pace, and a clock moved by hand.

It needs no SDK and no network. Point any client at the server's URL:

    from openai import OpenAI
    from tokentape.testing import Finish, ProviderServer, Text, Usage

    with ProviderServer() as server:
        server.add([(0.3, Text("Hel")), (0.02, Text("lo")), Finish("stop"), Usage(12, 2)])
        client = OpenAI(base_url=server.url, api_key="none")
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "Hello"
        assert server.requests[0].json["model"] == "m"

The same script answers OpenAI's chat completions, legacy completions and Responses, and Anthropic's messages (whose
client takes `server.origin` for its base URL), streamed or in one piece. What a step can hold is in
`tokentape.testing.events`, how to add a wire format in `tokentape.testing.wire.base`.
"""

from __future__ import annotations

import sys

from .clock import FakeClock
from .events import (
    Drop,
    ErrorEvent,
    Event,
    Finish,
    Hang,
    HTTPError,
    Logprob,
    NoDone,
    Ping,
    Raw,
    Reasoning,
    Refusal,
    Role,
    Summary,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
    WaitFor,
)
from .log import Request, Sent
from .script import Script, Step
from .server import ProviderServer
from .wire import WIRES, Wire

if "pytest" in sys.modules:
    # pytest shows the values of an assertion that failed only where it knows beforehand that a module holds tests.
    sys.modules["pytest"].register_assert_rewrite(f"{__name__}.conformance")

__all__ = [
    "WIRES",
    "Drop",
    "ErrorEvent",
    "Event",
    "FakeClock",
    "Finish",
    "HTTPError",
    "Hang",
    "Logprob",
    "NoDone",
    "Ping",
    "ProviderServer",
    "Raw",
    "Reasoning",
    "Refusal",
    "Request",
    "Role",
    "Script",
    "Sent",
    "Step",
    "Summary",
    "Text",
    "ToolArgs",
    "ToolCall",
    "Usage",
    "WaitFor",
    "Wire",
]
