"""What the server received, and what it sent back and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from .events import Event

Outcome = Literal["answered", "dropped", "left"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One server-sent event, as it went into the socket.

    Attributes:
        at_ns: `time.perf_counter_ns()` just before it was written, so no reader can have an earlier stamp.
        event: the script's event that it belongs to; None for what a format adds at the end, such as `[DONE]`.
        data: the bytes, without the framing of HTTP.
    """

    at_ns: int
    event: Event | None
    data: bytes


@dataclass(frozen=True, eq=False)
class Request:
    """One HTTP request; each retry of an SDK is a request of its own.

    Attributes:
        number: counts from 1 in order of arrival.
        path: without the query.
        headers: names in lower case.
        body: exactly as received.
        at_ns: `time.perf_counter_ns()` when the whole request had been read.
        sent: what was streamed in answer, so far.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at_ns: int
    sent: list[Sent] = field(default_factory=list)
    _ended: Future[Outcome] = field(default_factory=Future, repr=False)

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def model(self) -> str | None:
        """The model it names, in the body or, for Azure, as the deployment in the path."""
        parts = self.path.split("/")
        deployment = parts[parts.index("deployments") + 1] if "deployments" in parts[:-1] else None
        return self.json.get("model") or deployment

    def outcome(self, timeout: float = 5.0) -> Outcome:
        """Wait until the exchange is over and say how it ended.

        Args:
            timeout: seconds.

        Returns:
            `answered` to the last byte, `dropped` by the script, or `left`: the client hung up, or the server closed.

        Raises:
            TimeoutError: it still goes on.
        """
        return self._ended.result(timeout)

    def end(self, outcome: Outcome) -> None:
        """Note how the exchange ended; called by the server."""
        self._ended.set_result(outcome)
