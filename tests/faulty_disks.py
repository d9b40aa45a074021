"""Faults made for real: a lock that another process holds, a disk that is full, pages that are overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin immediate")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(tape: Path) -> Iterator[None]:
    """Nobody else can write to the tape inside the block."""
    command = [sys.executable, "-c", LOCK, str(tape)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            holder.communicate("")


class SmallDisk:
    """A file system of its own that can be filled.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (65_536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass  # full, as far as pieces of this size go

    def remount(self, mode: str) -> None:
        """Make it read-only, `ro`, or writable, `rw`."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[SmallDisk]:
    """A tmpfs; skips the test where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by the superuser alone")
    try:
        yield SmallDisk(folder)
    finally:
        deadline = time.monotonic() + 20
        while subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def overwrite(path: Path, start: int, end: int | None = None, byte: bytes = b"\xff") -> None:
    """Overwrite a file in place, from one position to before another, or to its end."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(byte * ((end or size) - start))
