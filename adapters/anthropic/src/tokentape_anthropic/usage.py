"""Anthropic's usage objects, as JSON, in tokentape's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.models import Usage
from tokentape.reading import count, field


def read_usage(usage: Mapping[str, Any], *, complete: bool) -> Usage:
    """Normalise a usage object; Anthropic counts cached tokens apart from the other input.

    Args:
        usage: a JSON object.
        complete: whether its output tokens are those of the answer. `message_start` holds those before the first word.
    """
    cached, written = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    fresh = count(usage.get("input_tokens"))
    return Usage(
        input_tokens=None if fresh is None else fresh + (cached or 0) + (written or 0),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=count(usage.get("output_tokens")) if complete else None,
        reasoning_tokens=count(field(usage.get("output_tokens_details"), "thinking_tokens")) if complete else None,
        raw=usage,
    )
