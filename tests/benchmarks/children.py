"""Measurements that need a process of their own, which runs one of our functions and prints a number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDERS = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]


def measured(code: str) -> float:
    """What a fresh interpreter prints that runs this code.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    program = f"import sys; sys.path[1:1] = {FOLDERS!r}; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{code}: {done.stderr[-2000:]}")
    return float(done.stdout)
