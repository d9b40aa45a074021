"""Regular expressions that users write: whether one can be used is found out before anything depends on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from regex import Pattern

# A search of such a text takes microseconds; one that takes this long, again and again, does not end.
TRIAL_S: Final = 0.05
_TRIALS: Final = 3
_TRIAL_CHARS: Final = 500
_MOST_LETTERS: Final = 40
# How an expression begins that starts with plain text, such as `EMP-`.
_PLAIN_START: Final = re.compile(r"[\w@:/# -]*")


def problem_with(expression: str) -> str | None:
    """Say why an expression for the `regex` library cannot be used, and what to do; None if it can.

    It is also tried on texts that are hard for expressions like it. That finds the common mistake, a repetition inside
    a repetition, and not every one that there is.
    """
    import regex

    try:
        pattern = regex.compile(expression)
    except (regex.error, RecursionError, OverflowError) as fault:
        return f"{fault}; correct the expression"
    hard = next((text for text in _hard_texts(expression) if not _ends(pattern, text)), None)
    if hard is not None:
        return f"a search in {hard[:12]!r}… does not end; write it without a repetition inside a repetition"
    return None


def _hard_texts(expression: str) -> Iterator[str]:
    """One character over and over, with something behind it that does not fit."""
    start = _PLAIN_START.match(expression)
    begin = start[0] if start is not None else ""
    for letter in dict.fromkeys(f"a0 A-.{expression[:_MOST_LETTERS]}"):
        for before in dict.fromkeys(("", begin)):
            yield f"{before}{letter * _TRIAL_CHARS}\0"


def _ends(pattern: Pattern[str], text: str) -> bool:
    # More than once: on a busy machine time passes in which nothing is searched.
    return any(_ends_in_time(pattern, text) for _ in range(_TRIALS))


def _ends_in_time(pattern: Pattern[str], text: str) -> bool:
    try:
        for partial in (False, True):
            pattern.search(text, partial=partial, timeout=TRIAL_S)
    except TimeoutError:
        return False
    return True
