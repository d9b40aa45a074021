"""Token events as a table for spreadsheets, in which no text is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Response

COLUMNS: Final = ("token_index", "kind", "part", "choice", "timestamp_ms", "delta_ms", "wait_ms", "n_tokens", "token")
# What a spreadsheet takes for the beginning of a formula, or for the end of the cell before it.
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

AS_CSV: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


def csv_text(rows: Sequence[Mapping[str, Any]], headers: Mapping[str, str]) -> Response:
    """An answer with a row for each event; text that could be a formula begins with `'`."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row[column]) for column in COLUMNS] for row in rows)
    named = {**headers, "Content-Disposition": 'attachment; filename="tokens.csv"', "X-Content-Type-Options": "nosniff"}
    return Response(out.getvalue(), media_type="text/csv", headers=named)


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
