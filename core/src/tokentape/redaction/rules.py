"""Finds secrets in a text, and tells from where on the text is undecided: more of it could still make a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from .patterns import ANY, OPEN_ENDS, OPENINGS, PATTERNS, Redactor

# How far a pattern may look back at text that was searched before.
LOOKBACK: Final = 32
# The issuer's number, which is no secret: a year that ends a part is not masked for being the first digits of a card.
_PUBLIC_DIGITS: Final = 6
# Beyond this length other threads may run during a search; below, handing over the interpreter would starve the writer.
_LONG_TEXT: Final = 20_000


class Span(NamedTuple):
    """Where a secret is."""

    start: int
    end: int
    kind: str

    @property
    def mark(self) -> str:
        """What stands in its place."""
        return f"[redacted:{self.kind}]"


class Rules:
    """The built-in patterns, and those that were added.

    Args:
        extra: patterns and redactors of plugins.
    """

    def __init__(self, extra: Iterable[Redactor] = ()) -> None:
        self._extra = tuple(extra)

    def scan(self, text: str, start: int = 0, *, final: bool = True) -> tuple[list[Span], int]:
        """Find the secrets in `text[start:]`.

        Args:
            text: what to search; patterns may look back before `start`.
            start: where the search begins.
            final: whether this is all; otherwise more text will follow.

        Returns:
            Where the secrets are, in order and apart from each other; and from where on the text is undecided.
        """
        spans: list[Span] = []
        undecided = len(text)
        for redactor in (*(p for p in PATTERNS if p.hinted(text)), *self._extra):
            undecided = min(undecided, _search(redactor, text, start, final, spans))
        if not final and text.endswith(OPEN_ENDS):
            undecided = min(undecided, _opening(text, max(start, len(text) - LOOKBACK)))
        return merged(spans), undecided

    def is_public(self, text: str, undecided: int) -> bool:
        """Whether nothing of the undecided end of a text is secret yet, so that the end may be shown.

        It is if it is only the beginning that all keys of a provider share, or as many digits as an issuer shows.
        """
        end = text[undecided:]
        known = end in OPENINGS or (len(end) <= _PUBLIC_DIGITS and end.isdigit())
        return known and all(_search(added, text, undecided, False, []) == len(text) for added in self._extra)


BUILT_IN: Final = Rules()


def _search(redactor: Redactor, text: str, start: int, final: bool, spans: list[Span]) -> int:
    """Add what one redactor finds to `spans`, and return from where on it could still find something else."""
    undecided = len(text)
    share = len(text) > _LONG_TEXT
    while start <= len(text):
        match = redactor.pattern.search(text, start, partial=not final, concurrent=share)
        if match is None:
            break
        if match.partial or (match.end() == len(text) and not final):
            undecided = min(undecided, match.start())
        if match.partial:
            break
        found = match.end() > match.start() and redactor.is_secret(match.group())
        if found:
            spans.append(Span(match.start(), match.end(), redactor.kind))
        start = match.end() if found else match.start() + 1
    return undecided


def _opening(text: str, start: int) -> int:
    """Where the beginning of a built-in secret may stand that nothing hints at yet; it may be inside another secret."""
    while match := ANY.search(text, start, partial=True, concurrent=False):
        if match.partial:
            return match.start()
        start = match.start() + 1
    return len(text)


def merged(spans: list[Span]) -> list[Span]:
    """Put spans in order and join those that overlap; what begins first, or stands first, gives its kind."""
    apart: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if apart and span.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, span.end))
        else:
            apart.append(span)
    return apart


def redact_text(text: str, rules: Rules = BUILT_IN) -> str:
    """Replace each secret in a text by its mark."""
    pieces = []
    done = 0
    for span in rules.scan(text)[0]:
        pieces += [text[done : span.start], span.mark]
        done = span.end
    return "".join(pieces) + text[done:]


def redact_json(value: Any, rules: Rules = BUILT_IN) -> Any:
    """Copy a plain JSON value with each secret in its texts and keys replaced."""
    if isinstance(value, str):
        return redact_text(value, rules)
    if isinstance(value, Mapping):
        return {redact_json(key, rules): redact_json(item, rules) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_json(item, rules) for item in value]
    return value
