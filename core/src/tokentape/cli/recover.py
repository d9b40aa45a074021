"""`tokentape recover`: saves what can be read of a damaged tape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .. import words
from ..errors import TapeError
from .options import configured, db_option, example, json_option
from .terminal import one_line, print_json

if TYPE_CHECKING:
    from ..store.recovery import Recovered

_NOUNS: Final = {
    "processes": "process row",
    "runs": "run",
    "llm_calls": "call",
    "llm_parts": "part",
    "llm_tokens": "token event",
    "llm_token_logprobs": "log-probability",
    "llm_stalls": "stall",
    "call_labels": "label",
    "marks": "mark",
}
_SAID: Final = ("runs", "llm_calls", "llm_tokens", "llm_stalls", "marks")


@click.command("recover", epilog=example("tokentape recover tape.db.corrupt-20261127-003355 saved.db"))
@click.argument("broken", metavar="[BROKEN.db]", required=False, type=click.Path(path_type=Path))
@click.argument("out", metavar="[OUT.db]", required=False, type=click.Path(path_type=Path))
@db_option
@json_option
def command(broken: Path | None, out: Path | None, db: str | None, as_json: bool) -> None:
    """Save what can be read of a damaged tape into a new one.

    BROKEN.db is the damaged tape, by default the tape of --db or the environment; it is not changed. OUT.db is the new
    one, which must not exist; by default tape-recovered.db beside a damaged tape.db. A tape that is healthy is left
    alone.
    """
    path = broken or configured(db).db
    if path is None:
        raise TapeError("the tape is set to none: there is nothing to recover; name a damaged tape")
    from ..store.recovery import recover

    found = recover(path, out or path.with_name(f"{path.name.removesuffix('.db')}-recovered.db"))
    if as_json:
        print_json({"healthy": found is None, **(asdict(found) if found is not None else {})})
        return
    for line in _lines(path, found):
        click.echo(one_line(line))


def _lines(path: Path, found: Recovered | None) -> Iterator[str]:
    if found is None:
        yield f"{path} is healthy: there is nothing to recover."
        return
    saved = ", ".join(words.plural(found.saved[table], _NOUNS[table]) for table in _SAID)
    yield f"Saved to {found.path}: {saved}."
    missing = list(_missing(found))
    yield f"Not saved: {'; '.join(missing)}." if missing else "Nothing is missing."
    if found.calls_without_row:
        yield f"{words.plural(found.calls_without_row, 'call')} had only events and parts left, and no name or model."
    if found.open_calls:
        yield f"{words.plural(found.open_calls, 'call')} had not ended; on the new tape they are lost."


def _missing(found: Recovered) -> Iterator[str]:
    if found.missing_events:
        of = words.plural(found.calls_with_missing, "call")
        yield f"{words.plural(found.missing_events, 'token event')} of {of}"
    for table, count in found.unread.items():
        if count is not None:
            yield f"up to {words.plural(count, _NOUNS[table])}"
        elif table != "llm_tokens" or not found.missing_events:
            yield f"an unknown number of {words.plural(2, _NOUNS[table]).removeprefix('2 ')}"
