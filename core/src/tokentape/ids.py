"""Public ids: ULIDs, which sort by time and are safe in URLs and file names.

Written out here because every call makes one on the caller's thread, where a library's takes 9 µs and this takes 1.
The layout is https://github.com/ulid/spec: 48 bits of milliseconds and 80 of chance, in Crockford's base 32.
"""

from __future__ import annotations

import os
import time
from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two digits at a time halve the work.
_PAIRS: Final = tuple(high + low for high in _DIGITS for low in _DIGITS)
# A byte stands for the digit of its lowest five bits.
_DIGIT_OF_BYTE: Final = _DIGITS.encode() * 8
_CHANCE_DIGITS: Final = 16
# Asking the system costs up to 20 µs in a process with threads, so it is asked for many uids at once.
_POOL_UIDS: Final = 64
_pool: list[str] = []
if hasattr(os, "register_at_fork"):
    # A child would make the uids that its parent makes.
    os.register_at_fork(after_in_child=_pool.clear)


def new_uid() -> str:
    """A new ULID as 26 characters."""
    ms = time.time_ns() // 1_000_000
    pairs = _PAIRS
    when = pairs[ms >> 40 & 1023], pairs[ms >> 30 & 1023], pairs[ms >> 20 & 1023], pairs[ms >> 10 & 1023]
    return f"{''.join(when)}{pairs[ms & 1023]}{_chance()}"


def _chance() -> str:
    while True:
        try:
            return _pool.pop()
        except IndexError:
            digits = os.urandom(_CHANCE_DIGITS * _POOL_UIDS).translate(_DIGIT_OF_BYTE).decode()
            _pool.extend(digits[at : at + _CHANCE_DIGITS] for at in range(0, len(digits), _CHANCE_DIGITS))
