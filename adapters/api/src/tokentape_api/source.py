"""Where tapes to read come from: the API asks a source, and never knows whose connection it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeVar

from tokentape.errors import TapeError
from tokentape.tape import Tape

T = TypeVar("T")

CONNECTIONS: Final = 4
BUSY_MS: Final = 1000


class TapeSource(Protocol):
    """Something that runs queries on a tape.

    A source for connections of your own takes one for as long as the query runs, on a thread on which it may block:
    `return query(Tape.over(connection))`.
    """

    async def read(self, query: Callable[[Tape], T]) -> T:
        """Run a query on a thread, and give what it returns.

        Raises:
            TapeError: the tape cannot be read now.
        """
        ...


class FileSource:
    """A tape in a file, read over a few connections of its own; opened when it is first asked for.

    Args:
        path: the tape; it may be made, or replaced by another, later.
        connections: how many queries run at once.
    """

    def __init__(self, path: Path | str, *, connections: int = CONNECTIONS) -> None:
        self.path = Path(path)
        self._connections = connections
        self._threads: ThreadPoolExecutor | None = None
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: list[Tape] = []

    async def read(self, query: Callable[[Tape], T]) -> T:
        """Run a query on one of the source's threads, and give what it returns.

        Raises:
            TapeError: there is no tape, or it cannot be read now.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._connections, thread_name_prefix="tokentape-api")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)

    def close(self) -> None:
        """Close the file, when queries that run have ended; the next query opens it again."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        for tape in self._open:
            tape.close()
        self._open.clear()

    def _run(self, query: Callable[[Tape], T]) -> T:
        try:
            return query(self._tape())
        except TapeError as error:
            # Whoever asks over HTTP need not know where on this machine the file is.
            raise type(error)(str(error).replace(str(self.path), self.path.name)) from error

    def _tape(self) -> Tape:
        """This thread's tape; opened anew when the file at the path is another one by now."""
        tape: Tape | None = getattr(self._mine, "tape", None)
        file = self._identity()
        if tape is not None and self._mine.file == file:
            return tape
        self._forget(tape)
        tape = Tape.open(self.path, busy_ms=BUSY_MS)
        self._mine.tape, self._mine.file = tape, file
        with self._lock:
            self._open.append(tape)
        return tape

    def _forget(self, tape: Tape | None) -> None:
        self._mine.tape = None
        if tape is not None:
            with self._lock:
                self._open.remove(tape)
            tape.close()

    def _identity(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino
