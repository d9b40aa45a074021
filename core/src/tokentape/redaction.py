"""Masks secrets in recorded text, also where one is spread over many token events.

Text is *undecided* from where a secret may have begun that is not complete yet. Events leave in the order they came, so
undecided text holds back all that follows it, for a limited time.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Final, NamedTuple, Protocol, cast

from regex import Pattern as Compiled
from regex import compile as compile_pattern
from regex import error as PatternError  # noqa: N812 - beside our own Pattern

from .models import TokenBatch

HOLD_CHARS: Final = 4096
HOLD_US: Final = 2_000_000

# Text before the first held event that a pattern may look back at.
_LOOKBACK: Final = 32
# What is kept of each end of a secret that has no end: enough to recognise how it goes on.
_KEEP: Final = 256
# The issuer's number, which is no secret: a year at the end of a part is not masked for being a card's first digits.
_PUBLIC_DIGITS: Final = 6
# Beyond this length other threads may run during a search; below, handing over the interpreter would starve the writer.
_LONG_TEXT: Final = 20_000


class Redactor(Protocol):
    """What finds one kind of secret.

    Attributes:
        kind: goes into the mark, `[redacted:KIND]`.
        pattern: of the `regex` library, which can tell that text ends within a match. Let a match end where its run of
            characters ends: it is taken as complete as soon as other text follows.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102 - see above

    @property
    def pattern(self) -> Compiled[str]: ...  # noqa: D102 - see above

    def is_secret(self, match: str) -> bool:
        """Decide about a match what an expression cannot, such as a check digit."""
        ...


@dataclass(frozen=True)
class Pattern:
    """A kind of secret that a regular expression describes; `Redactor` says what to observe.

    Args:
        kind: goes into the mark, `[redacted:KIND]`.
        regex: an expression for the `regex` library.

    Raises:
        ValueError: the expression cannot be compiled.
    """

    kind: str
    regex: str
    pattern: Compiled[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "pattern", compile_pattern(self.regex))
        except PatternError as fault:
            raise ValueError(f"redaction pattern {self.kind!r}: {fault}; correct the expression") from None

    def is_secret(self, match: str) -> bool:  # noqa: ARG002 - the expression says it all
        """Take every match for a secret."""
        return True


@dataclass(frozen=True)
class _BuiltIn(Pattern):
    """A pattern that is only searched where a cheap look finds a hint of it."""

    hinted: Callable[[str], object]
    check: Callable[[str], bool] = bool

    def is_secret(self, match: str) -> bool:
        return self.check(match)


def _any_of(*hints: str) -> Callable[[str], bool]:
    return lambda text: any(hint in text for hint in hints)


def _passes_luhn(card: str) -> bool:
    digits = [int(c) for c in reversed(card) if c.isdigit()]
    return sum(digits[::2] + [sum(divmod(2 * d, 10)) for d in digits[1::2]]) % 10 == 0


def _looks_random(bearer: str) -> bool:
    token = bearer.split()[-1]
    return len(token) > len("responsibilities") or any(c.isdigit() for c in token)


_KEYS: Final = (
    *("sk-", "sk_live_", "rk_live_", "gsk_", "xai-", "pplx-", "nvapi-", "hf_", "r8_", "AIza", "AKIA", "ASIA"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"),
)
_BEARER: Final = ("Bearer", "bearer", "BEARER")
# The letter of a JSON escape (`\nsk-…` in a tool's arguments) does not belong to the word behind it.
_START: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt]))"
_PEM: Final = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PATTERNS: Final = (
    _BuiltIn("api_key", rf"{_START}(?:{'|'.join(_KEYS)})[A-Za-z0-9_-]{{16,}}", _any_of(*_KEYS)),
    _BuiltIn(
        "bearer_token",
        rf"{_START}(?:{'|'.join(_BEARER)})[ \t]{{1,4}}[A-Za-z0-9._~+/=-]{{8,}}",
        _any_of(*_BEARER),
        _looks_random,
    ),
    _BuiltIn(
        "private_key",
        rf"-----BEGIN {_PEM}[A-Za-z0-9+/=\s\\:.,-]{{16,}}?(?:-----END {_PEM}|(?=[^A-Za-z0-9+/=\s\\:.,-])|\Z)",
        _any_of("-----BEGIN"),
    ),
    _BuiltIn("jwt", rf"{_START}eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_.-]*", _any_of("eyJ")),
    _BuiltIn(
        "connection_string",
        r"""(?<=://)[^\s/:@"'`<>]{0,128}:[^\s/@"'`<>]{1,256}@[^\s/"'`<>]*""",
        _any_of("://"),
    ),
    _BuiltIn(
        "card_number",
        r"(?<![0-9])(?<![0-9]\.)(?:[2-6][0-9]{12,18}|3[0-9]{3}(?P<sep>[ -])[0-9]{6}(?P=sep)[0-9]{5}"
        r"|[2-6][0-9]{3}(?P<gap>[ -])(?:[0-9]{4}(?P=gap)){2}[0-9]{4})(?![0-9])",
        re.compile("[2-6](?:[ -]?[0-9]){12}").search,
        _passes_luhn,
    ),
)
_ANY: Final = Pattern("any", "|".join(f"(?:{p.regex})" for p in _PATTERNS))
_HINTS: Final = (*_KEYS, *_BEARER, "-----BEGIN", "eyJ", "://")
# How text ends that breaks off before the hint is complete, or within the digits of a card.
_OPENINGS: Final = frozenset(hint[:length] for hint in _HINTS for length in range(1, len(hint) + 1))
_OPEN_ENDS: Final = (*_OPENINGS, *(f"{digit}{gap}" for digit in range(10) for gap in ("", " ", "-")))


class _Span(NamedTuple):
    start: int
    end: int
    kind: str

    @property
    def mark(self) -> str:
        return f"[redacted:{self.kind}]"


class Rules:
    """The built-in patterns, and those that were added.

    Args:
        extra: patterns and redactors of plugins.
    """

    def __init__(self, extra: Iterable[Redactor] = ()) -> None:
        self._extra = tuple(extra)

    def scan(self, text: str, start: int = 0, *, final: bool = True) -> tuple[list[_Span], int]:
        """Find the secrets in `text[start:]`.

        Args:
            text: what to search; patterns may look back before `start`.
            start: where the search begins.
            final: whether this is all; otherwise more text will follow.

        Returns:
            Where the secrets are, in order and apart from each other; and from where on the text is undecided.
        """
        spans: list[_Span] = []
        undecided = len(text)
        for redactor in (*(p for p in _PATTERNS if p.hinted(text)), *self._extra):
            undecided = min(undecided, _search(redactor, text, start, final, spans))
        if not final and text.endswith(_OPEN_ENDS):
            undecided = min(undecided, _search(_ANY, text, max(start, len(text) - _LOOKBACK), final, []))
        return _merged(spans), undecided


BUILT_IN: Final = Rules()


def _search(redactor: Redactor, text: str, start: int, final: bool, spans: list[_Span]) -> int:
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
            spans.append(_Span(match.start(), match.end(), redactor.kind))
        start = match.end() if found else match.start() + 1
    return undecided


def _merged(spans: list[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start < merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def redact_text(text: str, rules: Rules = BUILT_IN) -> str:
    """Replace each secret in a text by its mark."""
    for span in reversed(rules.scan(text)[0]):
        text = text[: span.start] + span.mark + text[span.end :]
    return text


def redact_json(value: Any, rules: Rules = BUILT_IN) -> Any:
    """Copy a plain JSON value with each secret in its texts and keys replaced."""
    if isinstance(value, str):
        return redact_text(value, rules)
    if isinstance(value, Mapping):
        return {redact_json(key, rules): redact_json(item, rules) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_json(item, rules) for item in value]
    return value


class _Past(NamedTuple):
    """What is remembered of the events of a part that have left.

    `text` is the end of theirs, searched again from `scan` because a secret may have begun there; `marked` says that
    they already show its mark.
    """

    text: str = ""
    scan: int = 0
    marked: bool = False


class _PartView:
    """One part's share of the events at hand, as one text."""

    def __init__(self, past: _Past, rows: Sequence[int], tokens: Sequence[str], rules: Rules, final: bool) -> None:
        self._past = past
        self._rows = rows
        self._text = past.text + "".join(tokens)
        self._starts = list(accumulate(map(len, tokens), initial=len(past.text)))
        self._spans, self._undecided = rules.scan(self._text, past.scan, final=final)
        self._leave = self._undecided

    def first_held(self, otherwise: int) -> int:
        """Row of the first event that has to stay."""
        settled = max(0, bisect_right(self._starts, self._leave) - 1)
        return self._rows[settled] if settled < len(self._rows) else otherwise

    def give_up(self) -> None:
        """Let the undecided text leave: masked whole, unless nothing in it is secret yet."""
        stretch = self._text[self._undecided :]
        if stretch not in _OPENINGS and not (stretch.isdigit() and len(stretch) <= _PUBLIC_DIGITS):
            self._spans = _merged([*self._spans, _Span(self._undecided, len(self._text), "undecided")])
        self._leave = len(self._text)

    def mask(self, tokens: list[str]) -> set[int]:
        """Mask the first events, as many as `tokens` has, in place; return the rows that a secret touches."""
        touched = set()
        # From the end, so that what is replaced moves nothing that is still to be replaced.
        for start, end, mark in self._marks():
            first = bisect_right(self._starts, start) - 1
            for i in range(first, bisect_left(self._starts, end)):
                row = self._rows[i]
                if row >= len(tokens):
                    break
                begin = self._starts[i]
                shown = mark if i == first else ""
                tokens[row] = tokens[row][: max(0, start - begin)] + shown + tokens[row][end - begin :]
                touched.add(row)
        return touched

    def _marks(self) -> Iterable[tuple[int, int, str]]:
        for span in reversed(self._spans):
            if span.start >= len(self._past.text):
                yield span.start, span.end, span.mark
            elif span.end > len(self._past.text):
                yield len(self._past.text), span.end, "" if self._past.marked else span.mark

    def past(self, count: int) -> _Past:
        """What to remember once the first `count` rows have left."""
        gone = bisect_left(self._rows, count)
        if not gone:
            return self._past
        cut = self._starts[gone]
        begun = [span.start for span in self._spans if span.start < cut <= span.end]
        scan = min([cut, self._undecided, *begun])
        context = self._text[max(0, scan - _LOOKBACK) : scan]
        stretch = self._text[scan:cut]
        if len(stretch) > HOLD_CHARS:
            stretch = stretch[:_KEEP] + stretch[-_KEEP:]
        return _Past(context + stretch, len(context), bool(begun))


class CallRedactor:
    """Masks the token events of one call, on their way from the capture to every output.

    Times, part numbers and the number of events stay as they are. The first event that a secret touches holds the mark,
    the others lose what belongs to it.

    Args:
        rules: what to mask.
    """

    def __init__(self, rules: Rules = BUILT_IN) -> None:
        self._rules = rules
        self._held = TokenBatch((), (), (), ())
        self._pasts: dict[int, _Past] = {}

    def feed(self, batch: TokenBatch) -> TokenBatch:
        """Take the next events of the call.

        Args:
            batch: events with text.

        Returns:
            The events that may leave now, these or earlier ones, and the parts that `batch` announces.
        """
        return replace(self._advance(_joined(self._held, batch), final=False), parts=batch.parts)

    def finish(self) -> TokenBatch:
        """Return the events that were still held: no more text will come."""
        return self._advance(self._held, final=True)

    def _advance(self, events: TokenBatch, *, final: bool) -> TokenBatch:
        views = {part: self._view(events, part, final) for part in set(events.part)}
        leaving = _leaving(events, views)
        while leaving < len(events) and _held_too_long(events, leaving):
            views[events.part[leaving]].give_up()
            leaving = _leaving(events, views)
        self._held = _rebased(events, leaving, len(events))
        for part, view in views.items():
            self._pasts[part] = view.past(leaving)
        return _masked(_rebased(events, 0, leaving), views.values())

    def _view(self, events: TokenBatch, part: int, final: bool) -> _PartView:
        tokens = _texts(events)
        rows: Sequence[int] = range(len(events))
        if events.part.count(part) < len(events):
            rows = [row for row, owner in enumerate(events.part) if owner == part]
            tokens = [tokens[row] for row in rows]
        return _PartView(self._pasts.get(part, _Past()), rows, tokens, self._rules, final)


def _leaving(events: TokenBatch, views: Mapping[int, _PartView]) -> int:
    return min((view.first_held(len(events)) for view in views.values()), default=0)


def _held_too_long(events: TokenBatch, first: int) -> bool:
    too_old = events.offset_us[-1] - events.offset_us[first] > HOLD_US
    return too_old or sum(map(len, _texts(events)[first:])) > HOLD_CHARS


def _masked(events: TokenBatch, views: Iterable[_PartView]) -> TokenBatch:
    tokens = list(_texts(events))
    touched = set().union(*(view.mask(tokens) for view in views))
    if not touched:
        return events
    logprobs = {row: value for row, value in events.logprobs.items() if row not in touched}
    return replace(events, token=tokens, logprobs=logprobs)


def _texts(events: TokenBatch) -> Sequence[str]:
    # Only the level `timings` is without text, and it has no redactor.
    return cast("Sequence[str]", events.token)


def _joined(held: TokenBatch, batch: TokenBatch) -> TokenBatch:
    """`batch` behind the events still held."""
    if not len(held):
        return batch
    behind = len(held)
    return TokenBatch(
        [*held.offset_us, *batch.offset_us],
        [*held.wait_us, *batch.wait_us],
        [*held.part, *batch.part],
        [*held.token, *batch.token],
        {**held.n_tokens, **{row + behind: count for row, count in batch.n_tokens.items()}},
        {**held.logprobs, **{row + behind: value for row, value in batch.logprobs.items()}},
    )


def _rebased(events: TokenBatch, start: int, end: int) -> TokenBatch:
    """Events `start` to `end` of a batch, as a batch of their own."""
    if (start, end) == (0, len(events)):
        return events
    return TokenBatch(
        events.offset_us[start:end],
        events.wait_us[start:end],
        events.part[start:end],
        events.token[start:end],
        {row - start: count for row, count in events.n_tokens.items() if start <= row < end},
        {row - start: value for row, value in events.logprobs.items() if start <= row < end},
    )
