"""A real browser for tests of the pages: console errors and requests to anywhere else fail a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module, which are sync: its loop would be in the way of others."""
    if CHROMIUM is None:
        pytest.skip("Chromium was not found (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


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


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context of its own; it may read and write its clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def watch(context: BrowserContext) -> Iterator[Watch]:
    """Console errors and foreign requests of the test's pages; any that are left at its end fail it."""
    watch = Watch(context)
    yield watch
    assert watch.troubles == []


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Page:
    """A page on which nothing goes wrong unnoticed."""
    return context.new_page()


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core, got through npm into pytest's cache."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm was not found")
    folder = Path(request.config.cache.mkdir("axe"))
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if AXE.rpartition("@")[2] not in _version(script):
        command = [npm, "install", "--prefix", str(folder), "--no-save", "--ignore-scripts", "--no-audit", AXE]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return script.read_text("utf-8")


def _version(script: Path) -> str:
    return script.read_text("utf-8")[:60] if script.is_file() else ""


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core has to say against a page: rule, help and the elements it means."""
    page.evaluate(axe)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", list(RULES))["violations"]
    return [f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}" for one in found]
