"""`tokentape show`: one call in plain words, or one run with its calls and marks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import click

from .. import words
from ..errors import CallNotFound
from ..models import Metrics
from ..shares import shares_of_run
from .drawing import Drawing, timeline
from .list import print_table
from .options import TakesNegativeNumbers, db_option, example, json_option, opened
from .terminal import console, note, one_line, print_json, safe

if TYPE_CHECKING:
    from ..tape import Event, Tape

Row = dict[str, Any]

METRICS: Final = [*(f.name for f in fields(Metrics)), *words.ALIASES]
NO_TEXT: Final = "(no text was kept)"
STYLES: Final = {"·": "yellow", "~": "magenta", "=": "red", "?": "dim", "▄": "cyan"}


@click.command(
    "show",
    epilog=example("tokentape show -2", "tokentape show --metric first_token_latency_ms"),
    cls=TakesNegativeNumbers,
)
@db_option
@click.option(
    "--metric", type=click.Choice(METRICS), metavar="NAME", help="Print this number alone; NAME is its column."
)
@json_option
@click.argument("ref", metavar="[CALL]", default="-1")
def command(db: str | None, metric: str | None, as_json: bool, ref: str) -> None:
    """Show a call: how it ended, where its time went, what it said.

    CALL is a uid or the beginning of one, a row id, or -1 for the last call (so it is without CALL), -2 for the one
    before it. The uid of a run, or a name, which means the newest run of that name, shows the calls and the marks of
    that run, and where its time went: to the model while a call was open (a framework's call counts by the requests it
    made), else to the mark that began last, else to neither. Each moment counts once.
    """
    with opened(db) as tape:
        if not tape.calls(1):
            raise CallNotFound(f"no call is recorded on {tape.path} yet; record a program with: tokentape run app.py")
        try:
            call = tape.call(ref)
        except CallNotFound:
            run = tape.run(ref) or tape.run_named(ref)
            if run is None:
                raise
            _show_run(tape, run, as_json)
            return
        if metric is not None:
            _show_metric(call, metric, as_json)
        elif as_json:
            print_json({**call, "parts": tape.parts(call["id"]), "stalls": tape.stalls(call["id"])})
        else:
            _show_call(tape, call)


def _show_call(tape: Tape, call: Row) -> None:
    events, stalls, parts = tape.events(call["id"]), tape.stalls(call["id"]), tape.parts(call["id"])
    run = tape.run(call["run_id"]) if call["run_id"] is not None else None
    kept = {"events": call["events_kept"], "event_count": len(events), "content": any(p["content"] for p in parts)}
    left = filter(None, [words.left(call | {"kept": kept})])
    for line in (*_heading(call, run), *_linked(**tape.linked(call)), "", *_statistics(call, stalls), *left):
        click.echo(one_line(line))
    if events:
        click.echo()
        _print_drawing(_drawn(call, events, stalls, console().width))
    for part in parts:
        click.echo()
        click.echo(_part(part, events))


def _heading(call: Row, run: Row | None) -> Iterator[str]:
    yield f"{call['name']}  {call['uid']}"
    yield words.outcome(call)
    model = call["request_model"] or call["response_model"]
    answered = call["response_model"] if call["response_model"] != model else None
    labels = [f"{key}={value}" for key, value in json.loads(call["labels_json"] or "{}").items()]
    facts = [
        f"{call['adapter']} {call['operation']}" + (f" {model}" if model else ""),
        answered and f"answered by {answered}",
        call["server_address"],
        run and f"run {run['name']}",
        # The level that is usual needs no word.
        call["content_level"] != "redacted" and f"content level {call['content_level']}",
        *labels,
    ]
    yield ", ".join(fact for fact in facts if fact)


def _linked(parent: Row | None, children: Sequence[Row]) -> Iterator[str]:
    if parent is not None:
        yield f"made for the {parent['layer']}'s call {parent['name']}  {parent['uid']}"
    for child in children:
        yield f"made the request {child['name']}  {child['uid']}"


def _statistics(call: Row, stalls: Sequence[Row]) -> Iterator[str]:
    said = [words.first_token(call), words.thinking(call), words.amount(call), words.gaps(call), words.usage(call)]
    yield from filter(None, said)
    yield from (f"stall {words.stall(row, call['event_count'])}" for row in stalls)
    if call["dropped_count"]:
        yield f"{words.plural(call['dropped_count'], 'event')} dropped: the tape could not be written"
    if call["events_kept"] != "all":
        yield f"events kept: {call['events_kept']}"


def _drawn(call: Row, events: Sequence[Event], stalls: Sequence[Row], width: int) -> Drawing:
    if call["duration_ms"] is not None:
        end_us = int(call["duration_ms"] * 1000)
    elif call["status"] == "running":
        end_us = max(events[-1].offset_us, time.time_ns() // 1000 - call["started_unix_us"])
    else:
        end_us = events[-1].offset_us  # lost: nobody knows for how long it went on
    by_hand = not any(event.wait_us for event in events)
    arrivals = [(event.offset_us, event.wait_us) for event in events]
    indexes = [event.token_index for event in events]
    return timeline(arrivals, stalls, end_us, min(width, 120), by_hand, indexes)


def _print_drawing(drawing: Drawing) -> None:
    from rich.text import Text

    line = Text(no_wrap=True)
    for shown, mark in zip(drawing.line, drawing.marks, strict=True):
        line.append(shown, style=STYLES.get(mark, ""))
    out = console()
    out.print(line)
    out.print(Text(drawing.legend))


def _part(part: Row, events: Sequence[Event]) -> str:
    """A part's text, control characters escaped and line breaks kept; while the call runs, what has come so far."""
    content = part["content"]
    if content is None:
        content = "".join(event.token or "" for event in events if event.part == part["part"]) or NO_TEXT
    name = f" {part['name']}" if part["name"] else ""
    choice = f", choice {part['choice']}" if part["choice"] else ""
    return f"{part['kind']}{one_line(name)}{choice}:\n{safe(content)}"


def _show_metric(call: Row, metric: str, as_json: bool) -> None:
    column = words.ALIASES.get(metric, metric)
    if as_json:
        print_json({column: call[column]})
    else:
        click.echo("unknown" if call[column] is None else call[column])
    if column in words.FORMULAS:
        note(f"{column} = {words.FORMULAS[column]}")


def _show_run(tape: Tape, run: Row, as_json: bool) -> None:
    calls, marks = tape.calls(limit=-1, run=run["uid"]), tape.marks(run["uid"])
    spent = shares_of_run(run, tape.call_times(run["uid"]), marks)
    if as_json:
        print_json({**run, "calls": calls, "marks": marks, "time": [share._asdict() for share in spent]})
        return
    click.echo(one_line(f"run {run['name']}  {run['uid']}"))
    click.echo(one_line(f"{run['status']}: {words.summary(tape.summary_of_run(run['uid']))}"))
    click.echo(one_line(words.time_spent(spent)))
    if calls:
        click.echo()
        print_table(calls)
    if marks:
        click.echo()
    for mark in marks:
        click.echo(one_line(f"{mark['kind']} {mark['name']}: {words.duration(mark['duration_us'] / 1000)}"))
