"""`tokentape metadata`: what plain Datasette needs to know to show a tape well."""

from __future__ import annotations

from typing import Any, Final

import click

from ..errors import TapeError
from ..store import columns
from .options import configured, db_option, example
from .queries import QUERIES
from .terminal import print_json

# The column that stands for a row where another table names it.
_LABELS: Final = {"llm_calls": "name", "runs": "name", "processes": "name", "token_kinds": "name"}
_FACETS: Final = {
    "llm_calls": ["status", "request_model", "adapter"],
    "calls": ["status", "model"],
    "runs": ["status"],
    "llm_stalls": ["cause", "position"],
    "stalls": ["cause", "position"],
    "call_labels": ["key"],
    "marks": ["kind"],
}
_NEWEST_FIRST: Final = {"llm_calls": "started_unix_us", "runs": "id", "marks": "id"}
# Where migrations are noted.
_HIDDEN: Final = ("_sqlite_migrations",)


@click.command(
    "metadata",
    epilog=example("tokentape metadata > metadata.json", 'datasette "$(tokentape path)" -m metadata.json'),
)
@db_option
def command(db: str | None) -> None:
    """Print metadata for Datasette, as JSON.

    With it plain Datasette says what tables and columns mean, links rows by their names, offers facets, and has queries
    for the questions people ask of a tape. Datasette 1.0 takes the queries as configuration: give it the file with -m
    and with -c.
    """
    path = configured(db).db
    if path is None:
        raise TapeError("the tape is set to none: there is nothing to describe; name one with --db PATH")
    print_json(metadata(path.stem))


def metadata(database: str) -> dict[str, Any]:
    """The metadata of one tape.

    Args:
        database: what Datasette calls it: the name of the file without its suffix.
    """
    tables = {name: _table(name, about) for name, about in {**columns.tables(), **columns.views()}.items()}
    hidden = {name: {"hidden": True} for name in _HIDDEN}
    about = "Token events of LLM streams, recorded by tokentape: start with the views."
    return {"databases": {database: {"description": about, "tables": {**tables, **hidden}, "queries": QUERIES}}}


def _table(name: str, about: columns.Described) -> dict[str, Any]:
    found: dict[str, Any] = {"description": f"{about.text[0].upper()}{about.text[1:]}.", "columns": dict(about.columns)}
    for key, values in (("label_column", _LABELS), ("facets", _FACETS), ("sort_desc", _NEWEST_FIRST)):
        if name in values:
            found[key] = values[name]
    return found
