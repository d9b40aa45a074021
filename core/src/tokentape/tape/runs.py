# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""Runs: finding one, listing many, and what happened in one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ..clock import unix_us
from ..store.views import COUNTED, MODEL
from .reader import INSIDE, STATUS, Row, holds, parsed
from .unfinished import Unfinished

# Of the calls of a run those that are not recorded once more by the SDK they went through.
COUNTED_CALLS: Final = f"""{INSIDE},
counted AS (
  SELECT c.id, c.first_token_latency_ms FROM llm_calls c JOIN inside ON c.run_id = inside.id
  WHERE {COUNTED}
)
"""
RUN_SUMMARY: Final = """
SELECT count(*) AS call_count, max(first_token_latency_ms) AS slowest_first_token_ms FROM counted
"""
RUN_STALLS: Final = """
SELECT s.cause, count(*) AS stall_count, sum(s.gap_us) / 1000.0 AS gap_ms
FROM counted JOIN llm_stalls s ON s.call_id = counted.id
WHERE s.position <> 'first' GROUP BY s.cause ORDER BY gap_ms DESC
"""

CALL_TIMES: Final = f"""{INSIDE}
SELECT c.uid, {STATUS} AS status, {COUNTED} AS counted, c.started_unix_us,
  CASE
    WHEN {STATUS} = 'running' THEN NULL
    WHEN c.duration_ms IS NOT NULL THEN c.started_unix_us + CAST(c.duration_ms * 1000 AS INTEGER)
    ELSE CAST(coalesce((julianday(c.last_event_at) - 2440587.5) * 86400000000.0, c.started_unix_us) AS INTEGER)
  END AS ended_unix_us
FROM llm_calls c JOIN inside ON c.run_id = inside.id
ORDER BY c.started_unix_us, c.id
"""

# A run whose process is gone goes on while a live one still has calls in it.
_STATUS: Final = f"""
CASE WHEN r.status = 'running' AND r.process_id IN (SELECT value FROM json_each(:gone)) AND NOT EXISTS
  (SELECT 1 FROM llm_calls c WHERE c.run_id = r.id AND {STATUS} = 'running')
THEN 'lost' ELSE r.status END
"""
_PAGE: Final = f"""
WITH RECURSIVE page AS (
  SELECT r.id, r.uid, r.parent_id, r.name, {_STATUS} AS status, r.started_at, r.ended_at, r.metadata_json
  FROM runs r
  WHERE (:ids IS NULL OR r.id IN (SELECT value FROM json_each(:ids)))
    AND (:before_at IS NULL OR (r.started_at, r.id) < (:before_at, :before_id))
    AND (:status IS NULL OR {_STATUS} = :status)
    AND (:q IS NULL OR {holds("r.name")} OR {holds("r.uid")})
  ORDER BY r.started_at DESC, r.id DESC
  LIMIT :limit
),
inside(root, id) AS (
  SELECT id, id FROM page
  UNION SELECT inside.root, runs.id FROM runs JOIN inside ON runs.parent_id = inside.id
),
counted AS (
  SELECT inside.root, c.id, c.status AS stored_status, {STATUS} AS status, {MODEL} AS model, c.streaming,
    c.input_tokens, c.token_count, c.event_count,
    c.first_token_latency_ms, c.stall_count, c.labels_json
  FROM inside JOIN llm_calls c ON c.run_id = inside.id
  WHERE {COUNTED}
)
SELECT page.id, page.uid, parent.uid AS parent_uid, page.name, page.status, page.started_at, page.ended_at,
  coalesce(max(counted.streaming), 0) AS streaming,
  count(counted.root) AS call_count,
  count(CASE WHEN counted.status NOT IN ('running', 'completed') THEN 1 END) AS failed_count,
  count(CASE WHEN counted.status = 'running' THEN 1 END) AS running_count,
  sum(counted.input_tokens) AS input_tokens,
  sum(counted.token_count) AS token_count,
  sum(counted.event_count) AS event_count,
  max(counted.first_token_latency_ms) AS slowest_first_token_ms,
  sum(counted.stall_count) AS stall_count,
  json_group_array(CASE WHEN counted.stored_status = 'running' THEN counted.id END) AS unfinished_json,
  json_group_array(DISTINCT counted.model) AS models_json,
  json_group_array(DISTINCT counted.labels_json) AS label_sets_json,
  page.metadata_json
FROM page
LEFT JOIN runs parent ON parent.id = page.parent_id
LEFT JOIN counted ON counted.root = page.id
GROUP BY page.id
ORDER BY page.started_at DESC, page.id DESC
"""

_UNFINISHED: Final = f"""
SELECT c.id, c.status AS stored_status, {STATUS} AS status, c.token_count, c.stall_count, c.first_token_latency_ms
FROM llm_calls c WHERE c.id IN (SELECT value FROM json_each(:ids))
"""
# Totals of a run that a call without an end adds to: from which of its numbers, and how.
_ADDED: Final[Sequence[tuple[str, str, Callable[[Iterable[Any]], Any]]]] = (
    ("token_count", "token_count", sum),
    ("stall_count", "stall_count", sum),
    ("slowest_first_token_ms", "first_token_latency_ms", max),
)


class Runs(Unfinished):
    """Questions about runs."""

    def page_of_runs(
        self, limit: int, *, before: tuple[str, int] | None = None, status: str | None = None, q: str | None = None
    ) -> list[Row]:
        """Runs with their totals, newest first; calls of runs inside a run count for it, each token once.

        Args:
            limit: how many at the most.
            before: only runs after this one in the list: its `started_at` and `id`.
            q: only runs with this text in their name or uid; letters of ASCII in either case.
        """
        before_at, before_id = before or (None, None)
        return self._with_totals(limit=limit, before_at=before_at, before_id=before_id, status=status, q=q)

    def find_runs(self, ref: str) -> list[Row]:
        """The runs that a reference could mean, as in `page_of_runs`: none, one, or the first few.

        Args:
            ref: a uid, the beginning of one, or a row id.
        """
        found = [row["id"] for row in self._matching("runs", ref)]
        return self._with_totals(ids=json.dumps(found)) if found else []

    def run(self, ref: str | int) -> Row | None:
        """The row of the view `run_stats` for a run's uid or row id; None if there is no such run."""
        column = "run_id" if isinstance(ref, int) else "uid"
        found = self._rows(f"SELECT * FROM run_stats WHERE {column} = ?", [ref])
        return found[0] if found else None

    def run_named(self, name: str) -> Row | None:
        """The row of the view `run_stats` for the newest run of this name; None if there is none."""
        found = self._rows("SELECT id FROM runs WHERE name = ? ORDER BY id DESC LIMIT 1", [name])
        return self.run(found[0]["id"]) if found else None

    def is_inside(self, run_uid: str, call_id: int) -> bool:
        """Whether a call belongs to a run, or to a run inside it."""
        asked = f"{INSIDE} SELECT 1 FROM llm_calls c JOIN inside ON c.run_id = inside.id WHERE c.id = :call"
        return bool(self._rows(asked, {"run": run_uid, "call": call_id}))

    def marks(self, run_uid: str) -> list[Row]:
        """What was marked in a run and in the runs inside it, in the order it began."""
        marks = "SELECT m.* FROM marks m JOIN inside ON m.run_id = inside.id ORDER BY m.started_unix_us, m.id"
        return self._rows(INSIDE + marks, {"run": run_uid})

    def call_times(self, run_uid: str) -> list[Row]:
        """When each call of a run, and of the runs inside it, started and ended; `ended_unix_us` is None while it runs.

        `counted` is 0 for a framework's call whose requests are on the tape as calls of their own. A call that ended
        without saying when was last heard of when its last event came.
        """
        return self._rows(CALL_TIMES, {"run": run_uid, "gone": self.gone()})

    def summary_of_run(self, run_uid: str) -> Row:
        """What happened in a run and in the runs inside it, in three numbers.

        Returns:
            `call_count`, `slowest_first_token_ms` (None where no token came), and `stalls`: for each cause how many and
            how long, the longest first. A stall before the first token is not among them: the first number has it.
        """
        run = {"run": run_uid}
        return self._rows(COUNTED_CALLS + RUN_SUMMARY, run)[0] | {"stalls": self._rows(COUNTED_CALLS + RUN_STALLS, run)}

    def _with_totals(self, **wanted: Any) -> list[Row]:
        nothing = dict.fromkeys(("ids", "before_at", "before_id", "status", "q")) | {"limit": -1}
        rows = self._rows(_PAGE, {**nothing, **wanted, "gone": self.gone(with_runs=True)})
        for row in rows:
            self._add_unfinished(row, json.loads(row.pop("unfinished_json")))
            ended_at = row["ended_at"]
            row["duration_ms"] = (unix_us(ended_at) - unix_us(row["started_at"])) / 1000 if ended_at else None
            row["streaming"] = bool(row["streaming"])
            row["models"] = sorted(model for model in json.loads(row.pop("models_json")) if model is not None)
            row["labels"] = _common(json.loads(row.pop("label_sets_json")))
            row["metadata"] = parsed(row.pop("metadata_json"))
        return rows

    def _add_unfinished(self, run: Row, call_ids: Sequence[int | None]) -> None:
        """Add to the totals of a run what its calls without an end say so far."""
        ids = json.dumps([call_id for call_id in call_ids if call_id is not None])
        if ids == "[]":
            return
        for call in self._completed(self._rows(_UNFINISHED, {"ids": ids, "gone": self.gone()})):
            for total, name, add in _ADDED:
                known = [value for value in (run[total], call[name]) if value is not None]
                run[total] = add(known) if known else None


def _common(label_sets: Sequence[str | None]) -> Row:
    """Labels that all of some calls have."""
    sets = [parsed(labels) or {} for labels in label_sets]
    first, *others = sets or [{}]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
