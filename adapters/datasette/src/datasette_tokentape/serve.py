"""`tokentape serve`: Datasette on one tape, for whoever sits at this machine, or for who has the link."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import uvicorn

from tokentape.cli.metadata import metadata
from tokentape.cli.options import db_option, example, opened
from tokentape.cli.terminal import note
from tokentape.errors import TokentapeError

from . import compat
from .access import is_loopback
from .login import Login
from .policy import BASE, Guard

if TYPE_CHECKING:
    from datasette.app import Datasette

HOST: Final = "127.0.0.1"
PORT: Final = 8001
# What is still being answered when the server stops gets this long.
GRACE_S: Final = 1


class CannotServe(TokentapeError):
    """The address cannot be used."""


@click.command("serve", epilog=example("tokentape serve --open"))
@db_option
@click.option("--host", default=HOST, show_default=True, metavar="H", help="Address to serve on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, metavar="N", help="0 takes a free one."
)
@click.option("--open", "opens_browser", is_flag=True, help="Open the pages in the browser.")
def command(db: str | None, host: str, port: int, opens_browser: bool) -> None:
    """Look at the tape in a browser: pages, API and all of Datasette.

    Nothing is written. On an address of this machine only, everybody who works at it may look; on any other one nobody
    may, but who logs in with the link that is printed, which works once.
    """
    with opened(db) as tape:
        path = tape.path
    with _listening(host, port) as listening:
        is_private = is_loopback(listening.getsockname()[0])
        datasette = open_datasette(path, is_private=is_private)
        url = _url(host, listening, datasette, is_private)

        def started() -> None:
            _announce(path, url, is_private)
            if opens_browser:
                # Some browsers only return when they are closed.
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        try:
            asyncio.run(_Server(_application(datasette, is_private), started).serve([listening]))
        except KeyboardInterrupt:
            pass  # how it is stopped


def open_datasette(path: Path, *, is_private: bool) -> Datasette:
    """Datasette on a tape, with limits that suit what is on it.

    Args:
        path: the tape.
        is_private: nobody but who works at this machine can reach it.
    """
    settings = {"allow_download": False, "default_allow_sql": is_private, "allow_csv_stream": is_private}
    return compat.open_datasette(path, settings, metadata(path.stem), None if is_private else {"id": compat.ROOT})


class _Server(uvicorn.Server):
    """A server that says when it answers, and keeps quiet else."""

    def __init__(self, app: Any, started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._is_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._is_started()


def _application(datasette: Datasette, is_private: bool) -> Any:
    app = datasette.app()
    return Guard(app if is_private else Login(app, datasette), datasette, everywhere=True)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        CannotServe: there is no such address here, or its port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotServe(f"there is no address {host!r} ({error.strerror}); the usual one is {HOST}") from error
    try:
        if sys.platform != "win32":
            # So that a port can be used again at once; on Windows it would let two programs use it together.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        raise CannotServe(
            f"port {port} of {host} cannot be used ({error.strerror}); choose another with --port N, or 0 for any"
        ) from error
    return found


def _url(host: str, listening: socket.socket, datasette: Datasette, is_private: bool) -> str:
    """What to open in a browser."""
    address, port = listening.getsockname()[:2]
    # An address that stands for all of this machine's leads nowhere else.
    name = socket.gethostname() if address in {"0.0.0.0", "::"} else host  # noqa: S104  # compared, not bound
    path = BASE if is_private else compat.login_path(datasette)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}{path}"


def _announce(path: Path, url: str, is_private: bool) -> None:
    note(f"Serving {path}; Ctrl-C stops it.")
    if not is_private:
        note("Whoever opens this link first is logged in; it works once, and what it opens is not encrypted:")
    click.echo(url)
