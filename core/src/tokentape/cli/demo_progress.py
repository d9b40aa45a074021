"""What a demo shows while it runs: on a terminal the text as it comes, elsewhere a line for each scene."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from .terminal import note, one_line

if TYPE_CHECKING:
    from rich.progress import Progress

# Enters a scene by its title; inside, each piece of text is told to what that gave.
Show = Callable[[str], AbstractContextManager[Callable[[str], None]]]

SEEN: Final = 60


@contextmanager
def progress() -> Iterator[Show]:
    """Show the scenes that are played inside the block, on stderr; nothing of it stays on a terminal."""
    if not sys.stderr.isatty():
        yield _announced
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    spinner = SpinnerColumn(finished_text="✓")
    title, seen = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[seen]}", markup=False)
    with Progress(spinner, title, TimeElapsedColumn(), seen, console=Console(stderr=True), transient=True) as bars:
        yield lambda title: _watched(bars, title)


@contextmanager
def _announced(title: str) -> Iterator[Callable[[str], None]]:
    note(title)
    yield lambda text: None


@contextmanager
def _watched(bars: Progress, title: str) -> Iterator[Callable[[str], None]]:
    task = bars.add_task(title, total=1, seen="")
    seen = ""

    def said(text: str) -> None:
        nonlocal seen
        # The end of it, since that is where something happens.
        seen = one_line(seen + text)[-SEEN:]
        bars.update(task, seen=seen)

    yield said
    bars.update(task, completed=1)
