"""What `tokentape run` is to start: a script, a module, or a command of some environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import TokentapeError

_PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*(\.exe)?")
_SCRIPTS: Final = frozenset({".py", ".pyw", ".pyz"})
# Without the empty entry that `-c` puts first: a folder here that happens to be called tokentape is not the package.
_HAS_TOKENTAPE: Final = "import sys; sys.path = [entry for entry in sys.path if entry]; import tokentape"
_CHECK_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """A program to start.

    Attributes:
        argv: the whole command line.
        name: what to call it; never its folder or arguments.
    """

    argv: Sequence[str]
    name: str


def find(words: Sequence[str], as_module: bool) -> Target:
    """Find out what is meant.

    Args:
        words: script, module or command, and its arguments.
        as_module: the first word is the name of a module.

    Raises:
        TokentapeError: there is no such script or command.
    """
    what, *arguments = words
    if as_module:
        return Target([sys.executable, "-m", *words], what)
    path = Path(what)
    if path.suffix in _SCRIPTS or (path / "__main__.py").is_file():
        if not path.exists():
            raise TokentapeError(f"{what}: there is no such script; check its path")
        return Target([sys.executable, *words], path.name)
    command = shutil.which(what)
    if command is None:
        raise TokentapeError(f"{what}: command not found; name a script, -m and a module, or a command on the PATH")
    return Target([command, *arguments], path.name)


def require_tokentape(program: Target) -> None:
    """Refuse a command whose own environment cannot record it.

    Raises:
        TokentapeError: it is in Python, and its interpreter finds no tokentape.
    """
    interpreter = interpreter_of(Path(program.argv[0]))
    if interpreter is None or _is_ours(interpreter) or _has_tokentape(interpreter):
        return
    environment = interpreter.parent.parent
    install = f'{shlex.quote(str(interpreter))} -m pip install "tokentape[all]"'
    raise TokentapeError(
        f"{program.name} belongs to {environment}, where tokentape is not installed; install it: {install}"
    )


def interpreter_of(command: Path) -> Path | None:
    """The Python that a command runs in, as far as its first lines tell; None for what is no Python script."""
    if _PYTHON.fullmatch(command.name):
        return command
    try:
        with command.open("rb") as file:
            lines = file.read(4096).decode("utf-8", "replace").splitlines()
        words = shlex.split(lines[0].removeprefix("#!")) if lines and lines[0].startswith("#!") else []
        if words and Path(words[0]).name == "sh":
            # How pip writes a path too long for a first line: '''exec' /path/to/python "$0" "$@"
            words = shlex.split(lines[1]) if lines[1:] and lines[1].startswith("'''exec'") else []
    except (OSError, ValueError):
        return None
    return next((found for word in words if (found := _python(word)) is not None), None)


def _python(word: str) -> Path | None:
    if not _PYTHON.fullmatch(Path(word).name):
        return None
    found = shutil.which(word)  # a bare name is the argument of `env`
    return Path(found) if found is not None else None


def _is_ours(interpreter: Path) -> bool:
    """Whether it is this environment's: same folder and same binary; environments share binaries, but no folders."""
    ours = Path(sys.executable)
    return interpreter.parent.resolve() == ours.parent.resolve() and interpreter.resolve() == ours.resolve()


def _has_tokentape(interpreter: Path) -> bool:
    try:
        asked = subprocess.run(  # noqa: S603  # the interpreter of what the user asked to run
            [interpreter, "-c", _HAS_TOKENTAPE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_TIMEOUT_S,
            env=os.environ,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True  # nothing is known; the program itself will say what is wrong
    return asked.returncode == 0
