"""The files of a tape: which one is at a path, making one while nobody moves it, and setting a damaged one aside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be moved anyway
    fcntl = None  # type: ignore[assignment]

# What SQLite keeps of one database, the database itself first.
SIDES: Final = ("", "-wal", "-shm")
# How long somebody else is waited for who makes or moves a tape in the same folder.
LOCK_S: Final = 1.0
_RETRY_S: Final = 0.005

Identity = tuple[int, int]


def identity(path: Path) -> Identity | None:
    """What tells the file at a path from another one that was there before, or will be; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@contextmanager
def folder_locked(folder: Path) -> Iterator[bool]:
    """Nobody else who uses this makes or moves a tape in the folder meanwhile.

    The folder itself is locked, so that no file is left behind. Where a folder cannot be locked, nothing is.

    Returns:
        Whether it came in time.
    """
    descriptor = _opened(folder)
    if descriptor is None:
        yield True
        return
    try:
        yield _lock(descriptor)
    finally:
        # By its name: a child that was forked meanwhile has the descriptor too, and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def make(path: Path) -> None:
    """Make an empty database, private from its first byte, unless there is one; `folder_locked` has to be around it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return  # and not opened here: closing a descriptor of a database drops the locks this process has on it
    os.close(descriptor)
    # Of a database that is gone; those who still have it open must not meet the new one in it.
    Path(f"{path}-shm").unlink(missing_ok=True)


def set_aside(path: Path, seen: Identity) -> Path | None:
    """Give a damaged database, with what belongs to it, a new name in its folder: `tape.db.corrupt-20261127-003355`.

    Connections to it have to be closed afterwards, not before: SQLite leaves a database alone that was moved, and would
    otherwise merge its write-ahead log into it, or remove the log at the old path, which may be another's by then.

    Args:
        path: where it is.
        seen: which one is damaged.

    Returns:
        Its new path; None if the file at the path is another one by now.

    Raises:
        OSError: it cannot be moved now.
    """
    with folder_locked(path.parent) as alone:
        if not alone:
            raise TimeoutError(f"another process is making or moving a tape in {path.parent}")
        if identity(path) != seen:
            return None
        target = _free(path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"))
        for side in SIDES:
            source = Path(f"{path}{side}")
            if source.exists():
                source.rename(f"{target}{side}")
        return target


def those_aside(path: Path) -> list[Path]:
    """Damaged databases that were set aside from a path, the oldest first."""
    try:
        found = [file for file in path.parent.iterdir() if file.name.startswith(f"{path.name}.corrupt-")]
    except OSError:
        return []
    return sorted(file for file in found if not file.name.endswith((*SIDES[1:], ".db")))


def _free(path: Path) -> Path:
    """The path, with a number behind it if something of that name exists."""
    candidate, number = path, 1
    while any(Path(f"{candidate}{side}").exists() for side in SIDES):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def _opened(folder: Path) -> int | None:
    if fcntl is None:
        return None
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:
        return None


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_RETRY_S)
        except OSError:
            return True  # a file system whose folders cannot be locked
