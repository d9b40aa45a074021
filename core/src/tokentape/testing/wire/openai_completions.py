"""OpenAI legacy completions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from ..events import ErrorEvent, Event, Finish, Logprob, Role, Text, Usage
from .base import sse
from .openai_common import CompletionsWire


class Completions(CompletionsWire):
    """`POST …/completions`. A `Role` is a chunk without text here."""

    path = "/completions"
    carries = (Role, Text, Finish, Usage, ErrorEvent)
    id_prefix = "cmpl"
    # The same word for a chunk and for the whole.
    chunk_object = body_object = "text_completion"

    def frames(self, event: Event) -> Iterator[bytes]:
        """One chunk for every event."""
        match event:
            case Usage() | ErrorEvent():
                yield sse(self.aside(event))
            case Role(choice):
                yield sse(self.chunk(_choice(choice)))
            case Text(text, choice, logprobs):
                yield sse(self.chunk(_choice(choice, text, logprobs)))
            case Finish(reason, choice):
                yield sse(self.chunk(_choice(choice, finish_reason=reason)))

    def whole_choice(self, number: int) -> dict[str, Any]:
        """One choice with its text."""
        texts = [event for event in self.events_of(number) if isinstance(event, Text)]
        logprobs = tuple(item for event in texts for item in event.logprobs)
        return _choice(number, "".join(event.text for event in texts), logprobs, self.finish_reason(number))


def _choice(
    index: int, text: str = "", logprobs: tuple[Logprob, ...] = (), finish_reason: str | None = None
) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}


def _logprobs(logprobs: tuple[Logprob, ...]) -> dict[str, Any] | None:
    if not logprobs:
        return None
    ends = accumulate((len(item.token) for item in logprobs), initial=0)
    return {
        "tokens": [item.token for item in logprobs],
        "token_logprobs": [item.logprob for item in logprobs],
        "top_logprobs": [dict(item.top) for item in logprobs],
        "text_offset": list(ends)[:-1],
    }
