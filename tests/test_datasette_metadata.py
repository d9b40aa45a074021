"""Plain Datasette with what `tokentape metadata` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from datasette.app import Datasette

from html_reader import Page
from tokentape.cli import cli
from tokentape.cli.queries import QUERIES
from tokentape.store import columns

pytest_plugins = ("million", "recorded_tape")


def printed(*options):
    result = CliRunner().invoke(cli, ["metadata", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture
def datasette(recorded_tape):
    return Datasette([str(recorded_tape)], metadata=printed("--db", str(recorded_tape)))


@pytest.mark.scenario("cli/Metadata for Datasette")
async def test_tables_and_columns_say_what_they_mean(datasette):
    page = await datasette.client.get("/tape/llm_calls")

    assert "Requests to models, from just before each was sent until its stream ended." in page.text
    described = {
        e.attributes["data-column"]: e.attributes for e in Page(page.text).all("th") if "data-column" in e.attributes
    }
    meant = described["first_token_latency_ms"]["data-column-description"]
    assert meant == columns.tables()["llm_calls"].columns["first_token_latency_ms"]


@pytest.mark.scenario("cli/Metadata for Datasette")
async def test_rows_are_linked_by_name_and_facets_are_there(datasette):
    stalls = await datasette.client.get("/tape/llm_stalls")
    facets = (await datasette.client.get("/tape/llm_calls.json?_shape=objects")).json()["facet_results"]

    assert "gpt-x " in Page(stalls.text).one("table", **{"class": "rows-and-columns"}).text
    assert set(facets) == {"status", "request_model", "adapter"}


@pytest.mark.scenario("cli/Metadata for Datasette")
@pytest.mark.parametrize("name", QUERIES)
async def test_each_query_answers(datasette, recorded_tape, name):
    (uid,) = (await datasette.execute("tape", "select uid from llm_calls where id = 2")).first()
    asked = {"events_of_a_call": {"uid": uid}, "said": {"text": "Leipzig"}, "by_label": {"key": "env"}}.get(name, {})

    page = await datasette.client.get(f"/tape/{name}", params=asked)
    answer = (await datasette.client.get(f"/tape/{name}.json", params={**asked, "_shape": "objects"})).json()

    assert page.status_code == 200
    assert QUERIES[name]["title"] in page.text
    assert answer["ok"]
    assert bool(answer["rows"]) == (name != "retried")


async def test_what_a_query_asks_for_is_bound(datasette):
    hostile = {"text": "x' or 1=1 --", "_shape": "objects"}

    answer = (await datasette.client.get("/tape/said.json", params=hostile)).json()

    assert answer["rows"] == []


async def test_the_queries_say_whose_time_it_was(datasette):
    found = (await datasette.client.get("/tape/whose_time.json?_shape=objects")).json()["rows"]

    assert {(row["model"], row["cause"]) for row in found} >= {
        ("gpt-x", "upstream"),
        ("gpt-x", "blocked"),
        ("claude-y", "own"),
    }


async def test_pages_of_a_large_tape_open_with_it(million):
    datasette = Datasette([str(million.path)], metadata=printed("--db", str(million.path)))

    for name in (*columns.tables(), *columns.views()):
        page = await datasette.client.get(f"/tape/{name}")
        assert page.status_code == 200
        assert "SQL query took too long" not in page.text
    for name in ("slowest_first_tokens", "whose_time", "failed", "tokens_by_day", "retried"):
        answer = (await datasette.client.get(f"/tape/{name}.json")).json()
        assert answer["ok"], name


def test_it_needs_neither_datasette_nor_a_tape(tmp_path):
    program = (
        "import sys; sys.modules['datasette'] = None; sys.argv = ['tokentape', 'metadata', '--db', 'not there.db'];"
        "from tokentape.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
    )

    assert list(json.loads(done.stdout)["databases"]) == ["not there"]
    assert list(Path(tmp_path).iterdir()) == []


def test_no_tape_has_no_metadata():
    result = CliRunner().invoke(cli, ["metadata", "--db", "none"])

    assert (result.exit_code, result.output) == (
        1,
        "Error: the tape is set to none: there is nothing to describe; name one with --db PATH\n",
    )
