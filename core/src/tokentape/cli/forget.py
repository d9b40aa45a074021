"""`tokentape forget`: removes calls for good, with everything that holds the same answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from .. import words
from ..errors import TokentapeError
from .options import Moment, TakesNegativeNumbers, db_option, example, opened, run_uid
from .terminal import note, one_line

if TYPE_CHECKING:
    from ..store.choice import Choice
    from ..store.forgetting import Found
    from ..tape import Tape

NAMED_CALLS: Final = 10


@click.command(
    "forget",
    epilog=example("tokentape forget -1", 'tokentape forget --containing "Jane Doe" --yes'),
    cls=TakesNegativeNumbers,
)
@db_option
@click.option("--run", metavar="RUN", help="Everything in this run, and in the runs inside it; the run too.")
@click.option("--before", type=Moment(), metavar="DATE", help="What began before: 2026-11-23, or 30d (ago).")
@click.option("--containing", metavar="TEXT", help="What has this text in it, in either case of its letters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("calls", metavar="[CALL]...", nargs=-1)
def command(
    db: str | None, run: str | None, before: int | None, containing: str | None, yes: bool, calls: tuple[str, ...]
) -> None:
    """Remove calls for good: afterwards their bytes are gone from the file.

    With a call goes what holds the same answer: the framework's call it belongs to, or the SDK's calls it made; with
    all of them their events, texts, prompts, labels, stalls and marks. CALL is as in tokentape show. Several conditions
    narrow each other. What is still running is refused, and then nothing is removed. Copies that you have made of the
    tape stay as they are.
    """
    from ..store.forgetting import forget

    if not (calls or run or before is not None or containing):
        raise click.UsageError("Name what to forget: CALL, --run, --before or --containing.")
    with opened(db) as tape:
        choice = _choice(tape, calls, run, before, containing)
        if not yes:
            _ask(tape, choice)
        path, single_file = tape.path, tape.is_snapshot
    before_bytes = path.stat().st_size
    found = forget(path, choice, single_file=single_file)
    said = f"Forgotten: {_amount(found)}." if found else "Nothing on the tape is like that."
    click.echo(one_line(f"{said} {path}: {words.size(before_bytes)}, now {words.size(path.stat().st_size)}."))


def _choice(
    tape: Tape, calls: tuple[str, ...], run: str | None, before_us: int | None, containing: str | None
) -> Choice:
    from ..store.choice import Choice

    uids = [tape.call(ref)["uid"] for ref in calls]
    return Choice(calls=uids, run=run_uid(tape, run), before_us=before_us, text=containing or None)


def _ask(tape: Tape, choice: Choice) -> None:
    """Show what would go, and leave the command where nobody agrees."""
    from ..store.forgetting import preview

    found = preview(tape.path, choice)
    if not found:
        return
    rows = tape.rows_of_calls(found.calls[:NAMED_CALLS])
    for call in rows:
        note(f"{call['uid']} {call['started_at'][:19]} {call['name']} {call['status']}")
    if len(found.calls) > len(rows):
        note(f"… and {words.plural(len(found.calls) - len(rows), 'more call')}")
    try:
        agreed = click.confirm(f"Remove {_amount(found)} for good?", err=True)
    except click.Abort:
        note("")
        agreed = False
    if not agreed:
        raise TokentapeError("nothing was forgotten; answer y, or give --yes")


def _amount(found: Found) -> str:
    counts = {
        "call": len(found.calls),
        "token event": found.events,
        "run": len(found.runs),
        "mark": len(found.marks),
    }
    return ", ".join(words.plural(count, noun) for noun, count in counts.items() if count or noun == "call")
