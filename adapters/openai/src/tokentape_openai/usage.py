"""OpenAI's usage objects, from an SDK object or from JSON, in tokentape's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.models import Usage
from tokentape.reading import count
from tokentape.stainless import plain


def read_usage(usage: Any) -> Usage | None:
    """Normalise a usage object of chat, completions (`prompt_tokens`) or Responses (`input_tokens`).

    Args:
        usage: the SDK's object or a JSON object.

    Returns:
        The counts and the object as it came; None when it is no usage object.
    """
    raw = plain(usage)
    if not isinstance(raw, dict):
        return None
    read = _mapping(raw, "prompt_tokens_details") or _mapping(raw, "input_tokens_details")
    written = _mapping(raw, "completion_tokens_details") or _mapping(raw, "output_tokens_details")
    return Usage(
        input_tokens=_first(raw, "prompt_tokens", "input_tokens"),
        cached_input_tokens=_first(read, "cached_tokens"),
        cache_write_tokens=_first(read, "cache_write_tokens"),
        output_tokens=_first(raw, "completion_tokens", "output_tokens"),
        reasoning_tokens=_first(written, "reasoning_tokens"),
        raw=raw,
    )


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def _first(raw: Mapping[str, Any], *names: str) -> int | None:
    return next((found for name in names if (found := count(raw.get(name))) is not None), None)
