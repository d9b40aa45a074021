"""What the OpenAI formats have in common: ids, errors, usage and logprobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from ..events import ErrorEvent, Event, Finish, Logprob, NoDone, Usage
from .base import Wire

# Fixed, so that recording the same scripts twice gives the same bytes.
CREATED: Final = 1_793_000_000


def error_object(error: ErrorEvent) -> dict[str, Any]:
    """The error as it stands under the key `error`."""
    return {"message": error.message, "type": error.type, "param": None, "code": error.code}


def logprob_objects(logprobs: Iterable[Logprob]) -> list[dict[str, Any]]:
    """Logprobs as chat completions and Responses write them."""
    return [
        _token_object(item.token, item.logprob, item.utf8)
        | {"top_logprobs": [_token_object(token, logprob) for token, logprob in item.top]}
        for item in logprobs
    ]


def _token_object(token: str, logprob: float, utf8: bytes | None = None) -> dict[str, Any]:
    data = token.encode("utf-8", "surrogatepass") if utf8 is None else utf8
    return {"token": token, "logprob": logprob, "bytes": list(data)}


class OpenAIWire(Wire, ABC):
    """A format whose error statuses carry OpenAI's error object."""

    @classmethod
    def error(cls, type_: str, message: str, code: str | None = None) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": error_object(ErrorEvent(type_, message, code))}


class CompletionsWire(OpenAIWire, ABC):
    """The frame that chat and legacy completions share: choices in an envelope, usage apart, `[DONE]` at the end."""

    id_prefix: str
    chunk_object: str
    body_object: str

    def end(self) -> Iterable[bytes]:
        """`[DONE]`, unless the script says otherwise."""
        return () if NoDone() in self.script.events else (b"data: [DONE]\n\n",)

    def body(self) -> dict[str, Any]:
        """Every choice in one piece, and the last usage."""
        numbers = sorted({getattr(event, "choice", 0) for event in self.script.events})
        usage = [event for event in self.script.events if isinstance(event, Usage)]
        choices = [self.whole_choice(number) for number in numbers or [0]]
        return self.envelope(self.body_object, choices, usage[-1] if usage else None)

    @abstractmethod
    def whole_choice(self, number: int) -> dict[str, Any]:
        """One choice of an answer in one piece."""

    def events_of(self, choice: int) -> list[Event]:
        """The script's events that belong to one choice."""
        return [event for event in self.script.events if getattr(event, "choice", None) == choice]

    def finish_reason(self, choice: int) -> str | None:
        """Why a choice ended; None if the script does not say."""
        reasons = [event.reason for event in self.events_of(choice) if isinstance(event, Finish)]
        return reasons[-1] if reasons else None

    def envelope(self, object_: str, choices: list[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        """The object around choices, with usage only if there is one."""
        envelope: dict[str, Any] = {
            "id": f"{self.id_prefix}-{self.request.number:06d}",
            "object": object_,
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": "fp_scripted",
            "choices": choices,
        }
        return envelope if usage is None else envelope | {"usage": _usage_object(usage)}

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """One streamed object with one choice."""
        return self.envelope(self.chunk_object, [choice])

    def aside(self, event: Usage | ErrorEvent) -> dict[str, Any]:
        """A streamed object that belongs to no choice."""
        if isinstance(event, ErrorEvent):
            return {"error": error_object(event)}
        return self.envelope(self.chunk_object, [], event)


def _usage_object(usage: Usage) -> dict[str, Any]:
    value: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    prompt = _known(cached_tokens=usage.cached, cache_write_tokens=usage.cache_write)
    completion = _known(reasoning_tokens=usage.reasoning)
    return value | {
        name: details
        for name, details in (("prompt_tokens_details", prompt), ("completion_tokens_details", completion))
        if details
    }


def _known(**numbers: int | None) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number is not None}
