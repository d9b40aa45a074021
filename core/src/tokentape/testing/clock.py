"""A clock that tests move by hand."""

from __future__ import annotations

from ..clock import Clock

_NS_PER_S = 1_000_000_000
_WALL_START_S = 1_793_000_000


class FakeClock:
    """Makes a `Clock` whose two times stand still until a test moves them.

    Example:
        >>> fake = FakeClock()
        >>> clock = fake.clock
        >>> fake.advance(ms=20)
        >>> clock.monotonic_ns()
        20000000

    Args:
        monotonic_ns: where the monotonic time starts.
        unix_ns: where the wall time starts; the default is a fixed moment in October 2026.
    """

    def __init__(self, monotonic_ns: int = 0, unix_ns: int = _WALL_START_S * _NS_PER_S) -> None:
        self._monotonic_ns = monotonic_ns
        self._unix_ns = unix_ns
        self.clock = Clock(monotonic_ns=lambda: self._monotonic_ns, unix_ns=lambda: self._unix_ns)

    def advance(self, seconds: float = 0, *, ms: float = 0, us: float = 0) -> None:
        """Let time pass on both clocks.

        Raises:
            ValueError: the sum is negative; a monotonic clock never goes back.
        """
        passed = round(seconds * _NS_PER_S + ms * 1_000_000 + us * 1_000)
        if passed < 0:
            raise ValueError(f"FakeClock.advance: {passed} ns is negative; use shift_wall() to set the wall clock back")
        self._monotonic_ns += passed
        self._unix_ns += passed

    def shift_wall(self, seconds: float) -> None:
        """Set the wall clock forward or, with a negative number, back; the monotonic clock does not notice."""
        self._unix_ns += round(seconds * _NS_PER_S)
