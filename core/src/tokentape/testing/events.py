"""What a scripted model says and what goes wrong on the way, in the words of no particular wire format.

Three groups: what the model says (`Role` to `Usage`), what the provider's server does to the stream (`ErrorEvent` to
`NoDone`), and what happens to the connection (`HTTPError` to `WaitFor`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Logprob:
    """One model token inside a `Text`.

    Attributes:
        utf8: its bytes where they differ from the token's text, such as half of a character.
        top: alternatives as pairs of token and log probability.
    """

    token: str
    logprob: float
    utf8: bytes | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """The frame that opens an answer and holds no content.

    Responses: `response.created` and `response.in_progress`; messages: `message_start`.
    """

    choice: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer. In formats without choices, each choice is a message of its own."""

    text: str
    choice: int = 0
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of raw reasoning.

    Attributes:
        field: name of the unofficial field that carries it in chat completions; other formats have an official one.
    """

    text: str
    field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """A piece of one part of a reasoning summary; parts count from 0."""

    part: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call is announced; its arguments follow as `ToolArgs` with the same index."""

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolArgs:
    """A piece of a tool call's arguments, which are JSON once joined."""

    index: int
    arguments: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of a refusal."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """A choice is complete.

    Attributes:
        reason: as chat completions name it. Responses: `length` and `content_filter` become `response.incomplete`,
            `failed` becomes `response.failed`, everything else `response.completed`. Messages: `stop`, `length`,
            `tool_calls` and `content_filter` become `end_turn`, `max_tokens`, `tool_use` and `refusal`.
    """

    reason: str = "stop"
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What is billed. It is sent if the script holds it, whether or not the request asked for it.

    Attributes:
        input_tokens: `cached` and `cache_write` ones included.
        output_tokens: `reasoning` ones included.
    """

    input_tokens: int
    output_tokens: int
    cached: int | None = None
    reasoning: int | None = None
    cache_write: int | None = None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An error reported inside a stream that began with status 200; an answer in one piece becomes a status 500."""

    type: str
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """Something no well-behaved provider sends.

    Attributes:
        value: bytes go out as they are, anything else as the JSON of one server-sent event. Where the request did not
            ask for a stream, it is the whole body.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Ping:
    """A comment that keeps the connection alive, in messages an event; no SDK shows it."""

    comment: str = "ping"


@dataclass(frozen=True, slots=True)
class NoDone:
    """Anywhere in a script: the stream ends without `[DONE]`. Formats that have none are not changed."""


@dataclass(frozen=True, slots=True)
class HTTPError:
    """The whole answer is an error status. Only as the first step.

    Attributes:
        headers: for instance `{"retry-after": "1"}`.
        body: any JSON value; None for an error object with `message` in the provider's form.
    """

    status: int
    message: str = "scripted error"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed in the middle of the body; as the first step, before there is any answer."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence on an open connection, until the time is over or the client leaves."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Nothing more is sent until the test sets the event; past the timeout (seconds) the connection is dropped."""

    event: threading.Event
    timeout: float = 10.0


Event = (
    Role
    | Text
    | Reasoning
    | Summary
    | ToolCall
    | ToolArgs
    | Refusal
    | Finish
    | Usage
    | ErrorEvent
    | Raw
    | Ping
    | NoDone
    | HTTPError
    | Drop
    | Hang
    | WaitFor
)
