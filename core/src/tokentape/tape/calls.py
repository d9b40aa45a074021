# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""Calls: finding one, listing many, and everything about one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from ..errors import CallNotFound
from ..models import Metrics
from ..store.rows import stall_row
from ..store.views import COUNTED, MODEL, NOW_MS, TEXT_KIND
from .reader import INSIDE, SEVERAL, STATUS, UID_CHARS, Row, holds, parsed
from .unfinished import Unfinished

METRICS: Final = tuple(field.name for field in fields(Metrics))
# JSON columns of `llm_calls`, and what their value is called.
JSON_COLUMNS: Final = ("labels", "request", "response_meta", "usage", "metadata", "prompt")

# The columns of the view `calls` after its `call_id`, and the run.
LISTED: Final = (
    "uid",
    "started_at",
    "name",
    "layer",
    "model",
    "status",
    "first_token_latency_ms",
    "tokens_per_second",
    "events_per_second",
    "longest_gap_ms",
    "cause",
    "text_start",
    "run_name",
)

# A row of the list, before its labels are read.
_ROW: Final = f"""
SELECT c.id, c.uid, c.name, r.uid AS run_uid, r.name AS run_name, parent.uid AS parent_uid, c.layer,
  {COUNTED} AS counted, c.adapter, c.provider, {MODEL} AS model, c.operation, c.streaming,
  {STATUS} AS status, c.status AS stored_status, c.finish_reason, c.error_type, c.error_message, c.http_status,
  c.started_at, c.started_unix_us, c.ended_at, c.last_event_at,
  CASE WHEN {STATUS} = 'running' THEN
    max(0.0, round({NOW_MS} - c.started_unix_us / 1000.0, 1)) END AS running_for_ms,
  CASE WHEN {STATUS} = 'running' THEN
    max(0.0, round({NOW_MS} - coalesce((julianday(c.last_event_at) - 2440587.5) * 86400000.0,
      c.started_unix_us / 1000.0), 1)) END AS silent_for_ms,
  c.input_tokens, c.output_tokens, c.reasoning_tokens, c.token_count, c.token_count_source,
  c.event_count, c.dropped_count, c.events_kept, c.content_level, {", ".join(f"c.{name}" for name in METRICS)},
  CASE WHEN c.inter_chunk_max_ms IS NULL OR c.tail_gap_ms > c.inter_chunk_max_ms
    THEN c.tail_gap_ms ELSE c.inter_chunk_max_ms END AS longest_gap_ms,
  (SELECT s.cause FROM llm_stalls s WHERE s.call_id = c.id AND s.position <> 'first'
    ORDER BY s.gap_us DESC LIMIT 1) AS cause,
  (SELECT substr(p.content, 1, 80) FROM llm_parts p WHERE p.call_id = c.id AND p.kind_id = {TEXT_KIND}
    ORDER BY p.part LIMIT 1) AS text_start,
  c.labels_json
FROM llm_calls c
LEFT JOIN runs r ON r.id = c.run_id
LEFT JOIN llm_calls parent ON parent.id = c.parent_id
"""
_PAGE: Final = f"""{INSIDE} {_ROW}
WHERE (:before_us IS NULL OR (c.started_unix_us, c.id) < (:before_us, :before_id))
  AND (:since_us IS NULL OR c.started_unix_us >= :since_us)
  AND (:until_us IS NULL OR c.started_unix_us < :until_us)
  AND (:status IS NULL OR {STATUS} = :status)
  AND (:model IS NULL OR :model IN (c.request_model, c.response_model))
  AND (:provider IS NULL OR c.provider = :provider)
  AND (:adapter IS NULL OR c.adapter = :adapter)
  AND (:run IS NULL OR c.run_id IN (SELECT id FROM inside))
  AND (:stalled IS NULL OR :stalled = EXISTS
    (SELECT 1 FROM llm_stalls s WHERE s.call_id = c.id AND s.position <> 'first'))
  AND (:q IS NULL OR {holds("c.name")} OR {holds(MODEL)} OR {holds("c.error_message")}
    OR EXISTS (SELECT 1 FROM llm_parts p WHERE p.call_id = c.id AND {holds("p.content")}))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) wanted WHERE NOT EXISTS (
      SELECT 1 FROM call_labels l WHERE l.call_id = c.id AND l.key = json_extract(wanted.value, '$[0]')
        AND l.value = json_extract(wanted.value, '$[1]')
    )
  )
ORDER BY c.started_unix_us DESC, c.id DESC
LIMIT :limit
"""

# A tail ends with the call, any other stall with an event.
_TIMED_STALLS: Final = """
SELECT s.*, CASE s.position
  WHEN 'first' THEN s.gap_us
  WHEN 'tail' THEN round(coalesce(c.last_token_latency_ms, 0.0) * 1000) + s.gap_us
  ELSE t.offset_us END AS end_us
FROM llm_stalls s
JOIN llm_calls c ON c.id = s.call_id
LEFT JOIN llm_tokens t ON t.call_id = s.call_id AND t.token_index = s.token_index
WHERE s.call_id IN (SELECT value FROM json_each(:ids))
ORDER BY s.call_id, s.token_index
"""
_OFFSETS: Final = "SELECT token_index, offset_us FROM llm_tokens WHERE call_id = ?"


class Calls(Unfinished):
    """Questions about calls."""

    def calls(
        self,
        limit: int = 20,
        *,
        labels: Mapping[str, str] | None = None,
        status: str | None = None,
        model: str | None = None,
        run: str | None = None,
    ) -> list[Row]:
        """Rows of the view `calls`, newest first.

        Args:
            limit: how many at the most; -1 for all.
            labels: only calls that have all of them.
            status: only calls with this status.
            model: only calls that asked for this model, or were answered by it.
            run: only calls of the run with this uid, and of the runs inside it.
        """
        pairs = list((labels or {}).items())
        found = self.page_of_calls(limit, labels=pairs, status=status, model=model, run=run)
        return [{"call_id": row["id"], **{name: row[name] for name in LISTED}} for row in found]

    def call(self, ref: str | int = "-1") -> Row:
        """The row of `llm_calls` that a reference means.

        Args:
            ref: a uid or the unique beginning of one, a row id, or `-1` for the newest call, `-2` for the one before.

        Raises:
            CallNotFound: no call answers to it, or more than one; the message says what to do.
        """
        asked = str(ref).strip()
        found = self._from_the_end(asked) if asked.startswith("-") else self.find_calls(asked)
        if not found:
            raise CallNotFound(f"no call {asked!r} on {self.path}; see: tokentape list")
        if len(found) > 1:
            raise CallNotFound(f"{asked!r} could be any of {named(found)}; give more of it")
        return found[0]

    def find_calls(self, ref: str) -> list[Row]:
        """The rows of `llm_calls` that a reference could mean: none, one, or the first few.

        Args:
            ref: a uid, the beginning of one, or a row id.
        """
        gone = self.gone()
        found = self._matching("llm_calls", ref)
        for row in found:
            row["stored_status"] = row["status"]
            if row["status"] == "running" and row["process_id"] in json.loads(gone):
                row["status"] = "lost"
        return self._completed(found)

    def page_of_calls(
        self,
        limit: int,
        *,
        before: tuple[int, int] | None = None,
        run: str | None = None,
        labels: Sequence[tuple[str, str]] = (),
        status: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        adapter: str | None = None,
        q: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
        stalled: bool | None = None,
    ) -> list[Row]:
        """Calls with their numbers, newest first.

        Args:
            limit: how many at the most.
            before: only calls after this one in the list: its `started_unix_us` and `id`.
            run: only calls of the run with this uid, and of the runs inside it.
            labels: only calls that have all of them.
            model: only calls that asked for this model, or were answered by it.
            q: only calls with this text in their name, model, error or answer; letters of ASCII in either case.
            since_us: only calls that started at this time or later, and `until_us` before it.
            stalled: only calls that stalled after their first token, or only those that did not.
        """
        before_us, before_id = before or (None, None)
        wanted = {
            "before_us": before_us,
            "before_id": before_id,
            "run": run,
            "labels": json.dumps([list(label) for label in labels]),
            "status": status,
            "model": model,
            "provider": provider,
            "adapter": adapter,
            "q": q,
            "since_us": since_us,
            "until_us": until_us,
            "stalled": stalled,
            "limit": limit,
            "gone": self.gone(),
        }
        return self._listed(self._rows(_PAGE, wanted))

    def rows_of_calls(self, call_ids: Sequence[int]) -> list[Row]:
        """Calls with their numbers, as in `page_of_calls`, in the order of their row ids."""
        asked = f"{_ROW} WHERE c.id IN (SELECT value FROM json_each(:ids)) ORDER BY c.id"
        return self._listed(self._rows(asked, {"ids": json.dumps(list(call_ids)), "gone": self.gone()}))

    def detail(self, call: Row) -> Row:
        """Everything about a call but its events.

        Args:
            call: its row, as `find_calls` gives it.

        Returns:
            Its columns, JSON columns as values; `run_uid`, `run_name`; `parent`, `children`; `parts`, `stalls`; and
            what is `kept` of it: which events, how many, and whether text.
        """
        row = {name: value for name, value in call.items() if not name.endswith("_json")}
        (listed,) = self.rows_of_calls([call["id"]])
        parts = self._parts_so_far(call)
        more = ("run_uid", "run_name", "model", "counted", "running_for_ms", "silent_for_ms", "longest_gap_ms", "cause")
        return {
            **row,
            **{name: listed[name] for name in more},
            **{name: parsed(call[f"{name}_json"]) for name in JSON_COLUMNS},
            "labels": listed["labels"],
            **self.linked(call),
            "parts": parts,
            "stalls": self.timed_stalls([listed])[call["id"]],
            "kept": {
                "events": call["events_kept"],
                "event_count": self._rows("SELECT count(*) AS n FROM llm_tokens WHERE call_id = ?", [call["id"]])[0][
                    "n"
                ],
                "content": any(part["content"] is not None for part in parts),
            },
        }

    def linked(self, call: Row) -> Row:
        """The calls that a call is linked to, each with `uid`, `name`, `layer` and `status`.

        Returns:
            `parent`: the framework's call that it was made for, or None; `children`: the requests that it made.
        """
        return {
            "parent": next(iter(self._linked("c.id = :id", call["parent_id"])), None),
            "children": self._linked("c.parent_id = :id", call["id"]),
        }

    def parts(self, call_id: int) -> list[Row]:
        """The parts of a call: number, kind, choice, provider's index, name, external id, content."""
        return self._rows(
            "SELECT p.part, k.name AS kind, p.choice, p.provider_index, p.name, p.external_id, p.content "
            "FROM llm_parts p JOIN token_kinds k ON k.id = p.kind_id WHERE p.call_id = ? ORDER BY p.part",
            [call_id],
        )

    def stalls(self, call_id: int) -> list[Row]:
        """The stalls of a call, in the order they happened; of a call that nobody marked as lost, those that show."""
        stalls = self._rows("SELECT * FROM llm_stalls WHERE call_id = ? ORDER BY token_index", [call_id])
        if stalls or not self._is_lost(call_id):
            return stalls
        return [{"call_id": call_id, **stall_row(stall)} for stall in self._remains(call_id).stalls]

    def timed_stalls(self, calls: Sequence[Row]) -> dict[int, list[Row]]:
        """The stalls of some calls in milliseconds, by the call's row id.

        Args:
            calls: rows of `page_of_calls` or `rows_of_calls`.

        Returns:
            Besides `gap_ms` and what it was spent on `start_ms` and `end_ms` since the call started; None where the
            event that ended a stall is not kept.
        """
        found: dict[int, list[Row]] = {call["id"]: [] for call in calls}
        for stall in self._rows(_TIMED_STALLS, {"ids": json.dumps(list(found))}):
            found[stall["call_id"]].append(_timed(stall))
        for call in calls:
            if call["status"] == "lost" and not found[call["id"]]:
                offsets = dict(self._tuples(_OFFSETS, [call["id"]]))
                lost = self._remains(call["id"]).stalls
                found[call["id"]] = [_timed(stall_row(s) | {"end_us": offsets.get(s.token_index)}) for s in lost]
        return found

    def in_flight(self) -> list[Row]:
        """Calls that have not ended, in any process, the one that has been silent longest first."""
        asked = """
        SELECT f.* FROM in_flight f JOIN llm_calls c ON c.id = f.call_id
        WHERE c.process_id NOT IN (SELECT value FROM json_each(:gone)) ORDER BY f.silent_for_ms DESC
        """
        return self._rows(asked, {"gone": self.gone()})

    def _listed(self, rows: list[Row]) -> list[Row]:
        for row in rows:
            row["labels"] = parsed(row.pop("labels_json")) or {}
            for name in ("counted", "streaming"):
                row[name] = bool(row[name])
        return self._completed(rows)

    def _parts_so_far(self, call: Row) -> list[Row]:
        """The parts of a call; where it has no end, their content is what has come."""
        parts = self.parts(call["id"])
        if call["status"] in {"running", "lost"} and call["content_level"] != "timings":
            asked = "SELECT part, group_concat(token, '') FROM (SELECT part, token FROM llm_tokens WHERE call_id = ? "
            so_far = dict(self._tuples(f"{asked} ORDER BY token_index) GROUP BY part", [call["id"]]))
            for part in parts:
                if part["content"] is None:
                    part["content"] = so_far.get(part["part"])
        return parts

    def _linked(self, condition: str, call_id: int | None) -> list[Row]:
        asked = f"SELECT c.uid, c.name, c.layer, {STATUS} AS status FROM llm_calls c WHERE {condition} ORDER BY c.id"
        return self._rows(asked, {"id": call_id, "gone": self.gone()})

    def _is_lost(self, call_id: int) -> bool:
        asked = f"SELECT c.status AS stored, {STATUS} AS status FROM llm_calls c WHERE c.id = :id"
        return any(
            row["status"] == "lost" != row["stored"] for row in self._rows(asked, {"id": call_id, "gone": self.gone()})
        )

    def _from_the_end(self, ref: str) -> list[Row]:
        number = ref.removeprefix("-")
        if not (number.isascii() and number.isdigit() and len(number) <= UID_CHARS and int(number)):
            return []
        newest = "SELECT uid FROM llm_calls ORDER BY started_unix_us DESC, id DESC LIMIT 1 OFFSET CAST(? AS INTEGER)"
        return [call for row in self._rows(newest, [str(int(number) - 1)]) for call in self.find_calls(row["uid"])]


def named(found: Sequence[Mapping[str, Any]]) -> str:
    """The uids that a reference could mean, the first of them where they are many."""
    shown = SEVERAL - 1
    return ", ".join(row["uid"] for row in found[:shown]) + (", …" if len(found) > shown else "")


def _timed(stall: Row) -> Row:
    end_us = stall["end_us"]
    return {
        **{name: stall[name] for name in ("token_index", "position", "cause")},
        **{f"{name}_ms": stall[f"{name}_us"] / 1000 for name in ("gap", "wait", "hold", "blocked")},
        "start_ms": None if end_us is None else (end_us - stall["gap_us"]) / 1000,
        "end_ms": None if end_us is None else end_us / 1000,
    }
