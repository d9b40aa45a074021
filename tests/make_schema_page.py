"""Writes docs/schema.md from a freshly migrated tape: `python tests/make_schema_page.py`."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from pathlib import Path

from tokentape.store.schema import open_for_writing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "schema.md"
COMMENT = re.compile(r"^  (\w+) .*?-- (.*)$", re.MULTILINE)
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


def _views(connection: sqlite3.Connection) -> list[str]:
    lines = []
    for (name,) in connection.execute("select name from sqlite_master where type = 'view' order by name"):
        columns = [row[1] for row in connection.execute(f"pragma table_info({name})")]
        lines += [f"### {name}\n", ", ".join(f"`{column}`" for column in columns) + "\n"]
    return lines


def _tables(connection: sqlite3.Connection) -> list[str]:
    sql = "select name, sql from sqlite_master where type = 'table' and name not like 'sqlite_%' order by rowid"
    lines = []
    for name, create in connection.execute(sql):
        if name.startswith("_"):
            continue  # the migrations' own
        comments = dict(COMMENT.findall(create))
        columns = [row[1:3] for row in connection.execute(f"pragma table_info({name})")]
        rows = [f"| `{column}` | {kind} | {comments.get(column, '')} |" for column, kind in columns]
        lines += [f"### {name}\n", "| column | type | |\n|---|---|---|", *rows, ""]
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
