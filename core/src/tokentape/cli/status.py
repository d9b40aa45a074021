"""`tokentape status`, and `tokentape` alone: where the tape is, what is on it, and what records to it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

import click

from .. import words
from ..store.files import those_aside
from ..store.modes import open_to_others
from ..store.networks import network_of
from .options import configured, db_option, example, json_option, opened
from .terminal import one_line, print_json

MB: Final = 1_000_000
_COUNTED: Final = (
    ("llm_calls", "call"),
    ("llm_tokens", "token event"),
    ("runs", "run"),
    ("llm_stalls", "stall"),
    ("marks", "mark"),
)


@click.command("status", epilog=example("tokentape status"))
@db_option
@json_option
def command(db: str | None, as_json: bool) -> None:
    """Show what is on the tape, and whether adapters work."""
    from .plugins import report

    tape, plugins = _on_tape(db), report()
    if as_json:
        print_json({"tape": tape, "plugins": plugins})
        return
    for line in (*_tape_lines(tape), *map(_plugin_line, plugins)):
        click.echo(one_line(line))


def overview(db: str | None) -> None:
    """Say where the tape is, what is on it, and the next step."""
    tape = _on_tape(db)
    last = tape.get("last_call")
    click.echo(one_line(f"Tape: {tape['path']}"))
    if last is None:
        click.echo("Nothing is recorded yet.")
        click.echo("Next: tokentape run app.py, or without a program of your own: tokentape demo")
        return
    click.echo(one_line(f"{words.plural(tape['rows']['llm_calls'], 'call')}, the last one {_last(last)}"))
    click.echo("Next: tokentape show")


def _on_tape(db: str | None) -> dict[str, Any]:
    chosen = configured(db)
    path = chosen.db
    if path is None or not path.exists():
        return {"path": str(path or "none"), "exists": False}
    with opened(db) as tape:
        newest = tape.calls(1)
        return {
            "path": str(path),
            "exists": True,
            **tape.totals(),
            "max_mb": chosen.max_mb,
            "open_to_others": open_to_others(path),
            "set_aside": list(map(str, those_aside(path))),
            "network_file_system": network_of(path),
            "last_call": newest[0] if newest else None,
        }


def _tape_lines(tape: dict[str, Any]) -> Iterator[str]:
    yield f"Tape: {tape['path']}"
    if not tape["exists"]:
        yield "Nothing is recorded yet."
        return
    rows = tape["rows"]
    yield f"{words.size(tape['bytes'])}: " + ", ".join(words.plural(rows[table], noun) for table, noun in _COUNTED)
    dropped = tape["dropped_events"]
    yield f"{words.plural(dropped, 'token event')} dropped" if dropped else "No token event was dropped."
    if tape["network_file_system"]:
        yield f"On a network file system ({tape['network_file_system']}): the tape may be damaged; use a local disk."
    for path in tape["set_aside"]:
        yield f"Damaged and set aside: {path}. Save what can be read with: tokentape recover {shlex.quote(path)}"
    yield from (f"It is open to others on this machine; close it with: {command}" for command in tape["open_to_others"])
    thinned = tape["thinned_calls"]
    if thinned:
        yield f"To keep the tape at its size token events of {words.plural(thinned, 'call')} were removed."
    if tape["bytes"] > tape["max_mb"] * MB:
        yield (
            f"It is larger than max_mb={tape['max_mb']}: while something records, token events of its calls go, the "
            "oldest first; for more room raise max_mb, or: tokentape forget --before DATE"
        )


def _plugin_line(plugin: dict[str, Any]) -> str:
    version = f" {plugin['version']}" if plugin["version"] else ""
    sdk = f" ({plugin['sdk']} {plugin['sdk_version']})" if plugin["sdk_version"] else ""
    reason = f": {plugin['reason']}" if plugin["reason"] else ""
    return f"{plugin['name']}{version}{sdk} {plugin['state']}{reason}"


def _last(call: dict[str, Any]) -> str:
    first = call["first_token_latency_ms"]
    said = f"{call['name']} {call['status']}"
    return f"{said}, first token {words.duration(first)}" if first is not None else said
