"""What the cassettes hold, exchange by exchange: what is asked, and the script that it is answered with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import vcr
import yaml
from vcr.request import Request

from tokentape.testing import (
    Event,
    Finish,
    HTTPError,
    Logprob,
    Ping,
    Reasoning,
    Refusal,
    Role,
    Summary,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)

FOLDER = Path(__file__).parents[1] / "cassettes"
# Where the server that was recorded seems to be: its real port is another one each time.
ORIGIN = "http://127.0.0.1"
# Looks like a key, so that the tests can look for it in what was recorded.
KEY = "sk-never-on-a-cassette"
MODES = ("sync", "async")
KEPT_HEADERS = frozenset({"content-type"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        request: what is asked for beside the model and the question.
        finish: the finish reason that belongs on the tape.
        status: and the status.
    """

    name: str
    script: tuple[Event, ...]
    finish: str | None = "stop"
    status: str = "completed"
    request: Mapping[str, Any] = field(default_factory=dict)
    streaming: bool = True


def _tool(index: int, choice: int, *pieces: str) -> Iterator[Event]:
    yield ToolCall(index, f"call_{choice}{index}", "look_up", choice)
    yield from (ToolArgs(index, piece, choice) for piece in pieces)


TEXT = (Text("Hel"), Text("lo, "), Text("wörld"), Text(" 👩‍🚀\n"))
USAGE = Usage(12, 9, cached=4, reasoning=0, cache_write=0)

OF_SDKS: Mapping[str, tuple[Exchange, ...]] = {
    "openai/chat": (
        Exchange("text", (Role(), *TEXT, Finish(), USAGE), request={"stream_options": {"include_usage": True}}),
        Exchange("text without usage", (Role(), *TEXT, Finish("length")), finish="length"),
        Exchange(
            "two choices with two tools each",
            (
                *_tool(0, 0, '{"a', '": 1}'),
                *_tool(0, 1, "{", "}"),
                *_tool(1, 0, '{"b": ', "[2]}"),
                *_tool(1, 1, "{}"),
                Finish("tool_calls", 0),
                Finish("tool_calls", 1),
            ),
            finish='["tool_calls", "tool_calls"]',
            request={"n": 2},
        ),
        Exchange(
            "reasoning",
            (
                Reasoning("hm, "),
                Reasoning("well"),
                *TEXT,
                Finish(),
                Usage(5, 20, cached=0, reasoning=14, cache_write=0),
            ),
        ),
        Exchange("refusal", (Refusal("I "), Refusal("won't"), Finish())),
        Exchange("in one piece", (*TEXT, Finish(), USAGE), streaming=False),
        Exchange("refused", (HTTPError(400, "scripted refusal"),), finish=None, status="error"),
    ),
    "openai/responses": (
        Exchange("text", (Role(), *TEXT, Finish(), USAGE), finish="completed"),
        Exchange(
            "summaries and a tool",
            (
                Summary(0, "First"),
                Summary(0, " this"),
                Summary(1, "then that"),
                *_tool(0, 0, '{"a', '": 1}'),
                Finish(),
                USAGE,
            ),
            finish="completed",
        ),
        Exchange("reasoning", (Reasoning("hm, "), Reasoning("well"), *TEXT, Finish(), USAGE), finish="completed"),
        Exchange("cut off", (*TEXT, Finish("length"), USAGE), finish="max_output_tokens"),
        Exchange("in one piece", (*TEXT, Finish(), USAGE), finish="completed", streaming=False),
        Exchange("refused", (HTTPError(400, "scripted refusal"),), finish=None, status="error"),
    ),
    "openai/completions": (
        Exchange("text", (*TEXT, Finish(), USAGE), request={"stream_options": {"include_usage": True}}),
        Exchange(
            "two choices with logprobs",
            (
                Text("yes", 0, (Logprob("yes", -0.1),)),
                Text("no", 1, (Logprob("n", -0.2), Logprob("o", -0.3))),
                Finish("stop", 0),
                Finish("length", 1),
            ),
            finish='["stop", "length"]',
            request={"n": 2, "logprobs": 1},
        ),
        Exchange("in one piece", (*TEXT, Finish(), USAGE), streaming=False),
        Exchange("refused", (HTTPError(400, "scripted refusal"),), finish=None, status="error"),
    ),
    "anthropic/messages": (
        Exchange("text", (Role(), Ping(), *TEXT, Finish(), USAGE), finish="end_turn"),
        Exchange(
            "thinking and two tools",
            (
                Reasoning("hm, "),
                Reasoning("well"),
                *TEXT,
                *_tool(0, 0, '{"a', '": 1}'),
                *_tool(1, 0, "{", "}"),
                Finish("tool_calls"),
                Usage(5, 20, cached=0, reasoning=14, cache_write=3),
            ),
            finish="tool_use",
        ),
        Exchange("counted on the way", (*TEXT, Usage(5, 4), Finish("length"), Usage(5, 9)), finish="max_tokens"),
        Exchange("in one piece", (*TEXT, Finish(), USAGE), finish="end_turn", streaming=False),
        Exchange("refused", (HTTPError(400, "scripted refusal"),), finish=None, status="error"),
    ),
}


def _same(cassette: str, *names: str) -> tuple[Exchange, ...]:
    """Exchanges of an SDK's cassette, which a framework that uses it has too."""
    found = {exchange.name: exchange for exchange in OF_SDKS[cassette]}
    return tuple(found[name] for name in names)


# Frameworks stream one choice.
TWO_TOOLS = Exchange(
    "two tools",
    (Role(), *_tool(0, 0, '{"a', '": 1}'), *_tool(1, 0, "{", "}"), Finish("tool_calls")),
    finish="tool_calls",
)
CHAT = (*_same("openai/chat", "text", "text without usage", "reasoning", "in one piece", "refused"), TWO_TOOLS)
# LangChain's integration reads an answer with tools as one only where it was given tools.
(THOUGHTFUL,) = _same("anthropic/messages", "thinking and two tools")
GIVEN_TOOLS = {"tools": [{"name": "look_up", "input_schema": {"type": "object"}}]}

# By the cassette's name but for its mode: the folder of the adapter, and the format.
EXCHANGES: Mapping[str, tuple[Exchange, ...]] = {
    **OF_SDKS,
    "langchain/chat": CHAT,
    "langchain/responses": _same(
        "openai/responses", "text", "summaries and a tool", "cut off", "in one piece", "refused"
    ),
    "langchain/messages": (
        *_same("anthropic/messages", "text", "in one piece", "refused"),
        replace(THOUGHTFUL, request=GIVEN_TOOLS),
    ),
    "llama-index/chat": CHAT,
}


def name_of(cassette: str, mode: str) -> str:
    """The file of a cassette and a mode, below the folder of all."""
    return f"{cassette}-{mode}.yaml"


NAMES = tuple(name_of(cassette, mode) for cassette in EXCHANGES for mode in MODES)


def recorder(mode: str) -> vcr.VCR:
    """Make vcrpy record cassettes (`all`) or replay them (`none`)."""
    player = vcr.VCR(
        record_mode=mode,
        match_on=["method", "uri", "body"],
        before_record_request=_bare_request,
        before_record_response=_bare_response,
        serializer="readable",
    )
    player.register_serializer("readable", _Readable)
    return player


def _bare_request(request: Request) -> Request:
    """Forget every header that is not on the list, the server's port, and the order of keys: each SDK has its own."""
    request.headers = {name: value for name, value in request.headers.items() if name.lower() in KEPT_HEADERS}
    request.uri = ORIGIN + "/v1" + request.uri.partition("/v1")[2]
    request.body = json.dumps(json.loads(request.body), sort_keys=True)
    return request


def _bare_response(response: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in response["headers"].items() if name.lower() in KEPT_HEADERS}
    return {**response, "headers": kept}


class _Readable:
    """YAML with bodies as they are, line by line."""

    @staticmethod
    def deserialize(text: str) -> Any:
        return yaml.safe_load(text)

    @staticmethod
    def serialize(cassette: Any) -> str:
        return yaml.dump(cassette, Dumper=_Dumper, allow_unicode=True, width=10_000, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)
