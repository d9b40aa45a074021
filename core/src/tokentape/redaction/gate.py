"""What of a call, a run or a mark may leave the writer, beside its token events: every field that a text can get into.

At the level `timings` a provider's word is kept only if it is one: a name, an id, a reason, a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from ..models import Call, ContentLevel, Mark, Part, Run
from .events import CallRedactor
from .rules import Rules, redact_json

Given = TypeVar("Given", Call, Run, Mark)

# What programs give. The fields that are missing here hold numbers, and ids and words that are ours.
_GIVEN: Final[Mapping[type, tuple[str, ...]]] = {
    Call: (
        *("adapter", "provider", "server_address", "operation", "request_model", "name", "request"),
        *("labels", "framework_run_id", "metadata"),
    ),
    Run: ("name", "metadata"),
    Mark: ("kind", "name"),
}
_WORD: Final = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)


class Gate:
    """Lets through what one content level allows.

    Args:
        level: `full` lets everything through.
        rules: what is masked at the others.
    """

    def __init__(self, level: ContentLevel, rules: Rules) -> None:
        self._level = level
        self._rules = rules

    @property
    def keeps_text(self) -> bool:
        """Whether any text of requests and answers is kept."""
        return self._level != "timings"

    def redactor(self) -> CallRedactor | None:
        """What masks the token events of one call; None where they are kept as they came, or without their text."""
        return CallRedactor(self._rules) if self._level == "redacted" else None

    def given(self, value: Given) -> Given:
        """What a program has given."""
        if self._level == "full":
            return value
        fields = {name: getattr(value, name) for name in _GIVEN[type(value)]}
        return replace(value, **{name: self.json(field) for name, field in fields.items() if field})

    def told(self, value: Any) -> Any:
        """What a provider has said, as a plain JSON value."""
        return self.json(_words(value) if self._level == "timings" else value)

    def part(self, part: Part) -> Part:
        """A part as the provider has announced it."""
        names = {"provider_index": part.provider_index, "name": part.name, "external_id": part.external_id}
        return replace(part, **{field: self.told(name) for field, name in names.items() if name})

    def text(self, text: str | None, size: int) -> str | None:
        """The beginning of a text that is kept where texts are."""
        if text is None or not self.keeps_text:
            return None
        return text[:size] if self._level == "full" else self._rules.head(text, size)

    def json(self, value: Any) -> Any:
        """A plain JSON value that is kept at every level."""
        return value if self._level == "full" else redact_json(value, self._rules)


def _words(value: Any) -> Any:
    """Copy a plain JSON value without the texts that are no words."""
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else None
    if isinstance(value, Mapping):
        return {key: _words(item) for key, item in value.items() if _words(key) is not None}
    if isinstance(value, list | tuple):
        return [_words(item) for item in value]
    return value if isinstance(value, int | float) else None
