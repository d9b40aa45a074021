"""Starts the program that is recorded and stands between it and the shell: signals in, exit code out, nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ..errors import TokentapeError

BOOTSTRAP: Final = str(Path(__file__).resolve().parent / "bootstrap")
# What somebody sends to us alone and means for the program. Ctrl-C reaches both: the terminal sends it to the group.
_FORWARDED: Final = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def recorded(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """An environment in which every Python starts recording.

    Args:
        environ: the environment as it is.
        variables: settings for the program and all it starts.
    """
    path = [BOOTSTRAP, *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, **variables, "PYTHONPATH": os.pathsep.join(path)}


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program to its end; its streams are ours.

    Returns:
        Its exit code as a shell gives it: 128 + n for a program that signal n has ended.

    Raises:
        TokentapeError: it cannot be started.
    """
    sys.stdout.flush()
    started: list[subprocess.Popen[bytes]] = []
    with _signals_for(started) as early:
        try:
            started.append(subprocess.Popen(argv, env=environ))  # noqa: S603  # what the user asked to run
        except OSError as error:
            raise TokentapeError(f"{argv[0]} cannot be started ({error.strerror}); check that it can be run") from None
        for number in early:
            started[0].send_signal(number)
        code = started[0].wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_for(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[Sequence[int]]:
    """Pass signals on and outlive Ctrl-C: how to take it is the program's business.

    Yields:
        Signals that came too early to be passed on.
    """
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if started:
            started[0].send_signal(number)
        else:
            early.append(number)

    handlers: dict[str, Any] = {**dict.fromkeys(_FORWARDED, forward), "SIGINT": lambda number, frame: None}
    before = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        # What is ignored here (by nohup, say) is ignored by the program too, and stays so. Handlers are not inherited.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield early
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
