"""Lets the program have the interpreter while a background thread works.

A thread that waits for the interpreter asks for it after 5 ms (`sys.getswitchinterval`). Releasing it for the moments
that a statement takes in SQLite does not help: before the other thread is awake, it is taken again. Only sleeping does.
"""

from __future__ import annotations

import threading
import time
from typing import Final

# After so long on the interpreter a thread lets others have it, for at least so long.
HELD_S: Final = 0.0001
GIVE_WAY_S: Final = 0.00005
# Beside a thread that computes it is had back after 5 ms only: then it is kept for so much of what the wait took, or
# the work would take fifty times as long as without that thread.
FAIR_SHARE: Final = 0.5
# Beside threads that compute, getting it back takes all of their turns: then nobody is helped by giving it away soon.
CROWDED_S: Final = 0.02
CROWDED_FOR_S: Final = 1.0


class _Turn(threading.local):
    """Until when a thread need not give way, and whether that is because of a crowd."""

    until_s = 0.0
    is_crowded = False


_turn = _Turn()


def give_way() -> None:
    """Let others have the interpreter, if this thread has had it for long enough.

    To be called between pieces of work of well under a millisecond, with nothing held that others wait for.
    """
    now = time.perf_counter()
    if now < _turn.until_s:
        return
    time.sleep(GIVE_WAY_S)
    back = time.perf_counter()
    waited = back - now
    _turn.is_crowded = waited > CROWDED_S
    _turn.until_s = back + (CROWDED_FOR_S if _turn.is_crowded else max(HELD_S, FAIR_SHARE * waited))


def is_crowded() -> bool:
    """Whether this thread had to wait long for the interpreter when it last gave way."""
    return _turn.is_crowded
