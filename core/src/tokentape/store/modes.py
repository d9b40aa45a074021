"""Who else on this machine may read a tape: its files are made for their owner alone, and may be found otherwise."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from ..settings import default_db
from .files import SIDES


def open_to_others(path: Path) -> list[str]:
    """The files of a tape that others can read or write, and its folder where they could replace them.

    Returns:
        The command that closes each; nothing where there are no modes.
    """
    return list(_commands(path)) if os.name == "posix" else []


def _commands(path: Path) -> Iterator[str]:
    for file in (Path(f"{path}{side}") for side in SIDES):
        if _mode(file) & 0o077:
            yield f"chmod 600 {shlex.quote(str(file))}"
    folder = path.absolute().parent
    mode = _mode(folder)
    # Our own is nobody's business; in another one the names of files may be known, as long as the files are closed.
    if mode & (0o077 if folder == default_db().parent else 0o022) and not mode & stat.S_ISVTX:
        yield f"chmod 700 {shlex.quote(str(folder))}"


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
