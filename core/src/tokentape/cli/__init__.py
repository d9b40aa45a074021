"""The command `tokentape`: records programs, and says on a terminal what their streams did."""

from __future__ import annotations

import io
import sys

import click

from .. import __version__
from .group import Group
from .options import db_option, example


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog=example("tokentape run app.py", "tokentape show"),
    commands_in={
        "demo": ".demo",
        "forget": ".forget",
        "list": ".list",
        "metadata": ".metadata",
        "path": ".path",
        "plugins": ".plugins",
        "ps": ".ps",
        "recover": ".recover",
        "run": ".run",
        "show": ".show",
        "snapshot": ".snapshot",
        "status": ".status",
    },
    brought_by={"serve": "datasette"},
)
@db_option
@click.version_option(__version__, prog_name="tokentape")
@click.pass_context
def cli(ctx: click.Context, db: str | None) -> None:
    """Record the LLM streams of programs, and say what they did.

    Without a command: where the tape is, what is on it, and the next step.
    """
    if ctx.invoked_subcommand is None:
        from .status import overview

        overview(db)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever was recorded can be shown, also where the terminal speaks Latin-1.
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="tokentape")
