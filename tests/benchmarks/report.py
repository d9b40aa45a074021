"""Shows measurements beside their limits, and writes them to docs/performance.md with the machine they were made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from harness import Row, shown
from rich.console import Console
from rich.table import Table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
INTRODUCTION = """# Performance

What recording costs, as differences to the bare SDK measured in turns within one run (`make bench`): the machine is
shared and noisy, so a difference says more than a time. Where a limit is missed, the table says so.

A share is of what a chunk costs a program that records nothing, parsing included; read through a framework, of what
that and the SDK beneath it take together. It is in processor time, and with only the adapter in question switched on.
"""
MEASURED = ("openai", "anthropic", "langchain-core", "llama-index-core")


class Machine:
    """Where the measurements were made, and how busy it was meanwhile."""

    def __init__(self) -> None:
        self._before = os.getloadavg()[0]
        self._after = self._before

    def look_again(self) -> None:
        """Note the load at the end."""
        self._after = os.getloadavg()[0]

    def __str__(self) -> str:
        return (
            f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
            f"{', '.join(f'{name} {version(name)}' for name in MEASURED)}; "
            f"load {self._before:.1f} at the start, {self._after:.1f} at the end"
        )


def show(rows: list[Row], machine: Machine) -> None:
    """Print the table."""
    table = Table("what", "measured", "limit", "", "spread", title=str(machine))
    for row in rows:
        table.add_row(row.what, *_cells(row))
    Console().print(table)


def write(rows: list[Row], machine: Machine) -> None:
    """Write docs/performance.md anew."""
    lines = [f"| {row.what} | {' | '.join(_cells(row))} |" for row in rows]
    head = "| what | measured | limit | | spread |\n|---|---|---|---|---|"
    PAGE.write_text("\n".join([INTRODUCTION, f"Measured on {machine}.\n", head, *lines, ""]), encoding="utf-8")


def _cells(row: Row) -> tuple[str, str, str, str]:
    measured = "–" if row.measured is None else f"{shown(row.measured)} {row.unit}"
    limit = f"{'≥' if row.at_least else '≤'} {shown(row.limit)} {row.unit}"
    verdict = {True: "ok", False: "**missed**", None: "not measured"}[row.ok]
    return measured, limit, verdict, row.spread
