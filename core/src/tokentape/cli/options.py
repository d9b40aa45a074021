"""What commands have in common: where the tape is, JSON instead of words, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import settings
from ..errors import TapeError

db_option = click.option("--db", metavar="PATH", help="The tape. Default: TOKENTAPE_DB, else one in your data folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, under the names of the tape's columns.")


def label_option(text: str) -> Any:
    """The option `--label k=v`, which may be given several times and reaches the command as a dict.

    Args:
        text: what it does in this command.
    """
    return click.option("--label", "labels", metavar="K=V", multiple=True, callback=_labels, help=text)


def configured(db: str | None, **keywords: Any) -> settings.Settings:
    """Settings as the options and the environment say; `--db` before the command counts where there is none behind it.

    Raises:
        SettingsError: a value cannot be used.
    """
    ctx = click.get_current_context(silent=True)
    given = db or (ctx.find_root().params.get("db") if ctx is not None else None)
    return settings.resolve({"db": given, **keywords})


def tape_path(db: str | None) -> Path:
    """Path of the tape to read.

    Raises:
        TapeError: there is none, because recording is set to write no tape.
    """
    path = configured(db).db
    if path is None:
        raise TapeError("the tape is set to none: nothing can be read; name one with --db PATH")
    return path


def _labels(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, pair in zip(given, pairs, strict=True) if not pair[0].strip() or not pair[1]), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r}: expected key=value.", ctx, parameter)
    return {key.strip(): value.strip() for key, _, value in pairs}
