"""The project that docs/writing-an-adapter.md writes: its files, put together from the blocks of the page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "writing-an-adapter.md"
SDK = ROOT / "tests" / "outside" / "acme.py"
# A block that says which file it belongs to.
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The text of each file by its name: blocks of one file stand below each other, as functions do."""
    blocks: dict[str, list[str]] = {}
    for name, code in BLOCK.findall(PAGE.read_text("utf-8")):
        blocks.setdefault(name, []).append(code)
    return {name: "\n\n".join(pieces) for name, pieces in blocks.items()}


def write(folder: Path) -> None:
    """Write the project into a folder, as somebody who follows the page does."""
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")


def install(project: Path, site: Path) -> None:
    """Install the project, and the SDK it is for, into a folder that is to be on the path."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(project)], check=True, timeout=120)
    shutil.copy(SDK, site)
