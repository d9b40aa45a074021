"""Writes docs/schema.md, and the table in docs/metrics.md, from the schema: `python tests/make_schema_page.py`."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from dataclasses import fields
from pathlib import Path

from tokentape.models import Metrics
from tokentape.store import columns
from tokentape.store.schema import open_for_writing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "schema.md"
METRICS_PAGE = PAGE.with_name("metrics.md")
METRICS_TABLE = re.compile(r"^\| column \| is \| NULL \|\n(?:\|.*\n)+", re.MULTILINE)
INTRODUCTION = """# Tables and views

One SQLite file, shared by any number of processes. A column ending in `_id` is an integer foreign key; the public id of
a row is its `uid`. Times ending in `_at` are UTC text, `_us` are whole microseconds, `_ms` milliseconds with a
fraction. Plain questions have views: start there. What each number means is in [metrics](metrics.md).

This page is made from the schema itself.
"""


def page() -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as folder:
        connection = open_for_writing(Path(folder) / "tape.db")
        try:
            return "\n".join([INTRODUCTION, "## Views\n", *_views(connection), "## Tables\n", *_tables(connection)])
        finally:
            connection.close()


def metrics_page() -> str:
    """The page of metrics, its table made anew."""
    rows = [(field.name, columns.definition(field.name)) for field in fields(Metrics)]
    lines = [f"| `{name}` | {about.text} | {about.missing or 'never'} |\n" for name, about in rows]
    table = "".join(["| column | is | NULL |\n|---|---|---|\n", *lines])
    return METRICS_TABLE.sub(lambda _: table, METRICS_PAGE.read_text(encoding="utf-8"))


def _views(connection: sqlite3.Connection) -> list[str]:
    lines = []
    for (name,) in connection.execute("select name from sqlite_master where type = 'view' order by name"):
        about = columns.views()[name]
        found = [row[1] for row in connection.execute(f"pragma table_info({name})")]
        lines += [f"### {name}\n", f"{_sentence(about.text)}\n", ", ".join(f"`{column}`" for column in found) + "\n"]
    return lines


def _tables(connection: sqlite3.Connection) -> list[str]:
    lines = []
    for name, about in columns.tables().items():
        found = [row[1:3] for row in connection.execute(f"pragma table_info({name})")]
        rows = [f"| `{column}` | {kind} | {about.columns.get(column, '')} |" for column, kind in found]
        heading = [f"### {name}\n", f"{_sentence(about.text)}\n", "| column | type | |\n|---|---|---|"]
        lines += [*heading, *rows, ""]
    return lines


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    METRICS_PAGE.write_text(metrics_page(), encoding="utf-8")
