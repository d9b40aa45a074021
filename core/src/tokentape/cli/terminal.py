"""What reaches a terminal: recorded text made harmless, data on stdout, notes on stderr."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

# C0, DEL and C1; marks that turn the direction of writing; halves of surrogate pairs, which no encoding takes.
_UNSAFE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS: Final = re.compile(r"[ \t\r\n]+")
# As wide as anything we print: what is not a terminal gets whole lines.
_UNLIMITED: Final = 10_000


def safe(text: object) -> str:
    """Text as a terminal may see it: control characters escaped as in Python, line breaks and tabs kept."""
    return _UNSAFE.sub(_escaped, str(text))


def one_line(text: object) -> str:
    """Text as a terminal may see it, on one line: each run of line breaks, tabs and spaces is one space."""
    return safe(_BREAKS.sub(" ", str(text)))


def console() -> Console:
    """A console on stdout that takes no text for markup; what is not a terminal gets neither colour nor folding."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, in ASCII: whatever was recorded, no control character gets out."""
    click.echo(json.dumps(value, indent=2, default=str))


def note(text: str) -> None:
    """Say something to the person at the terminal, on stderr."""
    click.echo(one_line(text), err=True)


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
