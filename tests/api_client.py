"""Clients of the HTTP API: in this process, and over a server of its own, which can be listened to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from fastapi.testclient import TestClient

from programs import eventually
from tokentape_api import create_app


@contextmanager
def client(source: Any) -> Iterator[TestClient]:
    """The API on a tape, asked without a network."""
    with TestClient(create_app(source)) as client:
        yield client


def asking(api: TestClient) -> Callable[..., Any]:
    """A function that gives what the API answers at a path; it has to be data."""

    def get(path: str, **params: Any) -> Any:
        answer = api.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return get


@contextmanager
def serving(tape: Path, port: int | None = None) -> Iterator[Server]:
    """The API on a tape in a process of its own, as its README says."""
    server = Server(tape, port or free_port())
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def serving_here(source: Any) -> Iterator[str]:
    """The URL of the API on a thread of this process: there at once, for those who do not stop the server."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(source), port=0, log_level="warning", timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert eventually(lambda: server.started, bool)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """uvicorn with the API."""

    def __init__(self, tape: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = ["-m", "uvicorn", "--factory", "tokentape_api:app_from_environment", "--port", str(port)]
        self._process = subprocess.Popen(
            [sys.executable, *command, "--log-level", "warning"],
            env={**os.environ, "TOKENTAPE_DB": str(tape)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Return when it answers."""
        assert eventually(self._answers, bool, within=30), self._process.stderr

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._process.stderr.read()
        try:
            return httpx.get(f"{self.url}/v1/openapi.json").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> float:
        """End it as a service manager does; how many seconds that took."""
        started = time.monotonic()
        if self._process.poll() is None:
            self._process.terminate()
        _, said = self._process.communicate(timeout=30)
        assert "Traceback" not in said, said
        return time.monotonic() - started


@dataclass(frozen=True)
class Message:
    """One server-sent event, with when it came, in seconds since 1970."""

    name: str
    data: Any
    id: str
    at: float


@dataclass
class Listener:
    """Follows a live stream on a thread until it ends or is left."""

    url: str
    after: str | None = None
    header: str | None = None
    messages: list[Message] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    last_id: str | None = None
    status: int | None = None
    _leaving: bool = False
    _socket: socket.socket | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert eventually(lambda: self.last_id is not None or self.status not in {None, 200}, bool, within=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close the connection."""
        self._leaving = True
        if self._socket is not None:
            # Closing the client would wait until something is read.
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the server was faster
        self._thread.join(20)
        assert not self._thread.is_alive()

    def tokens(self) -> dict[str, list[str]]:
        """The text of the events of each call, in the order they were told."""
        found: dict[str, list[str]] = {}
        for message in list(self.messages):
            if message.name == "tokens":
                found.setdefault(message.data["call_uid"], []).extend(message.data["token"])
        return found

    def named(self, name: str) -> list[str]:
        """Uids of the calls that events of a name were about, in order."""
        return [message.data["uid"] for message in list(self.messages) if message.name == name]

    def _follow(self) -> None:
        params = {} if self.after is None else {"after": self.after}
        headers = {} if self.header is None else {"Last-Event-ID": self.header}
        try:
            with httpx.stream("GET", f"{self.url}/v1/live", params=params, headers=headers, timeout=30) as answer:
                self._socket = answer.extensions["network_stream"].get_extra_info("socket")
                self.status = answer.status_code
                self._read(answer.iter_lines())
        except (httpx.HTTPError, OSError):
            if not self._leaving:
                raise

    def _read(self, lines: Iterator[str]) -> None:
        fields: dict[str, str] = {}
        for line in lines:
            self.lines.append(line)
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and fields:
                # As in the standard: the id counts whether or not the event has data.
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    data = json.loads(fields["data"])
                    self.messages.append(Message(fields["event"], data, fields["id"], time.time()))
                fields = {}
            if self._leaving:
                return
