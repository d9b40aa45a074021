"""How soon the page of a call can be used in a browser, and how smoothly it plays and scrolls."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Row, best
from playwright.sync_api import Browser, sync_playwright

from browser import CHROMIUM, QUIET, pages
from calls_to_look_at import write
from handmade import Handmade
from tokentape.models import Part

ROUNDS = 5
LIMITS_MS = {10_000: 1_000.0, 100_000: 2_000.0}
WORDS = (" the", " of", " stream", ",", " token", " a", "\n", " tape", " ünder", " and")
PARTS = (Part(0, "reasoning"), Part(1, "text"))
# When everything is there and drawn: the list is the last element to be asked for.
READY = """() => new Promise(done => {
  const look = () => document.querySelectorAll(".is-live").length === 5
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
    : setTimeout(look, 5);
  look();
})"""
# Counts frames of 60 Hz that did not come while something goes on for some seconds.
FRAMES = """async what => {
  const { player, view } = document.querySelector("tape-list");
  player.set({ speed: 20 });
  if (what === "play") { player.seek(player.track.durationMs * 0.8); player.play(); }
  const times = [];
  await new Promise(done => {
    const frame = now => {
      times.push(now);
      if (what === "scroll") view.scrollTop += 300;
      if (now - times[0] < 4000) requestAnimationFrame(frame);
      else done();
    };
    requestAnimationFrame(frame);
  });
  player.pause();
  return 100 * Math.max(0, 1 - (times.length - 1) / ((times.at(-1) - times[0]) * 0.06));
}"""


def rows() -> Iterator[Row]:
    """Until usable, dropped frames, and the size of the scripts."""
    if CHROMIUM is None:
        yield Row("call page", None, 0.0, "ms", "Chromium was not found")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = _recorded(Path(folder))
        with pages(path) as site, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            for size, limit in LIMITS_MS.items():
                opened = [_open(browser, f"{site}/calls/{_uid(size)}") for _ in range(ROUNDS)]
                yield best(f"call page with {size:,} events, until it can be used", opened, limit, "ms")
            for what, said in {"play": "replay at 20×", "scroll": "list scrolling"}.items():
                dropped = [_dropped(browser, f"{site}/calls/{_uid(100_000)}", what) for _ in range(ROUNDS)]
                yield best(f"call page with 100,000 events, {said}: dropped frames", dropped, 5.0, "%")
            browser.close()


def _uid(size: int) -> str:
    return f"EVENTS{size:06}"


def _recorded(folder: Path) -> Path:
    made = Handmade(folder / "tape.db")
    made.run(ended_ms=1_000_000)
    for size in LIMITS_MS:
        events = [
            (300.0 + 10 * i + (2000 if i > size / 2 else 0), int(i > 100), WORDS[i * 7 % 10]) for i in range(size)
        ]
        write(made, _uid(size), events, PARTS, ended_ms=events[-1][0] + 10)
    made.close()
    return folder / "tape.db"


def _open(browser: Browser, url: str) -> float:
    page = browser.new_page()
    page.goto(url, wait_until="commit")
    took = page.evaluate(READY)
    page.close()
    return float(took)


def _dropped(browser: Browser, url: str, what: str) -> float:
    page = browser.new_page()
    page.goto(url)
    page.evaluate(READY)
    share = page.evaluate(FRAMES, what)
    page.close()
    return float(share)
