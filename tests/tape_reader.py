"""Reads a tape the way its users do, with sqlite-utils."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlite_utils

import tokentape


class TapeReader:
    """Rows of a tape as dictionaries, once everything recorded so far is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """What a query finds."""
        assert tokentape.flush(10), tokentape.status()
        db = sqlite_utils.Database(self.path)
        try:
            return list(db.query(sql, arguments))
        finally:
            db.close()

    def calls(self) -> list[dict[str, Any]]:
        """All calls, oldest first."""
        return self.rows("select * from llm_calls order by id")

    def call(self) -> dict[str, Any]:
        """The only call."""
        (call,) = self.calls()
        return call

    def tokens(self, call_id: int | None = None) -> list[dict[str, Any]]:
        """Token events with their kind, of one call or of all."""
        where = "" if call_id is None else f"where call_id = {int(call_id)}"
        return self.rows(f"select * from token_timeline {where} order by call_id, token_index")

    def parts(self, call_id: int | None = None) -> list[dict[str, Any]]:
        """Parts with the name of their kind, of one call or of all."""
        where = "" if call_id is None else f"where call_id = {int(call_id)}"
        kinds = "join token_kinds k on k.id = p.kind_id"
        return self.rows(f"select p.*, k.name as kind from llm_parts p {kinds} {where} order by call_id, part")

    def text(self, kind: str = "text") -> str:
        """All events of one kind, joined."""
        return "".join(row["token"] for row in self.tokens() if row["kind"] == kind)
