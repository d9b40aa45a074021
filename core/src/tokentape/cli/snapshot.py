"""`tokentape snapshot`: a copy of the tape, or of some calls, in one file that can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import words
from .options import Moment, TakesNegativeNumbers, configured, db_option, example, opened, run_uid
from .terminal import one_line

if TYPE_CHECKING:
    from ..store.snapshots import Snapshot


@click.command(
    "snapshot",
    epilog=example("tokentape snapshot slow-call.db -1", "tokentape snapshot today.db --since 24h --content timings"),
    cls=TakesNegativeNumbers,
)
@db_option
@click.option("--run", metavar="RUN", help="Only this run, and the runs inside it.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only what began since: 2026-11-23, or 24h (ago).")
@click.option(
    "--content",
    type=click.Choice(["timings"]),
    help="timings: without prompts, answers, error messages and log-probabilities.",
)
@click.argument("out", metavar="OUT.db", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("calls", metavar="[CALL]...", nargs=-1)
def command(
    db: str | None, run: str | None, since: int | None, content: str | None, out: Path, calls: tuple[str, ...]
) -> None:
    """Copy the tape, or some calls of it, to one file.

    OUT.db is a tape like any other, as it was at one moment, without a second file beside it: small, and safe to send
    once you have read what text is inside, which the command says. CALL is as in tokentape show; with it come the
    framework's call it belongs to, or the SDK's calls it made. Several conditions narrow each other.
    """
    from ..redaction import Rules, chosen
    from ..store.choice import Choice
    from ..store.snapshots import take

    if str(out).startswith("-"):
        raise click.UsageError(f"OUT.db comes first, then the calls: tokentape snapshot call.db {out}")
    with opened(db) as tape:
        choice = Choice(calls=[tape.call(ref)["uid"] for ref in calls], run=run_uid(tape, run), since_us=since)
        path = tape.path
    taken = take(path, out, choice, timings=content == "timings", rules=Rules(chosen(configured(db).redact)))
    for line in _lines(out, taken):
        click.echo(one_line(line))


def _lines(out: Path, taken: Snapshot) -> list[str]:
    counts = (("llm_calls", "call"), ("llm_tokens", "token event"), ("runs", "run"))
    held = ", ".join(words.plural(taken.rows[table], noun) for table, noun in counts)
    texts = ", ".join(f"{kind} ({count:,})" for kind, count in taken.texts.items())
    return [
        f"{out}: {held}, {words.size(taken.bytes)}",
        f"Text inside: {texts or 'none'}; names of models, calls, runs, hosts and scripts.",
    ]
