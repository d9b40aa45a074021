"""Reads the end of a model run: usage, ids and finish reason of what LangChain has put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.models import Usage
from tokentape.reading import count, unopened

from .chunks import note_finish

# Ids that LangChain gives a message until the provider has said its own.
_OWN_IDS: Final = ("lc_", "run-")


def read_answer(call: CallRecorder, response: Any, *, was_read: bool) -> None:
    """Note what the whole answer says of itself.

    Args:
        call: the call it ends.
        response: an `LLMResult`, or None where a run failed without any.
        was_read: whether it came from a model as chunks, so that it cannot be one out of LangChain's cache.
    """
    answers = (getattr(response, "generations", None) or [[]])[0]
    if not answers:
        return
    for choice, answer in enumerate(answers):
        # What chunks have said stands: LangChain joins their metadata, and `stop` said twice is `stopstop`.
        if choice not in call.finish_reasons:
            note_finish(call, _mapping(answer.generation_info), _metadata(answer), choice=choice)
    message = getattr(answers[0], "message", None)
    _read_ids(call, message, _metadata(answers[0]))
    told = _mapping(getattr(message, "usage_metadata", None))
    if told and told.get("total_cost") == 0 and not was_read:
        # LangChain's mark of an answer out of its cache: nobody billed it, so its tokens count for nothing.
        call.response_meta["cached"] = True
        return
    call.usage_counts = _usage(told) or _token_usage(_mapping(response.llm_output).get("token_usage"))


def _metadata(answer: Any) -> Mapping[str, Any]:
    return _mapping(getattr(getattr(answer, "message", None), "response_metadata", None))


def _read_ids(call: CallRecorder, message: Any, metadata: Mapping[str, Any]) -> None:
    own = getattr(message, "id", None)
    if isinstance(own, str) and own.startswith(_OWN_IDS):
        own = None
    call.response_id = _text(metadata.get("id")) or _text(own)
    call.response_model = _text(metadata.get("model_name")) or _text(metadata.get("model"))
    tier = _text(metadata.get("service_tier"))
    if tier is not None:
        call.response_meta["service_tier"] = tier


def _usage(told: Mapping[str, Any]) -> Usage | None:
    """LangChain's `UsageMetadata`, in which cached input and reasoning are included as they are here."""
    if not isinstance(told.get("output_tokens"), int):
        return None
    read, written = _mapping(told.get("input_token_details")), _mapping(told.get("output_token_details"))
    return Usage(
        input_tokens=count(told.get("input_tokens")),
        cached_input_tokens=count(read.get("cache_read")),
        cache_write_tokens=count(read.get("cache_creation")),
        output_tokens=count(told.get("output_tokens")),
        reasoning_tokens=count(written.get("reasoning")),
        raw=unopened(told),
    )


def _token_usage(told: Any) -> Usage | None:
    """What models that complete text leave in `llm_output`."""
    if not isinstance(told, Mapping) or not told:
        return None
    return Usage(
        input_tokens=count(told.get("prompt_tokens")),
        output_tokens=count(told.get("completion_tokens")),
        raw=unopened(told),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
