"""Finds secrets in a text, and tells from where on the text is undecided: more of it could still make a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from .guard import Guarded, Searches
from .patterns import ANY, OPEN_ENDS, OPENINGS, PATTERNS, PUBLIC_DIGITS, BuiltIn, Redactor

# How far a pattern may look back at text that was searched before.
LOOKBACK: Final = 32
# Beyond this length other threads may run during a search; below, handing over the interpreter would starve the writer.
_LONG_TEXT: Final = 20_000


# Fewer digits than a secret has.
_LONG_NUMBER: Final = 10
# What a program or a provider nests deeper is cut off: JSON may have more levels than Python can go down.
MOST_DEEP: Final = 100


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
    """What is masked: the built-in patterns, and those that were added.

    Args:
        added: optional kinds, patterns of the user, patterns and redactors of plugins.

    Raises:
        TypeError: something that was added is no redactor.
    """

    def __init__(self, added: Iterable[Redactor] = ()) -> None:
        added = tuple(added)
        self._optional = tuple(redactor for redactor in added if isinstance(redactor, BuiltIn))
        self._guarded = tuple(Guarded(redactor) for redactor in added if not isinstance(redactor, BuiltIn))

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
        undecided = _search_built_in(text, start, final, spans)
        for redactor in self._optional:
            undecided = min(undecided, _search_one(redactor, text, start, final, spans))
        for guarded in self._guarded:
            undecided = min(undecided, _search_guarded(guarded, text, start, final, spans))
        return merged(spans), undecided

    def is_public(self, text: str, undecided: int) -> bool:
        """Whether nothing of the undecided end of a text is secret yet, so that the end may be shown.

        It is if it is only the beginning that all keys of a provider share, as many digits as an issuer shows, or a
        word that could become an e-mail address.
        """
        spans: list[Span] = []
        end = text[_search_built_in(text, undecided, False, spans) :]
        if end and end not in OPENINGS and not (len(end) <= PUBLIC_DIGITS and end.isdigit()):
            return False
        for redactor in self._optional:
            begins = _search_one(redactor, text, undecided, False, spans)
            if begins < len(text) and not redactor.is_harmless(text[begins:]):
                return False
        return not spans and all(
            _search_guarded(guarded, text, undecided, False, spans) == len(text) and not spans
            for guarded in self._guarded
        )

    def head(self, text: str, size: int) -> str:
        """The first `size` characters of a text, masked; a secret that they end in is left out."""
        if len(text) <= size:
            return redact_text(text, self)
        spans, undecided = self.scan(text[:size], final=False)
        return _masked(text[:undecided], spans)


BUILT_IN: Final = Rules()


def _search_built_in(text: str, start: int, final: bool, spans: list[Span]) -> int:
    undecided = len(text)
    for pattern in PATTERNS:
        undecided = min(undecided, _search_one(pattern, text, start, final, spans))
    if not final and text.endswith(OPEN_ENDS):
        undecided = min(undecided, _opening(text, max(start, len(text) - LOOKBACK)))
    return undecided


def _search_one(pattern: BuiltIn, text: str, start: int, final: bool, spans: list[Span]) -> int:
    if not pattern.hinted(text):
        return len(text)
    find = partial(pattern.pattern.search, concurrent=len(text) > _LONG_TEXT)
    return _search(pattern, find, text, start, final, spans)


def _search_guarded(guarded: Guarded, text: str, start: int, final: bool, spans: list[Span]) -> int:
    try:
        searches = guarded.searches(text)
        return _search(searches, searches.find, text, start, final, spans)
    except Exception as fault:
        guarded.note(fault)
        if start < len(text):
            spans.append(Span(start, len(text), guarded.kind))
        return len(text)


def _search(redactor: BuiltIn | Searches, find: Any, text: str, start: int, final: bool, spans: list[Span]) -> int:
    """Add what one redactor finds to `spans`, and return from where on it could still find something else."""
    undecided = len(text)
    while start <= len(text):
        match = find(text, start, partial=not final)
        if match is None:
            break
        if match.partial or (not final and redactor.may_go_on(text[match.end() :])):
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
    return _masked(text, rules.scan(text)[0])


def redact_json(value: Any, rules: Rules = BUILT_IN, above: tuple[int, ...] = ()) -> Any:
    """Copy a plain JSON value with each secret in its texts, keys and numbers replaced; of anything else its text.

    Args:
        above: ids of what it stands in. What stands in itself, or deeper than `MOST_DEEP`, is left empty.
    """
    if isinstance(value, str):
        return redact_text(value, rules)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        shown = redact_text(str(value), rules) if len(str(value)) >= _LONG_NUMBER else None
        return value if shown in (None, str(value)) else shown
    inside = (*above, id(value))
    ends = len(above) == MOST_DEEP or id(value) in above
    if isinstance(value, Mapping):
        pairs = () if ends else value.items()
        return {_redact_key(key, rules): redact_json(item, rules, inside) for key, item in pairs}
    if isinstance(value, list | tuple):
        return [redact_json(item, rules, inside) for item in (() if ends else value)]
    return redact_text(str(value), rules)


def _redact_key(key: Any, rules: Rules) -> Any:
    return redact_json(key if isinstance(key, str | int | float | None) else str(key), rules)


def _masked(text: str, spans: Iterable[Span]) -> str:
    pieces = []
    done = 0
    for span in spans:
        if span.start >= len(text):
            break
        pieces += [text[done : span.start], span.mark]
        done = span.end
    return "".join(pieces) + text[done:]
