"""What the conformance suite has to know of an SDK: how it is asked, and what it can and cannot do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, Self

from .wire import WIRES, Wire


class Driver(Protocol):
    """Drives one SDK. What it may say besides is listed in `Traits`.

    Attributes:
        model: the model it asks for.
        kinds: what the SDK can stream, of `text`, `reasoning`, `tool_args`, `refusal`.
    """

    model: str
    kinds: frozenset[str]

    def client(self, url: str, asynchronous: bool) -> Any:
        """Make a client of the server at this URL that retries once."""

    def send(self, client: Any) -> Any:
        """Ask for a streamed answer; the stream, or an awaitable of it."""

    def text(self, chunk: Any) -> str:
        """The text that a chunk adds to the answer; empty for any other chunk."""

    def close_client(self, client: Any) -> Any:
        """Release the client's connections."""


def _whole(chunk: Any) -> Any:
    return chunk


@dataclass(frozen=True, slots=True)
class Traits:
    """What a driver may say of its SDK, each as an attribute of this name; left out, the default here holds.

    Attributes:
        wires: the formats that the server speaks to it; see `tokentape.testing.wire.base` for one of your own.
        options: keyword arguments that the driver's `send` takes besides the client: `prompt` (what is asked, a
            string), `choices` (how many answers), `include_usage` (whether the provider shall tell the usage).
        value: what of a chunk is the same each time that the same bytes are sent; compared with `==`.
        hostile: what a server may send in this format and should not, each as the value of a `Raw` event.
        is_generator: whether a stream is a bare generator, which is no context manager.
        interleaves: whether the format can mix the pieces of several tool calls.
        starts: what `send` does: `sent` sends the request, `announced` lets the adapter know of it and leaves sending
            to the first read, `read` leaves both to the first read.
        sees_waits: whether the adapter learns when a chunk was asked for, and not only when it came.
        sees_attempts: whether the adapter learns of the attempts to send a request.
    """

    wires: Sequence[type[Wire]] = WIRES
    options: frozenset[str] = frozenset()
    value: Callable[[Any], Any] = field(default=_whole)
    hostile: Sequence[Any] = ()
    is_generator: bool = False
    interleaves: bool = False
    starts: Literal["sent", "announced", "read"] = "sent"
    sees_waits: bool = True
    sees_attempts: bool = True

    @classmethod
    def of(cls, driver: Driver) -> Self:
        """Those of a driver."""
        return cls(**{trait.name: getattr(driver, trait.name) for trait in fields(cls) if hasattr(driver, trait.name)})
