"""Where a fault of our own goes: to the log once, to `status()`, and never into the loop that reads a stream."""

from __future__ import annotations

import logging
from types import TracebackType

from .settings import is_strict

logger = logging.getLogger("tokentape")

_counts: dict[str, int] = {}
_last: dict[str, str] = {}


def report(where: str, fault: BaseException, lost: str) -> None:
    """Say once per place what went wrong and what was lost by it; count the rest.

    Args:
        where: the plugin or part of tokentape that failed, e.g. `openai adapter`.
        fault: what it raised.
        lost: what is missing from the tape because of it.

    Raises:
        BaseException: `fault` itself, only under TOKENTAPE_STRICT=1.
    """
    what = f"{type(fault).__name__}: {fault}"
    is_first = _count(where, what)
    if is_strict():
        raise fault
    if is_first:
        logger.warning("%s failed (%s); lost: %s. The program is not affected.", where, what, lost)


def mention(where: str, what: str) -> None:
    """Say once per place what could not be recorded, though nothing of ours failed; count the rest.

    Args:
        where: what could not be recorded, e.g. `openai adapter, bytes that the program reads itself`.
        what: why, and what is missing.
    """
    if _count(where, what):
        logger.warning("%s: %s. The program is not affected.", where, what)


def _count(where: str, what: str) -> bool:
    """Note what happened in a place; whether it is the first time."""
    _counts[where] = _counts.get(where, 0) + 1
    _last[where] = what
    return _counts[where] == 1


class guard:  # noqa: N801 - reads as a statement: `with faults.guard("writer", "a batch"): …`
    """Reports what fails inside the block, and goes on after it.

    Args:
        where: the plugin or part of tokentape that may fail.
        lost: what is missing from the tape if it does.
    """

    __slots__ = ("_lost", "_where")

    def __init__(self, where: str, lost: str) -> None:
        self._where = where
        self._lost = lost

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception):
            return False
        report(self._where, exc, self._lost)
        return True


def summary() -> dict[str, dict[str, object]]:
    """What has failed so far: for each place how often, and the last message."""
    return {where: {"count": count, "last": _last[where]} for where, count in _counts.items()}


def forget() -> None:
    """Start counting anew; called when recording starts."""
    _counts.clear()
    _last.clear()
