"""`tokentape demo`: records streams of the real OpenAI SDK from a server on loopback, and shows what the tape says."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import tokentape

from .. import patching, settings, words
from ..errors import TapeError
from ..store import schema
from ..tape import Tape
from ..testing import ProviderServer
from .demo_progress import Show, progress
from .demo_scenes import SCENES, WARM_UP, Scene, Stage
from .group import Mistake
from .list import STYLES
from .options import example, json_option
from .terminal import console, print_json

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]

# Whatever the environment says: the demo is the same everywhere.
SETTINGS: Final[dict[str, Any]] = {
    "content": "redacted",
    "prompts": False,
    "labels": {},
    "plugins": ("openai",),
    "sample_rate": 1.0,
    "stall_ms": 1000.0,
    "flush_ms": 100.0,
}
# What `llm_calls` has beyond the view `calls` that the table, or a program that reads it, asks for.
MORE_COLUMNS: Final = ("retries", "http_status", "error_type", "first_output_token_latency_ms", "stall_count")
OTHERS_CALLS: Final = """
SELECT count(*) FROM llm_calls c LEFT JOIN runs r ON r.id = c.run_id
WHERE r.name IS NOT 'demo' OR c.id NOT IN (SELECT call_id FROM call_labels WHERE key = 'scene')
"""
CAUSE_STYLES: Final = {"upstream": "yellow", "blocked": "magenta", "own": "red"}
INSTALL: Final = 'pip install "tokentape[openai]"'


@click.command("demo", epilog=example("tokentape demo"))
@click.option("--db", metavar="PATH", help="The tape to make. Default: demo.db beside your own, which is left alone.")
@json_option
def command(db: str | None, as_json: bool) -> None:
    """Record streams of the OpenAI SDK from a server on this machine, and show what was recorded.

    No key and no network is needed. It takes about twenty seconds; the tape of an earlier demo is replaced.
    """
    path = _tape_to_make(db)
    sdk = _sdk()
    _make_room(path)
    with progress() as show:
        _record(path, sdk, show)
    rows = demo_rows(path)
    if as_json:
        print_json(rows)
        return
    console().print(_table(rows))
    click.echo("\nGo on with:")
    for line in _next_steps(path, rows):
        click.echo(f"  {line}")


def demo_rows(path: Path) -> list[Row]:
    """The calls of a demo's tape in the order they were made: the view `calls` with scene, retries and some more."""
    with Tape.open(path) as tape:
        return [_demo_row(row, tape.call(row["call_id"])) for row in reversed(tape.calls(-1))]


def _demo_row(row: Row, call: Row) -> Row:
    return {"scene": json.loads(call["labels_json"])["scene"], **row, **{name: call[name] for name in MORE_COLUMNS}}


def _tape_to_make(db: str | None) -> Path:
    given = db or click.get_current_context().find_root().params.get("db")
    # Not TOKENTAPE_DB: that is where the user's own calls are.
    path = settings.resolve({"db": given or settings.default_db().with_name("demo.db")}, {}).db
    if path is None:
        raise TapeError("the demo needs a tape to show; name one with --db PATH")
    if path.resolve() == settings.default_db().resolve():
        raise TapeError(f"{path} is where your own calls are recorded; choose another file with --db")
    return path


def _sdk() -> Any:
    """The module `openai`, once it and its adapter are known to fit."""
    if settings.is_disabled():
        raise Mistake("TOKENTAPE_DISABLED is set, so nothing is recorded; unset it and try again", 1)
    settings.resolve(SETTINGS)
    try:
        # By name: core imports no SDK and no adapter, and does without both until somebody asks for the demo.
        sdk, adapter = importlib.import_module("openai"), importlib.import_module("tokentape_openai")
    except ImportError as missing:
        raise Mistake(f"the demo needs the OpenAI SDK and its adapter ({missing}): {INSTALL}", 1) from None
    patching.require("openai", "openai", sdk.__version__, adapter.SUPPORTED)
    return sdk


def _make_room(path: Path) -> None:
    """Take away the tape of an earlier demo; nothing else is ever taken away."""
    if path.exists() and not (path.is_file() and path.stat().st_size == 0):
        db = schema.open_for_reading(path)
        try:
            others = db.execute(OTHERS_CALLS).fetchone()[0]
        finally:
            db.close()
        if others:
            made = f"{words.plural(others, 'call')} that no demo made"
            raise TapeError(f"{path} has {made}; choose another file with --db")
        _remove(path)
    schema.open_for_writing(path).close()


def _remove(path: Path) -> None:
    try:
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            file.unlink(missing_ok=True)
    except OSError as problem:
        raise TapeError(f"{path} cannot be replaced ({problem.strerror}); choose another file with --db") from None


def _record(path: Path, sdk: Any, show: Show) -> None:
    # A demo inside `tokentape run` is recorded by itself, not to the tape of that run.
    tokentape.disable()
    tokentape.enable(db=path, **SETTINGS)
    try:
        if not any(patches["patched"] for patches in tokentape.status()["patches"]):
            raise Mistake(f"the OpenAI adapter is not active; see tokentape plugins, or install it: {INSTALL}", 1)
        with ProviderServer() as server, tokentape.run("demo"):
            # What the SDK does once a process would otherwise be in the first scene's first token.
            with tokentape.suppress():
                _play(WARM_UP, server, sdk, show)
            for scene in SCENES:
                with tokentape.label(scene=scene.name):
                    _play(scene, server, sdk, show)
    finally:
        tokentape.disable()


def _play(scene: Scene, server: ProviderServer, sdk: Any, show: Show) -> None:
    server.add(*scene.scripts)
    with show(scene.title) as said:
        stage = Stage(sdk, server.url, said)
        scene.play(stage)
        stage.client.close()


def _table(rows: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    titles = {scene.name: scene.title for scene in SCENES}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("scene", "status", "first token", "rate", "longest gap", "cause"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        gap = row["longest_gap_ms"]
        table.add_row(
            titles[row["scene"]],
            Text(row["status"], style=STYLES.get(row["status"], "")),
            _first_token(row),
            words.rate(row) or "",
            words.duration(gap) if gap is not None else "",
            Text(row["cause"] or "", style=CAUSE_STYLES.get(row["cause"], "")),
        )
    return table


def _first_token(row: Row) -> str:
    first, output = row["first_token_latency_ms"], row["first_output_token_latency_ms"]
    if first is None:
        return ""
    said = words.duration(first)
    if row["retries"]:
        said += f", {row['retries']} " + ("retry" if row["retries"] == 1 else "retries")
    return said if output in (None, first) else f"{said}, answer {words.duration(output)}"


def _next_steps(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    db = shlex.quote(str(path))
    stalled = next(row["uid"] for row in rows if row["scene"] == "stall")
    yield f"{_program('tokentape')} list --db {db}"
    yield f"{_program('tokentape')} show {stalled} --db {db}"
    yield f"{_program('tokentape')} serve --db {db} --open"
    yield f"{_program('sqlite-utils')} rows {db} calls -c name -c status -c longest_gap_ms -c cause -t"
    yield f"{_program('datasette', 'datasette<1')} {db}"


def _program(name: str, requirement: str | None = None) -> str:
    """How to call a program that is installed beside us: by its name if the shell finds it there.

    Args:
        name: of the program.
        requirement: what pip is to install where there is none; the name unless told otherwise.
    """
    here = Path(sysconfig.get_path("scripts"))
    found = shutil.which(name, path=str(here))
    if found is None and shutil.which(name) is None:
        install = f"{shlex.quote(str(here / 'pip'))} install {shlex.quote(requirement or name)}"
        return f"{install} && {shlex.quote(str(here / name))}"
    return name if found is None or shutil.which(name) == found else shlex.quote(found)
