"""The usage that comes along with LlamaIndex's answers, whoever the provider, in tokentape's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.models import Usage
from tokentape.reading import count, field
from tokentape.stainless import plain


def read_usage(usage: Any) -> Usage | None:
    """Normalise a usage object of OpenAI's or Anthropic's, or LlamaIndex's own counts.

    Args:
        usage: an SDK's object or a mapping.
    """
    raw = plain(usage)
    if not isinstance(raw, dict):
        return None
    read = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    written = raw.get("completion_tokens_details") or raw.get("output_tokens_details")
    cached, stored = count(raw.get("cache_read_input_tokens")), count(raw.get("cache_creation_input_tokens"))
    asked = _first(raw, "prompt_tokens", "input_tokens")
    return Usage(
        # Anthropic counts cached tokens apart from the other input.
        input_tokens=None if asked is None else asked + (cached or 0) + (stored or 0),
        cached_input_tokens=cached if cached is not None else count(field(read, "cached_tokens")),
        cache_write_tokens=stored if stored is not None else count(field(read, "cache_write_tokens")),
        output_tokens=_first(raw, "completion_tokens", "output_tokens"),
        reasoning_tokens=_first(written if isinstance(written, dict) else {}, "reasoning_tokens", "thinking_tokens"),
        raw=raw,
    )


def _first(raw: Mapping[str, Any], *names: str) -> int | None:
    return next((found for name in names if (found := count(raw.get(name))) is not None), None)
