"""What the readers of OpenAI's three wire formats do alike."""

from __future__ import annotations

from typing import Any

from tokentape.models import Usage
from tokentape.reading import Reading

from .usage import read_usage


class OpenAIReading(Reading):
    """A reader of a format with OpenAI's usage objects."""

    __slots__ = ()

    def _counts(self, usage: Any) -> Usage | None:
        return read_usage(usage)
