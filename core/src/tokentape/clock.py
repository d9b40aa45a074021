"""The two clocks everything is measured with, as one value that tests can replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Clock:
    """A monotonic clock for durations and a wall clock for the one anchor of each call.

    Attributes:
        monotonic_ns: nanoseconds that never go back; their zero means nothing.
        unix_ns: nanoseconds since 1970-01-01 UTC.
    """

    monotonic_ns: Callable[[], int] = time.perf_counter_ns
    unix_ns: Callable[[], int] = time.time_ns


SYSTEM_CLOCK = Clock()
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # naive, so that the text ends in our Z and not in +00:00


def utc_text(unix_us: int) -> str:
    """A moment as UTC text of 27 characters, such as `2026-11-23T18:00:00.000000Z`.

    Args:
        unix_us: whole microseconds since 1970-01-01 UTC.
    """
    return (_EPOCH + timedelta(microseconds=unix_us)).isoformat(timespec="microseconds") + "Z"


def unix_us(at: str) -> int:
    """Microseconds since 1970 of a time as `utc_text` writes it."""
    return (datetime.fromisoformat(at.removesuffix("Z")) - _EPOCH) // timedelta(microseconds=1)
