"""`tokentape run`: records a program without changing it."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import words
from ..clock import SYSTEM_CLOCK
from ..errors import TapeError, TokentapeError
from ..ids import new_uid
from ..models import CONTENT_LEVELS, Run
from ..settings import Settings, is_disabled
from . import child
from .options import configured, db_option, example, label_option
from .target import Target, find, require_tokentape
from .terminal import note

if TYPE_CHECKING:
    from ..store.plugin import SQLiteStore

RUN_VARIABLE = "TOKENTAPE_RUN"
NOTES_VARIABLE = "TOKENTAPE_RUN_NOTES"


@click.command(
    "run",
    epilog=example(
        "tokentape run app.py",
        "tokentape run --label env=test -m package.module --its-own-option",
        "tokentape run gunicorn app:app",
    ),
    context_settings={"allow_interspersed_args": False},
)
@db_option
@click.option("--name", metavar="NAME", help="Name of the run. Default: the script's, the module's or the command's.")
@label_option("Label on every call of the program; may be given several times.")
@click.option("--content", type=click.Choice(CONTENT_LEVELS), help="How much text is kept. Default: redacted.")
@click.option("-m", "as_module", is_flag=True, help="TARGET is a module, as for python -m.")
@click.argument("line", metavar="TARGET [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    db: str | None, name: str | None, labels: dict[str, str], content: str | None, as_module: bool, line: Sequence[str]
) -> None:
    """Run a program and record what it streams.

    TARGET is a script, a module (with -m) or any command. It is not changed; its arguments, streams and exit code pass
    through, and what it starts is recorded too.
    """
    chosen = configured(db, content=content, labels={**configured(db).labels, **_sendable(labels)})
    if chosen.db is not None:
        # The program may go to another folder before it records.
        chosen = replace(chosen, db=chosen.db.absolute())
    program = find(line, as_module)
    sys.exit(_run(program, chosen, name or program.name, f" --db {shlex.quote(db)}" if db else ""))


def _sendable(labels: dict[str, str]) -> dict[str, str]:
    """Labels as the environment can carry them to the program."""
    wrong = next((f"{key}={value}" for key, value in labels.items() if "," in key + value), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r}: a label of a run can have no comma.", param_hint="--label")
    return labels


def _run(program: Target, chosen: Settings, name: str, db_argument: str) -> int:
    if is_disabled():
        note("tokentape: TOKENTAPE_DISABLED is set: not recording.")
        return child.run(program.argv, os.environ)
    require_tokentape(program)
    run = Run(
        new_uid(), os.environ.get(RUN_VARIABLE) or None, _presentable(name, chosen), SYSTEM_CLOCK.unix_ns() // 1000
    )
    try:
        store = _opened(chosen.db, run)
    except TapeError as problem:
        note(f"tokentape: not recording: {problem}")
        return child.run(program.argv, os.environ)
    with tempfile.TemporaryDirectory(prefix="tokentape-", ignore_cleanup_errors=True) as folder:
        notes = Path(folder) / "notes"
        code = 1
        try:
            code = child.run(program.argv, child.recorded(os.environ, _variables(chosen, run, notes)))
        finally:
            _close(store, run, code)
        for line in _last_lines(chosen.db, run, notes, db_argument):
            note(line)
    return code


def _presentable(name: str, settings: Settings) -> str:
    from ..redaction import Rules, chosen, redact_text

    return redact_text(name, Rules(chosen(settings.redact)))


def _opened(path: Path | None, run: Run) -> SQLiteStore | None:
    """Note on the tape that the run has begun; the processes of the program find it there.

    Raises:
        TapeError: the path cannot be used as a tape.
    """
    if path is None:
        return None
    from ..process import this_process
    from ..store.plugin import SQLiteStore

    store = SQLiteStore(path, this_process("tokentape"), max_buffer=1)
    store.tokentape_run_started(run)
    store.tokentape_flush()
    return store


def _close(store: SQLiteStore | None, run: Run, code: int) -> None:
    if store is not None:
        ended = SYSTEM_CLOCK.unix_ns() // 1000
        store.tokentape_run_finished(replace(run, status="error" if code else "completed", ended_unix_us=ended))
        store.tokentape_flush()
        store.tokentape_shutdown()


def _variables(chosen: Settings, run: Run, notes: Path) -> dict[str, str]:
    variables = {
        RUN_VARIABLE: run.uid,
        NOTES_VARIABLE: str(notes),
        "TOKENTAPE_DB": str(chosen.db or "none"),
        "TOKENTAPE_CONTENT": chosen.content,
        "TOKENTAPE_LABELS": ",".join(f"{key}={value}" for key, value in chosen.labels.items()),
    }
    return {name: value for name, value in variables.items() if value}


def _last_lines(path: Path | None, run: Run, notes: Path, db_argument: str) -> list[str]:
    """What kept something from being recorded, then what was recorded and the next step."""
    joined = notes.exists()
    kept_out = list(dict.fromkeys(json.loads(line) for line in notes.read_text("ascii").splitlines())) if joined else []
    if not joined:
        kept_out.append("no Python process could be recorded: is it a Python program, run without -I, -E and -S?")
    return [*(f"tokentape: {line}" for line in kept_out), _summary(path, run, db_argument)]


def _summary(path: Path | None, run: Run, db_argument: str) -> str:
    if path is None:
        return "No tape was written (db is none). Next: tokentape status"
    from ..tape import Tape

    try:
        with Tape.open(path) as tape:
            tape.mark_lost()
            found = tape.summary_of_run(run.uid)
    except (TokentapeError, sqlite3.Error) as problem:
        return f"The tape cannot be read: {problem}"
    return f"{words.summary(found)}. Next: tokentape {'show' if found['call_count'] else 'status'}{db_argument}"
