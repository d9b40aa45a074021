"""What tests of the pages in a real browser need: the pages themselves, and eyes for what goes wrong on them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from datasette.app import Datasette
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request

from programs import eventually

# Debian's; the browsers that Playwright would download are not used.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = "axe-core@4.14.1"
# What the pages promise: WCAG 2.2 at level AA, and what axe calls good practice.
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
LOOPBACK = {"127.0.0.1", "localhost"}


@contextmanager
def pages(*tapes: Path) -> Iterator[str]:
    """The pages of tapes, in Datasette on a thread: their address, without a slash at its end."""
    app = Datasette([str(tape) for tape in tapes]).app()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert eventually(lambda: server.started or not thread.is_alive(), bool, within=30)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/-/tokentape"
    server.should_exit = True
    thread.join(30)


class Watch:
    """What went wrong on a page so far. A test that provokes a fault looks here and clears the list."""

    def __init__(self, context: BrowserContext) -> None:
        self.troubles: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.troubles.append(f"uncaught: {error.error}"))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in {"http", "https"} and address.hostname not in LOOPBACK:
            self.troubles.append(f"request elsewhere: {request.url}")


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core has to say against a page: rule, help and the elements it means."""
    page.evaluate(axe)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", list(RULES))["violations"]
    return [f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}" for one in found]


def drag(slider: Locator, to: float) -> None:
    """Move a slider, as if somebody dragged it there."""
    slider.evaluate("(range, value) => { range.value = value; range.dispatchEvent(new Event('input')); }", to)
