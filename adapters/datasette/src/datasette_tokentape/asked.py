"""What the query of a page asks for; every value that cannot be used is told by name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tokentape.clock import unix_us
from tokentape_api.problems import Invalid

if TYPE_CHECKING:
    from datasette.utils.asgi import Request

LONGEST: Final = 200
_SHOWN: Final = 80


def text(request: Request, name: str) -> str | None:
    """A piece of text; None where nothing is asked for.

    Raises:
        Invalid: it is too long.
    """
    found = (request.args.get(name) or "").strip()
    if len(found) > LONGEST:
        raise Invalid(name, f"at most {LONGEST} characters")
    return found or None


def one_of(request: Request, name: str, choices: Sequence[str]) -> str | None:
    """One of some words; None where nothing is asked for.

    Raises:
        Invalid: it is another.
    """
    found = text(request, name)
    if found is not None and found not in choices:
        raise Invalid(name, f"one of {', '.join(choices)}, not {found[:_SHOWN]!r}")
    return found


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        Invalid: it is none, or outside of them.
    """
    found = text(request, name)
    if found is None:
        return default
    if not (found.removeprefix("-").isdecimal() and found.isascii() and least <= int(found) <= most):
        raise Invalid(name, f"a whole number from {least} to {most}, not {found[:_SHOWN]!r}")
    return int(found)


def moment(request: Request, name: str) -> int | None:
    """A time as microseconds since 1970, in UTC unless it says otherwise; None where nothing is asked for.

    Raises:
        Invalid: it is no time.
    """
    found = text(request, name)
    if found is None:
        return None
    try:
        at = datetime.fromisoformat(found)
        return unix_us((at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at).isoformat())
    except (ValueError, OverflowError):
        raise Invalid(name, f"a time such as 2026-11-23T18:00, not {found[:_SHOWN]!r}") from None
