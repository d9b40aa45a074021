"""What recording adds in instructions, which repeat on a machine where times do not: real chat chunks, really parsed.

Under callgrind one process imports everything, then forks one child for each measurement. Children differ only in how
much they read and whether it is recorded, so differences between them are free of everything else. There is no writer:
what it does, it does on a thread of its own.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

from harness import Row, shown

FEW, MANY = 50, 250
MODES = ("bare", "recorded")
LIMIT_PERCENT = 2.0


def rows() -> Iterator[Row]:
    """Added instructions per chunk, and in percent of what the SDK needs for it."""
    what, more = "added per chunk, chat, sync: instructions", "of the SDK's own"
    if shutil.which("valgrind") is None:
        yield Row(f"{what}, {more}", None, LIMIT_PERCENT, "%", "valgrind is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        started = [_start(Path(folder) / str(run)) for run in range(2)]
        counts = [_counts(process, path) for process, path in started]
    own = [(run["bare", MANY] - run["bare", FEW]) / (MANY - FEW) for run in counts]
    both = [(run["recorded", MANY] - run["recorded", FEW]) / (MANY - FEW) for run in counts]
    (first, second) = ((with_us - alone) for with_us, alone in zip(both, own, strict=True))
    spread = f"{shown(first)} and {shown(second)} in two runs, on {shown(own[0])} of the SDK's own"
    yield Row(f"{what}, {more}", 100 * first / own[0], LIMIT_PERCENT, "%", spread)


def _start(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    folder.mkdir()
    command = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/%p", sys.executable, __file__)
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, folder


def _counts(process: subprocess.Popen[str], folder: Path) -> dict[tuple[str, int], int]:
    """Instructions of each child, by mode and number of chunks."""
    printed, complaints = process.communicate()
    if process.returncode:
        raise RuntimeError(f"callgrind failed: {complaints[-2000:]}")
    counts = {}
    for line in printed.splitlines():
        mode, chunks, pid = line.split()
        profile = (folder / pid).read_text()
        counts[mode, int(chunks)] = int(re.findall(r"^(?:totals|summary): (\d+)", profile, re.MULTILINE)[-1])
    return counts


def _under_callgrind() -> None:
    import answers

    _read(answers, FEW)
    # A full collection of everything that was imported would hide what a chunk takes.
    gc.collect()
    gc.freeze()
    for mode in MODES:
        for chunks in (FEW, MANY):
            pid = os.fork()
            if not pid:
                if mode == "recorded":
                    _record()
                _read(answers, chunks)
                os._exit(0)
            os.waitpid(pid, 0)
            print(mode, chunks, pid, flush=True)


def _record() -> None:
    """Connect the adapter to a recorder that nobody empties."""
    import tokentape_openai
    from tokentape.recorder import Recorder

    run = SimpleNamespace(uid="run", last_call=None)
    tokentape_openai.tokentape_install(Recorder(process_run=lambda: run, notify=lambda: None))


def _read(answers: ModuleType, chunks: int) -> None:
    with answers.client(chunks) as client:
        for _ in answers.chat(client):
            pass


if __name__ == "__main__":
    _under_callgrind()
