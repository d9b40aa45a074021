"""What the row of a call does not say before its end: the numbers so far, or what is left when its process is gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..store.lost import Remains, remains
from .reader import Reader, Row

_RUNNING: Final = "running"
_LOST: Final = "lost"
TEXT_START: Final = 80

_EDGE: Final = "SELECT offset_us / 1000.0 AS at_ms FROM llm_tokens WHERE call_id = ? ORDER BY token_index"


class Unfinished(Reader):
    """Completes rows of calls that have no end on the tape."""

    def _completed(self, rows: Iterable[Row]) -> list[Row]:
        """Rows with `id`, `status`, and columns of `llm_calls`, of which only those that are there are completed.

        A row with `status` as `STATUS` computes it and `stored_status` as it is stored; the latter is taken away.
        """
        return [self._with_numbers(row) for row in rows]

    def _with_numbers(self, row: Row) -> Row:
        if row.pop("stored_status") != _RUNNING:
            return row
        numbers = self._left(row["id"]) if row["status"] == _LOST else self._so_far(row["id"])
        if "text_start" in row:
            row["text_start"] = self._text_start(row["id"])
        return row | {name: value for name, value in numbers.items() if name in row}

    def _left(self, call_id: int) -> Row:
        found = self._remains(call_id)
        columns = {name: value for name, value in found.columns.items() if name != "status"}
        after_first = [stall for stall in found.stalls if stall.position != "first"]
        worst = max(after_first, key=lambda stall: stall.gap_us, default=None)
        return columns | {"longest_gap_ms": columns.get("inter_chunk_max_ms"), "cause": worst and worst.cause}

    def _remains(self, call_id: int) -> Remains:
        asked = "SELECT id, content_level, dropped_count FROM llm_calls WHERE id = ?"
        (call,) = self._rows(asked, [call_id])
        with self._reading():
            return remains(self._connection, call)

    def _so_far(self, call_id: int) -> Row:
        first = self._rows(f"{_EDGE} LIMIT 1", [call_id])
        last = self._rows(f"{_EDGE} DESC LIMIT 1", [call_id])
        return {
            "first_token_latency_ms": first[0]["at_ms"] if first else None,
            "last_token_latency_ms": last[0]["at_ms"] if last else None,
        }

    def _text_start(self, call_id: int) -> Any:
        found = self._rows(
            "SELECT substr(group_concat(token, ''), 1, :chars) AS start FROM (SELECT token FROM llm_tokens "
            "WHERE call_id = :call AND token <> '' AND part = (SELECT min(p.part) FROM llm_parts p "
            "JOIN token_kinds k ON k.id = p.kind_id WHERE p.call_id = :call AND k.name = 'text') "
            "ORDER BY token_index LIMIT :chars)",
            {"call": call_id, "chars": TEXT_START},
        )
        return found[0]["start"]
