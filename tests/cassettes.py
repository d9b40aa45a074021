"""What the cassettes hold, exchange by exchange: what is asked, and the script that it is answered with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
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
from tokentape.testing.rig import resolved

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
        request: what the SDK's `create` is given, but for the model and the question.
        finish: the finish reason that belongs on the tape.
        status: and the status.
    """

    name: str
    script: tuple[Event, ...]
    finish: str | None = "stop"
    status: str = "completed"
    request: Mapping[str, Any] = field(default_factory=dict)
    streaming: bool = True


@dataclass(frozen=True, slots=True)
class Sdk:
    """What is recorded through.

    Attributes:
        adapter: names the folder of its cassettes.
        clients: its synchronous and its asynchronous client.
        root: what its clients want in the base URL beyond the server's origin.
        refused: what it raises for status 400.
    """

    adapter: str
    clients: tuple[Callable[..., Any], Callable[..., Any]]
    root: str
    refused: type[Exception]

    def client(self, mode: str, origin: str, key: str) -> Any:
        """A client of a server, in one of the modes."""
        return self.clients[MODES.index(mode)](base_url=origin + self.root, api_key=key, max_retries=0)


OPENAI = Sdk("openai", (openai.OpenAI, openai.AsyncOpenAI), "/v1", openai.BadRequestError)
ANTHROPIC = Sdk("anthropic", (anthropic.Anthropic, anthropic.AsyncAnthropic), "", anthropic.BadRequestError)
SDKS: Mapping[str, Sdk] = {"chat": OPENAI, "responses": OPENAI, "completions": OPENAI, "messages": ANTHROPIC}


def _tool(index: int, choice: int, *pieces: str) -> Iterator[Event]:
    yield ToolCall(index, f"call_{choice}{index}", "look_up", choice)
    yield from (ToolArgs(index, piece, choice) for piece in pieces)


TEXT = (Text("Hel"), Text("lo, "), Text("wörld"), Text(" 👩‍🚀\n"))
USAGE = Usage(12, 9, cached=4, reasoning=0, cache_write=0)

EXCHANGES: Mapping[str, tuple[Exchange, ...]] = {
    "chat": (
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
    "responses": (
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
    "completions": (
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
    "messages": (
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


def name_of(api: str, mode: str) -> str:
    """The cassette of an API and a mode, below the folder of all."""
    return f"{SDKS[api].adapter}/{api}-{mode}.yaml"


NAMES = tuple(name_of(api, mode) for api in EXCHANGES for mode in MODES)


async def send(client: Any, api: str, exchange: Exchange) -> None:
    """Make the request with a client of either kind, and read the answer to its end."""
    surfaces = {
        "chat": lambda: client.chat.completions,
        "responses": lambda: client.responses,
        "completions": lambda: client.completions,
        "messages": lambda: client.messages,
    }
    # The name in the question makes each request one of its own, by which its answer is found again.
    question = {
        "chat": {"messages": [{"role": "user", "content": exchange.name}]},
        "responses": {"input": exchange.name},
        "completions": {"prompt": exchange.name},
        "messages": {"messages": [{"role": "user", "content": exchange.name}], "max_tokens": 50},
    }
    asked = {**question[api], **exchange.request, "stream": exchange.streaming}
    answer = await resolved(surfaces[api]().create(model="scripted-model", **asked))
    if hasattr(answer, "__aiter__"):
        async for _ in answer:
            pass
    elif exchange.streaming:
        for _ in answer:
            pass


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
