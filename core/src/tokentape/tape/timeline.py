# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""A run on the clock: its calls with the rate of their events, and how many events came when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..clock import unix_us
from ..store.views import COUNTED
from .calls import Calls
from .reader import INSIDE, Row
from .runs import Runs

_CALL_IDS: Final = f"{INSIDE} SELECT c.id FROM llm_calls c JOIN inside ON c.run_id = inside.id ORDER BY c.id"
_EDGES: Final = """
SELECT ids.value AS id,
  (SELECT offset_us FROM llm_tokens WHERE call_id = ids.value ORDER BY token_index LIMIT 1) AS first_us,
  (SELECT offset_us FROM llm_tokens WHERE call_id = ids.value ORDER BY token_index DESC LIMIT 1) AS last_us
FROM json_each(:ids) ids
"""
# The last event belongs to the last bin, not to one of its own.
_PROFILE: Final = """
SELECT min((offset_us - :first_us) * :bins / max(1, :last_us - :first_us), :bins - 1) AS bin, count(*) AS events
FROM llm_tokens WHERE call_id = :id GROUP BY bin ORDER BY bin
"""
_EVENTS_IN_TIME: Final = f"""{INSIDE}
SELECT (c.started_unix_us - :run_us + t.offset_us - :start_us) / :bucket_us AS bucket, count(*) AS events
FROM llm_calls c JOIN inside ON c.run_id = inside.id JOIN llm_tokens t ON t.call_id = c.id
WHERE {COUNTED}
  AND c.started_unix_us - :run_us + t.offset_us >= :start_us AND c.started_unix_us - :run_us + t.offset_us < :end_us
GROUP BY bucket
"""


class Timelines(Calls, Runs):
    """Questions about a run as it went."""

    def timeline(self, run: Row, bins: int, now_us: int) -> Row:
        """The calls and marks of a run, and of the runs inside it, on the run's clock.

        Args:
            run: its row, as `find_runs` gives it.
            bins: into how many pieces the time from a call's first event to its last is divided to show the rate.
            now_us: until when what still runs is shown, in microseconds since 1970.

        Returns:
            `duration_ms` (until now while the run goes on, until it was last heard of where it is lost), `calls`, those
            made by another call as `children` of it, and `marks`.
        """
        start_us = unix_us(run["started_at"])
        ids = [row["id"] for row in self._rows(_CALL_IDS, {"run": run["uid"]})]
        rows = self.rows_of_calls(ids)
        # Of what is left of a call nobody can tell how fast it was in between.
        whole = [row["id"] for row in rows if row["events_kept"] != "aggregated"]
        profiles = dict(self._profiles(whole, bins))
        stalls = self.timed_stalls(rows)
        calls = {}
        for row in rows:
            start_ms = (row["started_unix_us"] - start_us) / 1000
            rates = profiles.get(row["id"], ())
            profile = [span | {k: span[k] + start_ms for k in ("start_ms", "end_ms")} for span in rates]
            calls[row["uid"]] = row | {
                "start_ms": start_ms,
                "profile": profile,
                "stalls": stalls[row["id"]],
                "children": [],
            }
        marks = [_mark(mark, start_us) for mark in self.marks(run["uid"])]
        spans = [(0, round((m["start_ms"] + m["duration_ms"]) * 1000)) for m in marks]
        spans += [(0, (call["ended_unix_us"] or now_us) - start_us) for call in self.call_times(run["uid"])]
        duration_ms = self._end_us(run, spans, now_us - start_us) / 1000
        return {"run": run, "duration_ms": duration_ms, "calls": _nested(calls), "marks": marks}

    def timeseries(self, run: Row, start_ms: float | None, end_ms: float | None, buckets: int, now_us: int) -> Row:
        """How many events came when in a run, and how many calls were open.

        Args:
            run: its row, as `find_runs` gives it.
            start_ms: since the run started, and `end_ms` likewise; the whole run where they are not given.
            buckets: into how many pieces that time is divided.
            now_us: until when what still runs is shown, in microseconds since 1970.
        """
        run_us = unix_us(run["started_at"])
        spans = [
            (call["started_unix_us"] - run_us, (call["ended_unix_us"] or now_us) - run_us)
            for call in self.call_times(run["uid"])
        ]
        start_us = round((start_ms or 0) * 1000)
        # The last moment of a run is in it.
        end_us = self._end_us(run, spans, now_us - run_us) + 1 if end_ms is None else round(end_ms * 1000)
        bucket_us = max(1, -(-(end_us - start_us) // buckets))
        wanted = {"run": run["uid"], "run_us": run_us, "start_us": start_us, "end_us": end_us, "bucket_us": bucket_us}
        counted = dict(self._tuples(_EVENTS_IN_TIME, wanted))
        return {
            "start_ms": start_us / 1000,
            "end_ms": max(start_us, end_us) / 1000,
            "bucket_ms": bucket_us / 1000,
            "buckets": [
                {
                    "start_ms": at / 1000,
                    "events": counted.get(number, 0),
                    "calls": sum(begin < at + bucket_us and end >= at for begin, end in spans),
                }
                for number, at in enumerate(range(start_us, end_us, bucket_us))
            ],
        }

    def _profiles(self, ids: Sequence[int], bins: int) -> Iterator[tuple[int, list[Row]]]:
        for edge in self._rows(_EDGES, {"ids": json.dumps(list(ids))}):
            if edge["first_us"] is None:
                yield edge["id"], []
                continue
            first_us, width_us = edge["first_us"], (edge["last_us"] - edge["first_us"]) / bins
            yield (
                edge["id"],
                [
                    {
                        "start_ms": (first_us + number * width_us) / 1000,
                        "end_ms": (first_us + (number + 1) * width_us) / 1000,
                        "events": events,
                    }
                    for number, events in self._tuples(_PROFILE, {"bins": bins, **edge})
                ],
            )

    def _end_us(self, run: Row, spans: Iterable[tuple[int, int]], now_us: int) -> int:
        """When a run ended, or the last of its calls; now while it runs. Microseconds since it started."""
        ends = [end for _, end in spans]
        if run["duration_ms"] is not None:
            ends.append(round(run["duration_ms"] * 1000))
        elif run["status"] == "running":
            ends.append(now_us)
        return max([0, *ends])


def _nested(calls: dict[str, Row]) -> list[Row]:
    """The calls that no other of them made, in the order they started, each with those that it made."""
    roots: list[Row] = []
    for call in sorted(calls.values(), key=lambda call: (call["started_unix_us"], call["id"])):
        parent = calls.get(call["parent_uid"])
        (roots if parent is None or parent is call else parent["children"]).append(call)
    return roots


def _mark(mark: Row, start_us: int) -> Row:
    return {
        "kind": mark["kind"],
        "name": mark["name"],
        "start_ms": (mark["started_unix_us"] - start_us) / 1000,
        "duration_ms": mark["duration_us"] / 1000,
    }
