"""Makes the pictures of the documentation from what the programs really print: `make pictures`."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

from tokentape.cli.demo import demo_rows

PICTURES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS = 100
ROWS = 40
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PROGRAM = (sys.executable, "-c", "from tokentape.cli import main; main()")


def printed(folder: Path, *arguments: str) -> str:
    """What `tokentape` prints in a terminal, with its colours."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PYTHONUTF8": "1"}
    command = [*PROGRAM, *arguments]
    # Notes and progress go nowhere: the picture is of what stays.
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=subprocess.DEVNULL) as program:
        os.close(theirs)
        text = read(ours)
    if program.returncode:
        raise SystemExit(f"tokentape {' '.join(arguments)} exited with {program.returncode}")
    return text.replace("\r\n", "\n")


def read(terminal: int) -> str:
    """Everything that is written to a terminal until nobody has it open any more."""
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            piece = b""  # how Linux says that the other side was closed
        if not piece:
            os.close(terminal)
            return b"".join(pieces).decode()
        pieces.append(piece)


def picture(shown: list[tuple[str, str]], title: str) -> str:
    """An SVG of a terminal in which commands were typed."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for command, text in shown:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(text), soft_wrap=False)
    return without_web_fonts(console.export_svg(title=title))


def without_web_fonts(svg: str) -> str:
    """Without the font that would be fetched from another host: one of the reader's own does."""
    return re.sub(r"@font-face\s*\{[^}]*\}\s*", "", svg).replace("Fira Code, monospace", FONTS)


def demo(folder: Path) -> str:
    """The demo's table, and the call that stalled."""
    table, _, _ = printed(folder, "demo", "--db", "demo.db").partition("\nGo on with:")
    stalled = next(row["uid"] for row in demo_rows(folder / "demo.db") if row["scene"] == "stall")
    # Enough of the uid to be the only one.
    show = ("show", stalled[:14], "--db", "demo.db")
    return picture(
        [("tokentape demo --db demo.db", table), (f"tokentape {' '.join(show)}", printed(folder, *show))], "tokentape"
    )


def main() -> None:
    """Make all of them."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (PICTURES / "demo.svg").write_text(demo(Path(folder)), "utf-8")
    print(PICTURES / "demo.svg")


if __name__ == "__main__":
    main()
