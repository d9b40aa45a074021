"""Every table and view of a tape of 1,000,000 token events opens in Datasette with its limits on."""

from __future__ import annotations

import pytest
from datasette.app import Datasette

from tokentape.store import schema
from tokentape.store.views import VIEWS

pytest_plugins = ("million",)

TABLES = (
    "processes",
    "runs",
    "llm_calls",
    "llm_parts",
    "token_kinds",
    "llm_tokens",
    "llm_token_logprobs",
    "llm_stalls",
    "call_labels",
    "marks",
)
# The column that narrows each to one call, or to the run or model of one.
ONE = (
    dict.fromkeys(("llm_parts", "llm_tokens", "llm_token_logprobs", "llm_stalls", "call_labels", "marks"), "call_id")
    | dict.fromkeys(VIEWS, "call_id")
    | {"llm_calls": "id", "processes": "id", "runs": "id", "token_kinds": "id"}
    | {"run_stats": "run_id", "model_stats": "model"}
)
# Rows of those that do not fit on one page.
WHOLE = {
    **dict.fromkeys(("llm_tokens", "token_timeline"), 1_000_000),
    **dict.fromkeys(("llm_calls", "calls", "responses", "streaming_stats"), 500),
    **dict.fromkeys(("llm_stalls", "stalls"), 990),
    **dict.fromkeys(("llm_parts", "call_labels"), 1000),
    "llm_token_logprobs": 1009,
}
ONE_CALL = dict.fromkeys(("llm_tokens", "token_timeline"), 10_000)
TROUBLE = ("interrupted", "Error", "time limit", "timed out", "SQL query took too long")


@pytest.fixture(scope="module")
def datasette(million):
    return Datasette([str(million.path)])


def one(million, name):
    value = {"run_id": 11, "model": "gpt-b", "id": 1}.get(ONE[name], million.call_id)
    return f"{ONE[name]}={million.call_id if name == 'llm_calls' else value}"


def test_the_names_are_those_of_the_tape(million):
    db = schema.open_for_reading(million.path)
    assert {name for name in db.table_names() if not name.startswith(("_", "sqlite_"))} == set(TABLES)
    assert set(db.view_names()) == set(VIEWS)
    db.close()


@pytest.mark.parametrize("path", ["/", "/tape", "/tape/_sqlite_migrations"])
async def test_the_pages_around_the_tables_open(datasette, path):
    page = await datasette.client.get(path)

    assert page.status_code == 200
    assert not [word for word in TROUBLE if word in page.text]


@pytest.mark.scenario("storage/Datasette with its limits on")
@pytest.mark.parametrize("narrowed", [False, True], ids=["whole", "one call"])
@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
async def test_a_page_and_its_json_open(datasette, million, name, narrowed):
    query = f"?{one(million, name)}" if narrowed else ""

    page = await datasette.client.get(f"/tape/{name}{query}")
    answer = await datasette.client.get(f"/tape/{name}.json{query}{'&' if query else '?'}_shape=objects")

    assert (page.status_code, answer.status_code) == (200, 200)
    assert not [word for word in TROUBLE if word in page.text]
    found = answer.json()
    assert "error" not in found
    known = ONE_CALL if narrowed else WHOLE
    assert found["filtered_table_rows_count"] == known.get(name, len(found["rows"]))
    assert len(found["rows"]) == min(100, found["filtered_table_rows_count"])


@pytest.mark.parametrize("row", ["llm_calls/251", "runs/1", "processes/1", "llm_parts/251,1", "llm_tokens/251,9999"])
async def test_a_page_of_one_row_opens(datasette, row):
    page = await datasette.client.get(f"/tape/{row}")

    assert page.status_code == 200
    assert not [word for word in TROUBLE if word in page.text]


async def test_a_link_to_a_call_shows_its_name(datasette, million):
    page = await datasette.client.get(f"/tape/llm_parts?call_id={million.call_id}")

    assert "gpt-b 20:10:00" in page.text
