"""One client's connection: bytes out at once, waits that end when the client leaves."""

from __future__ import annotations

import socket
import threading
import time

_WRITE_TIMEOUT_S = 60.0
# Socket timeouts are whole milliseconds, rounded up; the rest of a wait is slept.
_FINE_NS = 2_000_000
_POLL_S = 0.05


class ClientLeft(Exception):
    """The other side closed the connection, or the server is being closed."""


class Connection:
    """What a script needs of a socket.

    Every method raises `ClientLeft` once nobody is there any more.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, data: bytes) -> None:
        """Write everything, as one segment where it fits."""
        self._socket.settimeout(_WRITE_TIMEOUT_S)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ClientLeft from error

    def sleep_until(self, due_ns: int) -> None:
        """Wait for a moment of `time.perf_counter_ns()`; one that has passed costs one look at the socket."""
        self._watch(max(0, due_ns - time.perf_counter_ns() - _FINE_NS) / 1e9)
        time.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)

    def wait_for(self, event: threading.Event, timeout: float) -> bool:
        """Wait until another thread sets the event; False if it did not within the timeout (seconds)."""
        deadline = time.monotonic() + timeout
        while not event.wait(min(_POLL_S, max(0.0, deadline - time.monotonic()))):
            self._watch(0.0)
            if time.monotonic() >= deadline:
                return False
        return True

    def _watch(self, seconds: float) -> None:
        # A client sends nothing while it is being answered: whatever can be read is the end of the connection.
        self._socket.settimeout(seconds)
        try:
            gone = not self._socket.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            return
        except OSError as error:
            raise ClientLeft from error
        if gone:
            raise ClientLeft
