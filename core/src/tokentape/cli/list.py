"""`tokentape list`: the newest calls, one a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from .. import words
from ..models import FINAL_STATUSES
from .options import db_option, example, json_option, label_option, opened, run_uid
from .terminal import console, note, one_line, print_json

if TYPE_CHECKING:
    from rich.table import Table

STYLES: Final[Mapping[str, str]] = {
    "running": "cyan",
    "error": "red",
    "cancelled": "yellow",
    "abandoned": "yellow",
    "lost": "yellow",
}
# Where uids are cut to fit: more than the ten characters of the millisecond, and more wherever two are alike.
SHORT_UID: Final = 14
# From how many columns on a terminal has room for the start of the text, and for whole uids.
TEXT_FROM: Final = 120
WHOLE_UID_FROM: Final = 140
MODEL_WIDTH: Final = 24
RUN_WIDTH: Final = 20


@click.command("list", epilog=example("tokentape list -n 5 --status error --label env=prod"))
@db_option
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at the most.")
@label_option("Only calls with this label; may be given several times.")
@click.option("--status", type=click.Choice(["running", *FINAL_STATUSES]), help="Only calls with this status.")
@click.option("--run", metavar="RUN", help="Only calls of this run, and of the runs inside it.")
@click.option("--model", metavar="NAME", help="Only calls that asked for this model, or were answered by it.")
@json_option
def command(
    db: str | None,
    limit: int,
    labels: dict[str, str],
    status: str | None,
    run: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """List the newest calls. Times are UTC."""
    with opened(db) as tape:
        calls = tape.calls(limit, labels=labels, status=status, model=model, run=run_uid(tape, run))
    if as_json:
        print_json(calls)
    elif calls:
        print_table(calls)
    if not calls:
        asked = labels or status or run or model
        note("No call is like that; see: tokentape list" if asked else "No call is recorded yet: tokentape run app.py")


def print_table(calls: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the view `calls` on stdout, in the width of the terminal."""
    out = console()
    out.print(_table(calls, out.width, out.is_terminal))


def _table(calls: Sequence[Mapping[str, Any]], width: int, fills_width: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    has_text = width >= TEXT_FROM
    apart = (0, 2 if has_text else 1, 0, 0)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=apart, expand=fills_width)
    # Where a framework's calls are among them, each is told from the requests it made.
    has_layers = any(call["layer"] == "framework" for call in calls)
    # Where there are several runs, such as one for each request to a server.
    has_runs = has_text and len({call["run_name"] for call in calls}) > 1
    for heading in ("uid", "when", *(("layer",) if has_layers else ()), "status", "first", "rate", "longest gap"):
        table.add_column(heading, no_wrap=True)
    if has_text:
        table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=MODEL_WIDTH if fills_width else None)
    if has_runs:
        table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=RUN_WIDTH if fills_width else None)
    # The last column takes what the others leave of a terminal.
    table.add_column("text" if has_text else "model", no_wrap=True, overflow="ellipsis", ratio=1)
    digits = None if width >= WHOLE_UID_FROM else _distinct([call["uid"] for call in calls])
    for call in calls:
        status = Text(call["status"], STYLES.get(call["status"], ""))
        shown = ("model", *(("run_name",) if has_runs else ()), *(("text_start",) if has_text else ()))
        names = [one_line(call[column] or "") for column in shown]
        # Text, so that nothing in it is taken for markup.
        said = map(Text, [*_numbers(call), *names])
        layer = [call["layer"]] if has_layers else []
        table.add_row(call["uid"][:digits], _when(call["started_at"], has_text), *layer, status, *said)
    return table


def _numbers(call: Mapping[str, Any]) -> list[str]:
    first, gap = call["first_token_latency_ms"], call["longest_gap_ms"]
    longest = "" if gap is None else f"{words.duration(gap)} {call['cause'] or ''}".rstrip()
    return ["" if first is None else words.duration(first), words.rate(call) or "", longest]


def _when(at: str, is_wide: bool) -> str:
    """A time of today as time, of this year as day and, where there is room, time, else as date."""
    now = datetime.now(UTC)
    if at.startswith(now.date().isoformat()):
        return at[11:19]
    if not at.startswith(f"{now.year}-"):
        return at[:10]
    return f"{at[5:10]} {at[11:19]}" if is_wide else at[5:10]


def _distinct(uids: Sequence[str]) -> int:
    """How much of each uid tells it from all others here."""
    size = SHORT_UID
    while len({uid[:size] for uid in uids}) < len(uids):
        size += 1
    return size
