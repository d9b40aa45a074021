"""What counts as a secret: the built-in patterns, those that are asked for, and the shape of those that are added."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import not_
from typing import Final, Protocol

from regex import Pattern as Compiled
from regex import compile as compile_pattern
from regex import error as PatternError  # noqa: N812 - beside our own Pattern


class Redactor(Protocol):
    """What finds one kind of secret."""

    @property
    def kind(self) -> str:
        """Goes into the mark, `[redacted:KIND]`."""

    @property
    def pattern(self) -> Compiled[str]:
        """An expression of the `regex` library, which can tell that a text ends within a match.

        A match should end where its run of characters ends: it is taken as complete as soon as other text follows.
        """

    def is_secret(self, match: str) -> bool:
        """Decide about a match what an expression cannot, such as a check digit."""


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

    def is_secret(self, match: str) -> bool:
        """Take every match for a secret."""
        return True


def _never(undecided: str) -> bool:
    return False


@dataclass(frozen=True)
class BuiltIn(Pattern):
    """A pattern that is only searched where a cheap look finds a hint of it.

    Args:
        hinted: the cheap look.
        check: decides about a match.
        may_go_on: whether the match behind which this is all that has come could still become longer.
        is_harmless: whether this much of an undecided match may be shown.
    """

    hinted: Callable[[str], object]
    check: Callable[[str], bool] = bool
    may_go_on: Callable[[str], object] = not_
    is_harmless: Callable[[str], bool] = _never

    def is_secret(self, match: str) -> bool:
        """Check what the expression left open."""
        return self.check(match)


def _any_of(*hints: str) -> Callable[[str], bool]:
    return lambda text: any(hint in text for hint in hints)


def _passes_luhn(card: str) -> bool:
    digits = [int(c) for c in reversed(card) if c.isdigit()]
    return sum(digits[::2] + [sum(divmod(2 * d, 10)) for d in digits[1::2]]) % 10 == 0


def _looks_random(bearer: str) -> bool:
    token = bearer.rsplit(maxsplit=1)[-1]
    return len(token) > len("responsibilities") or any(c.isdigit() for c in token)


_KEYS: Final = (
    *("sk-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "gsk_", "csk-", "xai-", "pplx-", "nvapi-"),
    *("hf_", "r8_", "tgp_v1_", "lsv2_", "pcsk_", "tvly-", "AIza", "ya29.", "AKIA", "ASIA", "dop_v1_", "shpat_"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "pypi-AgE"),
    *("xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-", "xapp-"),
)
_BEARER: Final = ("Bearer", "bearer", "BEARER")
# The letters of a JSON escape (`\nsk-…` in a tool's arguments) do not belong to the word behind it.
_CODE: Final = r"u[0-9a-fA-F]{4}"
_ESCAPE: Final = rf"(?<=\\(?:[bfnrt]|{_CODE}))"
_START: Final = rf"(?:(?<![A-Za-z0-9])|{_ESCAPE})"
_PEM: Final = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PEM_BODY: Final = r"A-Za-z0-9+/=\s\\:.,-"
PATTERNS: Final = (
    BuiltIn("api_key", rf"{_START}(?:{'|'.join(map(re.escape, _KEYS))})[A-Za-z0-9_-]{{16,}}", _any_of(*_KEYS)),
    BuiltIn(
        "bearer_token",
        rf"{_START}(?:{'|'.join(_BEARER)})[ \t]{{1,4}}[A-Za-z0-9._~+/=-]{{8,}}",
        _any_of(*_BEARER),
        _looks_random,
    ),
    BuiltIn(
        "private_key",
        rf"-----BEGIN {_PEM}[{_PEM_BODY}]{{16,}}?(?:-----END {_PEM}|(?=[^{_PEM_BODY}])|\Z)",
        _any_of("-----BEGIN"),
    ),
    BuiltIn(
        "jwt", rf"(?:(?<![A-Za-z0-9_-])|{_ESCAPE})eyJ(?:[A-Za-z0-9_-]{{8,}}+\.){{2}}[A-Za-z0-9_.-]*", _any_of("eyJ")
    ),
    BuiltIn(
        "connection_string",
        r"""(?<=://)[^\s/:@"'`<>]{0,128}:[^\s/@"'`<>]{1,256}@[^\s/"'`<>]*""",
        _any_of("://"),
    ),
    BuiltIn(
        "card_number",
        rf"(?=[2-6])(?:(?<![0-9])(?<![0-9]\.)|(?<=\\{_CODE}))"
        r"(?:[2-6][0-9]{12,18}|3[0-9]{3}(?P<sep>[ -])[0-9]{6}(?P=sep)[0-9]{5}"
        r"|[2-6][0-9]{3}(?P<gap>[ -])(?:[0-9]{4}(?P=gap)){2}[0-9]{4})(?![0-9])",
        re.compile("[2-6](?:[ -]?[0-9]){12}").search,
        _passes_luhn,
    ),
)
ANY: Final = compile_pattern("|".join(f"(?:{p.regex})" for p in PATTERNS))
_HINTS: Final = (*_KEYS, *_BEARER, "-----BEGIN", "eyJ", "://")
# How text ends that breaks off before the hint is complete, or within the digits of a card.
OPENINGS: Final = frozenset(hint[:length] for hint in _HINTS for length in range(1, len(hint) + 1))
OPEN_ENDS: Final = (*OPENINGS, *(f"{digit}{gap}" for digit in range(10) for gap in ("", " ", "-")))

# The issuer's number, which is no secret: a year that ends a part is not masked for being the first digits of a card.
PUBLIC_DIGITS: Final = 6


def _has_few_digits(text: str) -> bool:
    return sum(map(str.isdigit, text)) <= PUBLIC_DIGITS


_MAIL: Final = r"\w.%+'-"
_PHONE_GAP: Final = " ./()-"
# Kinds that are masked where they are asked for: names and numbers that many programs are about.
OPTIONAL: Final[Mapping[str, BuiltIn]] = {
    "email": BuiltIn(
        "email",
        rf"(?:(?<![{_MAIL}])(?!(?<=\\)(?:[bfnrt]|{_CODE}))|{_ESCAPE})[{_MAIL}]++"
        r"@(?:[\w-]++\.)+[^\W\d_]{2}[\w-]*+(?:\.[\w-]++)*+",
        re.compile(rf"@|[{_MAIL}]\Z").search,
        may_go_on=("", ".").__contains__,
        is_harmless=lambda undecided: "@" not in undecided,
    ),
    "phone": BuiltIn(
        "phone",
        rf"(?:(?<![\w.+])|{_ESCAPE})(?:(?:\+|00)[1-9](?:[{_PHONE_GAP}]{{0,2}}[0-9]){{6,14}}"
        r"|\(?[2-9][0-9]{2}\)?[ .-][0-9]{3}[ .-][0-9]{4}"
        r"|\(?0[1-9][0-9]{1,4}\)?[ /-]{1,3}[0-9](?:[ -]?[0-9]){4,9})(?![0-9])",
        re.compile(rf"[0-9](?:[{_PHONE_GAP}]{{0,3}}[0-9]){{5}}|[+0-9({_PHONE_GAP}]\Z").search,
        may_go_on=re.compile(f"[{_PHONE_GAP}]*").fullmatch,
        is_harmless=_has_few_digits,
    ),
}


def chosen(items: Iterable[str]) -> list[Pattern]:
    """The patterns that the setting `redact` asks for.

    Args:
        items: each the name of an optional kind, or `KIND=EXPRESSION`.
    """
    named = (item.partition("=") for item in items)
    return [Pattern(kind, expression) if equals else OPTIONAL[kind] for kind, equals, expression in named]
