"""What commands have in common: where the tape is, JSON instead of words, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import settings
from ..errors import TapeError
from .terminal import note

if TYPE_CHECKING:
    from ..tape import Tape

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

db_option = click.option("--db", metavar="PATH", help="The tape. Default: TOKENTAPE_DB, else one in your data folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, under the names of the tape's columns.")


def example(*lines: str) -> str:
    """The end of a command's help: lines that can be typed as they are."""
    return "\n  ".join(["\b\nExample:", *lines])


def label_option(text: str) -> Callable[[Decorated], Decorated]:
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


@contextmanager
def opened(db: str | None) -> Iterator[Tape]:
    """The tape, open for reading, on which the calls of dead processes have been marked as lost.

    Raises:
        TapeError: there is no tape, or it cannot be read.
    """
    path = configured(db).db
    if path is None:
        raise TapeError("the tape is set to none: nothing can be read; name one with --db PATH")
    from ..tape import Tape

    with Tape.open(path) as tape:
        tape.mark_lost()
        if tape.is_newer:
            note(f"{path} was written by a newer version of tokentape; upgrade with: pip install -U tokentape")
        yield tape


def _labels(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, pair in zip(given, pairs, strict=True) if not pair[0].strip() or not pair[1]), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r}: expected key=value.", ctx, parameter)
    return {key.strip(): value.strip() for key, _, value in pairs}
