"""Who recorded something, and whether that process is still there."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from .clock import utc_text
from .models import Process

# A process of another host counts as gone when nothing was heard of it for this long.
UNSEEN_AFTER: Final = timedelta(minutes=10)
# The kernel's idea of when it booted moves by up to a second when the wall clock is adjusted.
START_TOLERANCE: Final = timedelta(seconds=2)
# State letters of /proc/<pid>/stat for a process that has ended and was not yet collected by its parent.
ENDED_STATES: Final = frozenset("ZXx")


def this_process(name: str) -> Process:
    """Describe the running process.

    Args:
        name: base name of the script; never arguments, environment or folder.
    """
    pid = os.getpid()
    return Process(
        host=platform.node(),
        boot_id=boot_id(),
        pid=pid,
        pid_started_at=_started_at(pid),
        name=name,
        started_at=utc_text(time.time_ns() // 1000),
    )


def is_alive(row: Mapping[str, Any], now: datetime | None = None) -> bool:
    """Whether the process of a row of `processes` is still there; True where that cannot be told.

    Args:
        row: a row of `processes`; `host`, `boot_id`, `pid`, `pid_started_at` and `last_seen_at` are looked at.
        now: the time to compare `last_seen_at` with; the current time unless told otherwise.
    """
    if (row["host"], row["boot_id"]) == (platform.node(), boot_id()) and os.name == "posix":
        return _has_pid(row["pid"]) and _started_then(row["pid"], row["pid_started_at"])
    return (now or datetime.now(UTC)) - datetime.fromisoformat(row["last_seen_at"]) < UNSEEN_AFTER


@cache
def boot_id() -> str | None:
    """One boot of this host, and within it the namespace in which pids mean something; None where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Containers share the kernel, and sometimes the host name, but number their processes apart.
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _has_pid(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # there, and somebody else's
    stat = _stat(pid)
    return stat is None or stat[0] not in ENDED_STATES


def _started_then(pid: int, recorded: str | None) -> bool:
    started = _started_at(pid)
    if started is None or recorded is None:
        return True
    return abs(datetime.fromisoformat(started) - datetime.fromisoformat(recorded)) <= START_TOLERANCE


def _started_at(pid: int) -> str | None:
    stat = _stat(pid)
    booted_s = _booted_s() if stat is not None else None
    if stat is None or booted_s is None:
        return None
    ticks = int(stat[19])
    return utc_text(booted_s * 1_000_000 + ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"))


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on: the name before it may hold spaces and brackets."""
    if sys.platform != "linux":
        return None
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _booted_s() -> int | None:
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), None)
