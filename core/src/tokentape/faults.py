"""Where a fault of our own goes: to the log once, to `status()`, and never into the loop that reads a stream."""

from __future__ import annotations

import logging

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
    said = _counts.get(where, 0)
    _counts[where] = said + 1
    _last[where] = f"{type(fault).__name__}: {fault}"
    if is_strict():
        raise fault
    if not said:
        logger.warning("%s failed (%s); lost: %s. The program is not affected.", where, _last[where], lost)


def summary() -> dict[str, dict[str, object]]:
    """What has failed so far: for each place how often, and the last message."""
    return {where: {"count": count, "last": _last[where]} for where, count in _counts.items()}


def forget() -> None:
    """Start counting anew; called when recording starts."""
    _counts.clear()
    _last.clear()
