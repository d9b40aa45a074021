"""`tokentape path`: where the tape is, for scripts."""

from __future__ import annotations

import click

from .options import configured, db_option, example


@click.command("path", epilog=example('sqlite-utils tables "$(tokentape path)"'))
@db_option
def command(db: str | None) -> None:
    """Print the path of the tape, whether or not it exists."""
    path = configured(db).db
    click.echo(path if path is not None else "none")
