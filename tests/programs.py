"""Programs of their own: scripts in a fresh interpreter, recorded to a tape that the test can read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

# What a script that streams from the server of a test begins with.
CLIENT = """
import os, sys, time
import openai, tokentape

client = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)

def ask(model="gpt-x"):
    return client.chat.completions.create(model=model, messages=[], stream=True)

def take(stream, count):
    for _ in range(count):
        next(stream)
"""


class Program:
    """One script and its tape.

    Args:
        folder: where both are.
        code: the script's text.
        name: the script's file name.
        server: URL of a provider, for `CLIENT`.
        environment: more variables.
    """

    def __init__(
        self,
        folder: Path,
        code: str,
        *,
        name: str = "program.py",
        server: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.tape = folder / "tape.db"
        self._script = folder / name
        self._script.write_text(textwrap.dedent(code), encoding="utf-8")
        self._environment = {**os.environ, "SERVER": server, "TOKENTAPE_DB": str(self.tape), **(environment or {})}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start it, by default with this interpreter."""
        return subprocess.Popen(
            [*(command or (sys.executable,)), str(self._script)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with self.start(*command) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a query finds on the tape."""
        return read(self.tape, sql)


def read(tape: Path, sql: str) -> list[dict[str, Any]]:
    """What a query finds on a tape now, whatever its writer still holds."""
    with closing(sqlite3.connect(f"{tape.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def eventually(look: Callable[[], Any], until: Callable[[Any], bool], within: float = 10.0) -> Any:
    """Look again and again until what is seen is right, or the time (seconds) is over; what was seen last."""
    deadline = time.monotonic() + within
    while not until(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return seen
