"""What each page shows: which template, and the rows for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from tokentape.models import FINAL_STATUSES, KINDS
from tokentape.shares import shares_of_run
from tokentape.tape import Row, Tape
from tokentape_api.answers import in_order, the_call, the_run
from tokentape_api.cursors import key, page
from tokentape_api.problems import Invalid, NotFound
from tokentape_api.routes_calls import COMPARED

from . import asked
from .place import Place

if TYPE_CHECKING:
    from datasette.utils.asgi import Request

RUNS: Final = 20
CALLS: Final = 50
EVENTS: Final = 100
MOST: Final = 500
STATUSES: Final = ("running", *FINAL_STATUSES)
FILTERS: Final = ("q", "model", "provider", "adapter", "label", "status", "since", "until", "stalled")
# Shares of a call's events whose arrival is told, in percent.
SHARES: Final = (10, 25, 50, 75, 90, 100)


class Page(NamedTuple):
    """A template and what it needs."""

    template: str
    context: dict[str, Any]


async def index(place: Place, request: Request) -> Page:
    """Runs and calls, the newest first; or the tapes, where it is not clear which one is meant."""
    if place.tape is None:
        return Page("tokentape_tapes.html", {})
    limit = asked.number(request, "limit", CALLS, 1, MOST)
    filters = _filters(request)
    runs_before = key("page of runs", asked.text(request, "runs"), str, int)
    calls_before = key("page of calls", asked.text(request, "calls"), int, int)

    def read(tape: Tape) -> Row:
        calls = tape.page_of_calls(limit + 1, before=calls_before, **_as_asked(filters))
        if any(filters.values()):
            # The runs that the calls belong to: what is asked for are calls.
            uids = dict.fromkeys(call["run_uid"] for call in calls[:limit] if call["run_uid"] is not None)
            runs = [run for uid in list(uids)[:RUNS] for run in tape.find_runs(uid)]
        else:
            runs = tape.page_of_runs(RUNS + 1, before=runs_before)
        return {"calls": calls, "runs": runs}

    found = await place.read(read)
    calls = page("rows", "page of calls", found["calls"], limit, ("started_unix_us", "id"))
    runs = page("rows", "page of runs", found["runs"], RUNS, ("started_at", "id"))
    context = {
        "filters": {name: request.args.get(name) or "" for name in FILTERS},
        "is_filtered": any(filters.values()),
        "statuses": STATUSES,
        "runs": runs["rows"],
        "calls": calls["rows"],
        "older_runs": runs["next"],
        "older_calls": calls["next"],
        "asked_for": {name: request.args.get(name) for name in (*FILTERS, "limit")},
        "at": {"runs": request.args.get("runs"), "calls": request.args.get("calls")},
    }
    return Page("tokentape_index.html", context)


async def run(place: Place, request: Request) -> Page:
    """A run: its numbers, its calls and marks in the order they began."""
    ref = unquote(request.url_vars["run"])

    def read(tape: Tape) -> Row:
        row = the_run(tape, ref)
        uid = row["uid"]
        return {
            **tape.timeline(row, 1, time.time_ns() // 1000),
            "parent": next(iter(tape.find_runs(row["parent_uid"])), None) if row["parent_uid"] else None,
            "total": tape.streaming_stats(uid)["total"],
            "shares": shares_of_run(row, tape.call_times(uid), tape.marks(uid)),
        }

    found = await place.read(read)
    rows = list(_flattened(found["calls"]))
    rows_and_marks = _in_order(rows, found["marks"])
    return Page("tokentape_run.html", {**found, "rows": rows_and_marks, "longest": _longest_stall(rows)})


async def call(place: Place, request: Request) -> Page:
    """A call: how it ended, its numbers, its stalls, what it said, and a page of its events."""
    ref = unquote(request.url_vars["call"])
    after = asked.number(request, "after", -1, -1, 2**63 - 1)
    limit = asked.number(request, "limit", EVENTS, 1, MOST)
    kind = asked.one_of(request, "kind", KINDS)
    text = asked.text(request, "q")

    def read(tape: Tape) -> Row:
        row = the_call(tape, ref)
        detail = tape.detail(row)
        (listed,) = tape.rows_of_calls([row["id"]])
        events = tape.page_of_events(row["id"], limit + 1, after=after, kind=kind, q=text)
        return {
            "call": {**listed, **detail},
            "events": events,
            "stalls": tape.timed_stalls([listed])[row["id"]],
            "arrivals": _arrivals(tape, row["id"]),
            "texts": _texts(tape, detail, detail["parts"]),
        }

    found = await place.read(read)
    events = found["events"]
    more = {"after": events[limit - 1]["token_index"]} if len(events) > limit else None
    context = {
        **found,
        "events": events[:limit],
        "next": more,
        "is_first": after < 0,
        "filters": {"kind": kind, "q": text},
        "kinds": KINDS,
        "stalled_at": {stall["token_index"] for stall in found["stalls"]},
    }
    return Page("tokentape_call.html", context)


async def race(place: Place, request: Request) -> Page:
    """Calls side by side; without any, calls to choose from."""
    refs = [ref.strip() for given in request.args.getlist("calls") for ref in given.split(",") if ref.strip()]
    if not refs:
        recent = await place.read(lambda tape: tape.page_of_calls(CALLS))
        return Page("tokentape_choose.html", {"calls": recent})
    if len(refs) not in COMPARED:
        raise Invalid("calls", f"name {COMPARED[0]} to {COMPARED[-1]} calls, not {len(refs)}")

    def read(tape: Tape) -> list[Row]:
        ids = list(dict.fromkeys(the_call(tape, ref)["id"] for ref in refs))
        if len(ids) < len(refs):
            raise Invalid("calls", "name each call once")
        rows = {row["id"]: row for row in tape.rows_of_calls(ids)}
        return [{**rows[call_id], "texts": _texts(tape, rows[call_id], tape.parts(call_id))} for call_id in ids]

    return Page("tokentape_race.html", {"calls": await place.read(read)})


async def models(place: Place, request: Request) -> Page:
    """The models, with percentiles over their calls."""
    every = asked.one_of(request, "all", ("0", "1")) == "1"
    found = await place.read(lambda tape: tape.models(every=every))
    return Page("tokentape_models.html", {"models": found, "every": every})


async def live(place: Place, request: Request) -> Page:
    """What is in flight now."""
    found = await place.read(lambda tape: tape.in_flight())
    return Page("tokentape_live.html", {"calls": found, "again": request.full_path})


async def nowhere(place: Place, request: Request) -> Page:
    """Refuse a path that is none of ours."""
    raise NotFound(f"There is no page at {request.path[: asked.LONGEST]!r}.")


def _filters(request: Request) -> Row:
    since, until = asked.moment(request, "since"), asked.moment(request, "until")
    in_order(since, until, "until")
    label = asked.text(request, "label")
    if label is not None and not label.partition(":")[2]:
        raise Invalid("label", f"key:value, not {label!r}")
    return {
        "q": asked.text(request, "q"),
        "model": asked.text(request, "model"),
        "provider": asked.text(request, "provider"),
        "adapter": asked.text(request, "adapter"),
        "status": asked.one_of(request, "status", STATUSES),
        "label": label,
        "stalled": asked.one_of(request, "stalled", ("1",)),
        "since_us": since,
        "until_us": until,
    }


def _as_asked(filters: Row) -> Row:
    """Filters as the tape takes them."""
    wanted = {name: value for name, value in filters.items() if name != "label"}
    label = filters["label"]
    return {
        **wanted,
        "stalled": True if filters["stalled"] else None,
        "labels": [] if label is None else [label.split(":", 1)],
    }


def _flattened(calls: Sequence[Row], depth: int = 0) -> list[Row]:
    """Calls with those that they made behind them, and how deep each lies."""
    found = []
    for row in calls:
        found += [{**row, "depth": depth}, *_flattened(row["children"], depth + 1)]
    return found


def _in_order(calls: Sequence[Row], marks: Sequence[Row]) -> list[Row]:
    """Calls and marks in the order they began; calls that another made stay behind it."""
    groups: list[list[Row]] = [[{**mark, "is_mark": True}] for mark in marks]
    for row in calls:
        if row["depth"]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [row for group in sorted(groups, key=lambda group: group[0]["start_ms"]) for row in group]


def _longest_stall(calls: Sequence[Row]) -> Row | None:
    stalls = [{**stall, "call": row} for row in calls if row["counted"] for stall in row["stalls"]]
    return max((s for s in stalls if s["position"] != "first"), key=lambda stall: stall["gap_ms"], default=None)


def _arrivals(tape: Tape, call_id: int) -> list[Row]:
    """When which share of the events of a call had come."""
    last = tape.last_index(call_id)
    if last < 0:
        return []
    indexes = {share: max(0, -(-(last + 1) * share // 100) - 1) for share in SHARES}
    found = []
    for share, at in indexes.items():
        (event,) = tape.page_of_events(call_id, 1, after=at - 1)
        # It may have been removed.
        if event["token_index"] == at:
            found.append({"share": share, "events": at + 1, "timestamp_ms": event["timestamp_ms"]})
    return found


def _texts(tape: Tape, call: Row, parts: list[Row]) -> list[Row]:
    """The parts of a call with their text; while it runs, and where it never ended, with what has come."""
    if any(part["content"] is None for part in parts) and call["content_level"] != "timings":
        events = tape.columns(call["id"])
        for part in parts:
            pieces = [t for p, t in zip(events.part, events.token, strict=True) if p == part["part"] and t is not None]
            if part["content"] is None and pieces:
                part["content"] = "".join(pieces)
    return parts
