"""How long questions about one call take on a tape of 1,000,000 token events."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from harness import ROUNDS, Row, best

from million import build
from tokentape.store.views import VIEWS

LONG = "SELECT offset_us, wait_us, part, token FROM llm_tokens WHERE call_id = ? ORDER BY token_index"
# Views of runs and models are filtered to what the call belongs to.
KEYS = {"run_stats": ("run_id", "run_id"), "model_stats": ("model", "request_model"), "calls": ("call_id", "id")}


def rows() -> Iterator[Row]:
    """One call's events in order, and the slowest view."""
    with tempfile.TemporaryDirectory() as folder:
        tape = build(Path(folder) / "tape.db")
        with closing(sqlite3.connect(f"{tape.path.as_uri()}?mode=ro", uri=True)) as connection:
            events = [_took(connection, LONG, tape.call_id) for _ in range(ROUNDS)]
            views = {view: [_look(connection, view, tape.call_id) for _ in range(ROUNDS)] for view in VIEWS}
    yield best("10,000 token events of one call, read in order", events, 15.0, "ms")
    slowest = max(views, key=lambda view: min(views[view]))
    yield best(f"the slowest view filtered to one call, {slowest}", views[slowest], 20.0, "ms")


def _look(connection: sqlite3.Connection, view: str, call_id: int) -> float:
    key, column = KEYS.get(view, ("call_id", "id"))
    (value,) = connection.execute(f"SELECT {column} FROM llm_calls WHERE id = ?", (call_id,)).fetchone()
    return _took(connection, f"SELECT * FROM {view} WHERE {key} = ?", value)


def _took(connection: sqlite3.Connection, sql: str, value: object) -> float:
    start = time.perf_counter()
    connection.execute(sql, (value,)).fetchall()
    return (time.perf_counter() - start) * 1e3
