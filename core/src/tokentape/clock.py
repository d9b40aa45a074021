"""The two clocks everything is measured with, as one value that tests can replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


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
