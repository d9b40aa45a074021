"""Fixtures for tests of the pages in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from browser import AXE, CHROMIUM, QUIET, Watch, pages
from handmade import Handmade

# No test depends on how busy the machine is.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module, which are sync: its loop would be in the way of others."""
    if CHROMIUM is None:
        pytest.skip("Chromium was not found (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(made: Handmade) -> Iterator[str]:
    """Where the pages are of the tape that the test's own module has made."""
    with pages(made.path) as site:
        yield site


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context of its own; it may read and write its clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE_MS)
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
