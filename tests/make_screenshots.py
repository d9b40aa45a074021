"""Takes the screenshots of the documentation from the real pages, on a tape of the demo: `make screenshots`."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sqlite_utils
from playwright.sync_api import Browser, Page, sync_playwright

from browser import CHROMIUM, QUIET, pages
from make_pictures import PICTURES, PROGRAM, printed
from programs import eventually
from tokentape.cli.demo import demo_rows
from tokentape.errors import TapeError
from tokentape.tape import Tape

# How long a page may take to fetch and draw what it shows.
DRAWN_MS = 1500
# How long the demo may take until its stream stalls.
DEMO_MS = 60_000


class Shot(NamedTuple):
    """One screenshot.

    Attributes:
        name: of its file.
        path: of the page, behind that of the first page.
        prepare: brings the page to where it is to be seen.
        size: of the window; what is shown is as high as the page, up to this.
        dark: whether the reader prefers a dark page.
    """

    name: str
    path: str
    prepare: Callable[[Page], object] = lambda page: None
    size: tuple[int, int] = (1240, 860)
    dark: bool = False


def half_way(page: Page) -> None:
    """Replay: as if it had been stopped in the middle."""
    # Keys belong to the player that has the focus.
    page.locator(":is(tape-replay, tape-race) button").first.focus()
    page.keyboard.press("5")
    page.evaluate("scrollTo(0, 0)")


def stalled(page: Page) -> None:
    """Live: the stream that stalls has begun."""
    page.get_by_role("link", name="demo-stall").wait_for(timeout=DEMO_MS)


def is_tape(path: Path) -> bool:
    """Whether there is a tape that can be read."""
    try:
        with Tape.open(path):
            return True
    except TapeError:
        return False


@contextmanager
def recording(tape: Path) -> Iterator[None]:
    """Another process records the demo to a new tape meanwhile."""
    command = [*PROGRAM, "demo", "--db", str(tape)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        eventually(partial(is_tape, tape), bool)
        yield
        program.terminate()


def run_of(tape: Path) -> str:
    """The run of the demo itself, which is inside that of its process."""
    db = sqlite_utils.Database(tape)
    (run,) = db.query("select uid from runs where name = 'demo'")
    db.close()
    return str(run["uid"])


def shots(tape: Path) -> list[Shot]:
    """What is shown, of the calls and the run of a demo."""
    rows = demo_rows(tape)
    of_scene = {row["scene"]: row["uid"] for row in rows}
    parallel = ",".join(row["uid"] for row in rows if row["scene"].startswith("parallel"))
    call = f"/calls/{of_scene['stall']}"
    return [
        Shot("timeline", f"/runs/{run_of(tape)}"),
        Shot("call", call, half_way, (1240, 1240)),
        Shot("call-dark", call, half_way, (1240, 1240), dark=True),
        Shot("call-small", call, half_way, (390, 860)),
        Shot("race", f"/race?calls={parallel}", half_way, (1240, 620)),
        Shot("models", "/models"),
    ]


def take(browser: Browser, address: str, shot: Shot) -> None:
    """Take one screenshot."""
    width, height = shot.size
    scheme = "dark" if shot.dark else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address + shot.path)
    page.wait_for_timeout(DRAWN_MS)
    shot.prepare(page)
    page.wait_for_timeout(DRAWN_MS)
    picture = PICTURES / f"{shot.name}.png"
    page.screenshot(path=picture)
    page.close()
    print(picture)


def main() -> None:
    """Take all of them."""
    if CHROMIUM is None:
        raise SystemExit("Chromium was not found; install it (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        tape = Path(folder) / "demo.db"
        printed(Path(folder), "demo", "--db", tape.name)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        with pages(tape) as address:
            for shot in shots(tape):
                take(browser, address, shot)
        new = Path(folder) / "live.db"
        with recording(new), pages(new) as address:
            take(browser, address, Shot("live", "/live", stalled, (1240, 620)))
        browser.close()


if __name__ == "__main__":
    main()
