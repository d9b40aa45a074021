"""What is said of columns is said of columns that exist, and every number has its definition."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tokentape.models import Metrics
from tokentape.store import columns, schema


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    connection = schema.open_for_writing(tmp_path_factory.mktemp("columns") / "tape.db")
    sql = "select m.name, c.name from sqlite_master m, pragma_table_info(m.name) c where m.type in ('table', 'view')"
    found = {}
    for table, column in connection.execute(sql):
        found.setdefault(table, set()).add(column)
    connection.close()
    return {table: found[table] for table in found if not table.startswith(("_", "sqlite_"))}


def test_every_table_and_view_is_described(names):
    described = {**columns.tables(), **columns.views()}

    assert set(described) == set(names)
    assert all(about.text for about in described.values())


def test_only_columns_that_exist_are_described(names):
    described = {**columns.tables(), **columns.views()}

    unknown = {name: set(about.columns) - names[name] for name, about in described.items()}
    assert not any(unknown.values()), unknown


def test_every_number_has_a_definition():
    found = {field.name: columns.definition(field.name) for field in fields(Metrics)}

    assert found["decode_tokens_per_second"].text == "(Ns - n1) / (cm - c1)"
    assert found["decode_tokens_per_second"].missing == "where N is unknown, or m < 2"
    assert list(found["decode_tokens_per_second"].symbols) == ["Ns", "n1", "cm", "c1"]
    assert [name for name, about in found.items() if about.missing is None] == ["stall_threshold_ms"]


def test_what_a_view_shows_of_a_table_means_what_it_means_there():
    assert columns.views()["calls"].columns["status"] == columns.tables()["llm_calls"].columns["status"]
    assert columns.views()["run_stats"].columns["status"] == columns.tables()["runs"].columns["status"]
    assert columns.views()["stalls"].columns["hold_ms"] == "the program's own time"
