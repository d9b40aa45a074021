"""What commands have in common: where the tape is, JSON instead of words, labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .. import settings
from ..errors import TapeError, TokentapeError
from .terminal import note

if TYPE_CHECKING:
    from ..tape import Tape

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

db_option = click.option("--db", metavar="PATH", help="The tape. Default: TOKENTAPE_DB, else one in your data folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, under the names of the tape's columns.")


_FROM_THE_END: Final = re.compile(r"-\d+")
_AGO: Final = re.compile(r"(\d{1,6})([mhd])")
_MINUTES: Final = {"m": 1, "h": 60, "d": 1440}


class TakesNegativeNumbers(click.Command):
    """A command to which `-2` is an argument and every other word with a dash an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        if "--" not in args:
            numbers = [word for word in args if _FROM_THE_END.fullmatch(word)]
            args = [*(word for word in args if word not in numbers), *(["--", *numbers] if numbers else [])]
        return super().parse_args(ctx, args)


class Moment(click.ParamType):  # type: ignore[type-arg]  # in some versions generic, and only for type checkers
    """A date, a time (UTC unless it says otherwise), or how long ago, as microseconds since 1970."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read what was given."""
        ago = _AGO.fullmatch(value)
        if ago is not None:
            at = datetime.now(UTC) - timedelta(minutes=int(ago[1]) * _MINUTES[ago[2]])
        else:
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                at = self.fail(f"{value!r}: expected a date like 2026-11-23, a time, or an age like 90m, 24h, 7d.")
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


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


def run_uid(tape: Tape, ref: str | None) -> str | None:
    """The uid of the run that a uid, the beginning of one, a row id or a name means; None for None.

    Raises:
        TokentapeError: no run answers to it, or more than one.
    """
    if ref is None:
        return None
    newest = tape.run_named(ref)
    found = tape.find_runs(ref) or ([newest] if newest is not None else [])
    if len(found) == 1:
        return str(found[0]["uid"])
    what = "more than one run answers" if found else "no run answers"
    raise TokentapeError(f"{what} to {ref!r} on {tape.path}; give its uid, or more of it")


def _labels(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, pair in zip(given, pairs, strict=True) if not pair[0].strip() or not pair[1]), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r}: expected key=value.", ctx, parameter)
    return {key.strip(): value.strip() for key, _, value in pairs}
