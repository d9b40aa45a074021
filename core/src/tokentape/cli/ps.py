"""`tokentape ps`: calls in flight, in any process that records to the tape."""

from __future__ import annotations

import click

from .. import words
from .options import db_option, example, json_option, opened
from .terminal import note, one_line, print_json


@click.command("ps", epilog=example("tokentape ps"))
@db_option
@json_option
def command(db: str | None, as_json: bool) -> None:
    """List the calls that have not ended.

    The one that has been silent longest comes first.
    """
    with opened(db) as tape:
        calls = tape.in_flight()
    if as_json:
        print_json(calls)
    for call in () if as_json else calls:
        click.echo(one_line(f"{words.in_flight(call)}  ({call['process']}, pid {call['pid']}, {call['uid']})"))
    if not calls:
        note("No call is in flight.")
