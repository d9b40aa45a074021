"""An output that writes all it is told to a file, as an exporter would, and what a tape's files hold, byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokentape
from tokentape.models import Call, FinishedCall, Mark, Run, TokenBatch


class FileSink:
    """Hears everything that leaves the writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[Any] = []

    @tokentape.hookimpl
    def tokentape_run_started(self, run: Run) -> None:
        self._held.append(run)

    @tokentape.hookimpl
    def tokentape_call_started(self, call: Call) -> None:
        self._held.append(call)

    @tokentape.hookimpl
    def tokentape_tokens(self, tokens: TokenBatch) -> None:
        self._held.append((tokens.token, tokens.logprobs, tokens.parts))

    @tokentape.hookimpl
    def tokentape_call_finished(self, call: FinishedCall) -> None:
        self._held.append(call)

    @tokentape.hookimpl
    def tokentape_mark(self, mark: Mark) -> None:
        self._held.append(mark)

    @tokentape.hookimpl
    def tokentape_run_finished(self, run: Run) -> None:
        self._held.append(run)

    @tokentape.hookimpl
    def tokentape_flush(self) -> None:
        with self.path.open("a", encoding="utf-8", errors="surrogatepass") as file:
            file.writelines(f"{one!r}\n" for one in self._held)
        self._held.clear()


def raw_bytes(tape: Path) -> bytes:
    """All that is in the files of a tape: database, write-ahead log, free pages."""
    return b"".join(path.read_bytes() for path in sorted(tape.parent.glob(f"{tape.name}*")))
