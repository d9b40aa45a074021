# ruff: noqa: S608  # put together from names of tables and columns; values are bound
"""Copies a tape, or some of it, as it is at one moment to one file that can be sent: itself a tape, without WAL."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..clock import utc_text
from ..errors import TapeError
from ..redaction import BUILT_IN, Rules, redact_json, redact_text
from . import schema
from .choice import INSIDE, Choice, chosen_calls

# What of the chosen calls is copied; rows of other calls are never touched.
_RUNS: Final = f"""
WITH RECURSIVE {INSIDE.format(db="source")}
SELECT DISTINCT r.id FROM source.runs r
WHERE r.id IN (SELECT c.run_id FROM source.llm_calls c WHERE c.id IN (SELECT value FROM json_each(:chosen)))
  OR :calls IS NULL AND (:run IS NULL OR r.id IN (SELECT id FROM inside))
    AND (:since_us IS NULL OR r.started_at >= :since)
"""
_MARKS: Final = """
SELECT m.id FROM source.marks m
WHERE m.call_id IN (SELECT value FROM json_each(:chosen))
  OR :calls IS NULL AND (:since_us IS NULL OR m.started_unix_us >= :since_us)
    AND (m.run_id IN (SELECT value FROM json_each(:runs)) OR m.run_id IS NULL AND :run IS NULL)
"""
_PROCESSES: Final = """
SELECT process_id FROM source.llm_calls WHERE id IN (SELECT value FROM json_each(:chosen))
UNION SELECT process_id FROM source.runs WHERE id IN (SELECT value FROM json_each(:runs))
"""
# In the order in which they refer to each other, each with the column by which its rows are chosen.
_TABLES: Final[Mapping[str, str]] = {
    "processes": "id",
    "runs": "id",
    "llm_calls": "id",
    "llm_parts": "call_id",
    "llm_tokens": "call_id",
    "llm_token_logprobs": "call_id",
    "llm_stalls": "call_id",
    "call_labels": "call_id",
    "marks": "id",
}
# What stands in columns in place of what the tape has, so that nothing refers to a row that was not chosen.
_LINKS: Final[Mapping[str, Mapping[str, str]]] = {
    "runs": {"parent_id": "CASE WHEN parent_id IN (SELECT value FROM json_each(:runs)) THEN parent_id END"},
    "marks": {
        "run_id": "CASE WHEN run_id IN (SELECT value FROM json_each(:runs)) THEN run_id END",
        "call_id": "CASE WHEN call_id IN (SELECT value FROM json_each(:chosen)) THEN call_id END",
    },
}
# As if it had been recorded at the level `timings`: that masks what names a call, which `full` has left as it came.
_TIMINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "llm_calls": {
        "content_level": "'timings'",
        "error_message": "NULL",
        "prompt_json": "NULL",
        "name": "masked(name)",
        "labels_json": "masked_json(labels_json)",
        "request_json": "masked_json(request_json)",
        "metadata_json": "masked_json(metadata_json)",
    },
    "llm_parts": {"content": "NULL"},
    "llm_tokens": {"token": "NULL", "n_tokens": "NULL"},
    "call_labels": {"value": "masked(value)"},
}
_WITHOUT: Final = "llm_token_logprobs"

# What of a tape is text, and whose: how many rows have some.
_TEXTS: Final[Mapping[str, str]] = {
    "answers as they came": "SELECT count(DISTINCT call_id) FROM llm_parts JOIN llm_calls c ON c.id = call_id "
    "WHERE c.content_level = 'full' AND (content <> '' OR content IS NULL AND "
    "EXISTS (SELECT 1 FROM llm_tokens t WHERE t.call_id = c.id AND t.token <> ''))",
    "answers with secrets masked": "SELECT count(DISTINCT call_id) FROM llm_parts JOIN llm_calls c ON c.id = call_id "
    "WHERE c.content_level = 'redacted' AND (content <> '' OR content IS NULL AND "
    "EXISTS (SELECT 1 FROM llm_tokens t WHERE t.call_id = c.id AND t.token <> ''))",
    "prompts": "SELECT count(prompt_json) FROM llm_calls",
    "error messages": "SELECT count(error_message) FROM llm_calls",
    "labels": "SELECT count(DISTINCT call_id) FROM call_labels",
    "metadata": "SELECT (SELECT count(metadata_json) FROM llm_calls) + (SELECT count(metadata_json) FROM runs)",
    "marks": "SELECT count(*) FROM marks",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds.

    Attributes:
        rows: of each table.
        texts: how many calls, runs or marks have which kind of text; only kinds that occur.
        bytes: size of the file.
    """

    rows: Mapping[str, int]
    texts: Mapping[str, int]
    bytes: int


def take(source: Path, target: Path, choice: Choice, *, timings: bool = False, rules: Rules = BUILT_IN) -> Snapshot:
    """Copy what is chosen, while others write to the tape.

    Args:
        source: the tape.
        target: the file to make.
        choice: what of it; without a condition all.
        timings: without text, as if recorded at that level.
        rules: what is a secret in names, labels and metadata of calls that were recorded in full, for that level.

    Raises:
        TapeError: the target exists or cannot be made, or the tape cannot be read; nothing is left behind.
    """
    if os.path.lexists(target):
        raise TapeError(f"{target} exists already; name a file that does not")
    if not target.parent.is_dir():
        raise TapeError(f"{target} cannot be made: there is no folder {target.parent}")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with closing(schema.open_for_writing(unfinished)) as connection:
            # A tape in WAL mode needs a folder that can be written, even to be read.
            connection.execute("PRAGMA journal_mode = DELETE")
            schema.attach(connection, source, "source")
            connection.create_function("masked", 1, partial(_masked, rules))
            connection.create_function("masked_json", 1, partial(_masked_json, rules))
            taken = _copy(connection, choice, timings=timings)
            size = unfinished.stat().st_size
        _publish(unfinished, target)
    except sqlite3.OperationalError as error:
        if schema.is_busy(error):
            raise schema.locked(source) from error
        raise TapeError(f"{target} cannot be made ({error}); see to that, or name another file") from error
    finally:
        for left in (unfinished, *(Path(f"{unfinished}{end}") for end in ("-journal", "-wal", "-shm"))):
            left.unlink(missing_ok=True)
    return Snapshot(*taken, size)


def _copy(connection: sqlite3.Connection, choice: Choice, *, timings: bool) -> tuple[dict[str, int], dict[str, int]]:
    # Rows may be copied before those that they refer to.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    # From the first question to the commit the source is seen as it was at that question.
    chosen = chosen_calls(connection, choice, "source")
    since = None if choice.since_us is None else utc_text(choice.since_us)
    values: dict[str, Any] = choice.values() | {"chosen": json.dumps(chosen), "since": since}
    ids: dict[str, list[int]] = {}
    for name, sql in (("runs", _RUNS), ("marks", _MARKS), ("processes", _PROCESSES)):
        ids[name] = [row_id for (row_id,) in connection.execute(sql, values)]
        values[name] = json.dumps(ids[name])
    connection.execute("INSERT OR IGNORE INTO token_kinds SELECT * FROM source.token_kinds")
    rows = {}
    for table, key in _TABLES.items():
        if timings and table == _WITHOUT:
            continue
        replaced = {**_LINKS.get(table, {}), **(_TIMINGS.get(table, {}) if timings else {})}
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")]
        values["ids"] = json.dumps(ids.get(table, chosen))
        copied = connection.execute(
            f"INSERT INTO main.{table} ({', '.join(columns)}) "
            f"SELECT {', '.join(replaced.get(name, name) for name in columns)} FROM source.{table} "
            f"WHERE {key} IN (SELECT value FROM json_each(:ids))",
            values,
        )
        rows[table] = copied.rowcount
    connection.execute("COMMIT")
    connection.execute("DETACH source")
    counts = {kind: connection.execute(sql).fetchone()[0] for kind, sql in _TEXTS.items()}
    return rows, {kind: count for kind, count in counts.items() if count}


def _publish(unfinished: Path, target: Path) -> None:
    """Give the finished file its name; unlike renaming, this never takes that of a file that came meanwhile."""
    try:
        os.link(unfinished, target)
    except FileExistsError as error:
        raise TapeError(f"{target} exists already; name a file that does not") from error
    except OSError:
        # A file system without links.
        if os.path.lexists(target):
            raise TapeError(f"{target} exists already; name a file that does not") from None
        unfinished.rename(target)


def _masked(rules: Rules, text: str | None) -> str | None:
    return None if text is None else redact_text(text, rules)


def _masked_json(rules: Rules, text: str | None) -> str | None:
    return None if text is None else json.dumps(redact_json(json.loads(text), rules), ensure_ascii=False)
