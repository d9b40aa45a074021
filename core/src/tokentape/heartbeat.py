"""Notices when an event loop was busy elsewhere: a timer on each loop that has open streams, and how late it fires.

Costs nothing per chunk. A late beat is a span of time in which the loop did not run; every call open on that loop gets
it.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from . import faults

if TYPE_CHECKING:
    from .call import CallRecorder

INTERVAL_S: Final = 0.05
# A timer is always a little late; what is less than this is the scheduler's, not somebody's.
TOLERANCE_NS: Final = 20_000_000

_beats: WeakKeyDictionary[asyncio.AbstractEventLoop, Heartbeat] = WeakKeyDictionary()


class Heartbeat:
    """Beats on one event loop for as long as calls are open on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak, because the registry below must not keep alive the loop that is its key.
        self._loop = weakref.ref(loop)
        self._calls: set[CallRecorder] = set()
        self._pending = False
        self._due_ns = 0

    def join(self, call: CallRecorder) -> None:
        """Let a call hear of blocked time; starts the beat with the first one."""
        self._calls.add(call)
        call.beat = self
        with _guard():
            if not self._pending:
                self._schedule(call.clock.monotonic_ns())

    def leave(self, call: CallRecorder) -> None:
        """The call has ended. May be called from any thread."""
        with _guard():
            self._note_lateness(call.clock.monotonic_ns())
        self._calls.discard(call)

    def _schedule(self, now_ns: int) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            self._due_ns = now_ns + int(INTERVAL_S * 1e9)
            self._pending = True
            loop.call_later(INTERVAL_S, self._beat)

    def _beat(self) -> None:
        self._pending = False
        calls = list(self._calls)
        with _guard():
            if calls:
                now = calls[0].clock.monotonic_ns()
                self._note_lateness(now)
                self._schedule(now)

    def _note_lateness(self, now_ns: int) -> None:
        if self._due_ns and now_ns - self._due_ns > TOLERANCE_NS:
            for call in list(self._calls):
                call.blocked.append((self._due_ns, now_ns))


def _guard() -> faults.guard:
    return faults.guard("heartbeat", "when the event loop was blocked")


def watch(call: CallRecorder) -> None:
    """Watch the event loop that runs here until the call ends; one that is not asyncio's cannot be watched.

    Args:
        call: one whose stream is read asynchronously. A synchronous stream holds up its loop by waiting, which is not
            to be mistaken for a loop that was busy elsewhere.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    beat = _beats.get(loop)
    if beat is None:
        beat = _beats[loop] = Heartbeat(loop)
    beat.join(call)
