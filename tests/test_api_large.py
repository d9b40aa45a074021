"""On a tape of 1,000,000 token events the HTTP API reads what it is asked for, and nothing beside it."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing

import pytest

from api_client import client
from tokentape.tape import Position, Tape
from tokentape_api import FileSource

pytest_plugins = ("million",)

# Ten times what is promised of a quiet machine: the benchmarks measure, these tests notice a scan.
TOKENS_S, STATS_S = 0.2, 0.5
# How tables with a row for each token event, or each stall or part, stand in a plan that reads all of them.
SCANNED = re.compile(r"^SCAN (llm_tokens|t|prior|llm_parts|p|llm_stalls|s)\b")


class Noting(FileSource):
    """Notes the statements that are run."""

    def __init__(self, path):
        super().__init__(path)
        self.statements = []

    async def read(self, query):
        def noted(tape):
            tape._connection.set_trace_callback(self.statements.append)
            return query(tape)

        return await super().read(noted)


@pytest.fixture(scope="module")
def source(million):
    source = Noting(million.path)
    yield source
    source.close()


@pytest.fixture(scope="module")
def api(source):
    with client(source) as api:
        yield api


@pytest.fixture(scope="module")
def paths(million, api):
    """The path of each question, about a call with 10,000 events in a run, and about a run with 100 calls."""
    call = api.get(f"/v1/llm-calls/{million.call_id}").json()
    run = next(run["uid"] for run in api.get("/v1/runs").json()["runs"] if run["call_count"] == 100)
    tokens = f"/v1/runs/{call['run_uid']}/llm-calls/{call['uid']}/tokens"
    return {
        "tokens": f"{tokens}?limit=1000",
        "last tokens": f"{tokens}?limit=1000&offset=9000",
        "columns": f"/v1/llm-calls/{call['uid']}/events",
        "call": f"/v1/llm-calls/{call['uid']}",
        "stats": f"/v1/runs/{run}/streaming-stats",
        "timeline": f"/v1/runs/{run}/timeline",
        "runs": "/v1/runs",
        "run": f"/v1/runs/{run}",
        "calls": "/v1/llm-calls?label=env:prod&stalled=true",
        "running": "/v1/llm-calls?status=running",
        "models": "/v1/models",
        "compare": f"/v1/compare?calls={call['uid']},1",
    }


QUESTIONS = (
    "tokens",
    "last tokens",
    "columns",
    "call",
    "stats",
    "timeline",
    "runs",
    "run",
    "calls",
    "running",
    "models",
)


@pytest.mark.scenario("api/Large tape")
@pytest.mark.parametrize("question", [*QUESTIONS, "compare"])
def test_nothing_is_scanned_that_grows_with_the_tape(million, source, api, paths, question):
    source.statements.clear()
    assert api.get(paths[question]).status_code == 200
    asked = [sql for sql in source.statements if sql.lstrip().startswith(("SELECT", "WITH"))]
    assert asked
    with closing(sqlite3.connect(f"{million.path.as_uri()}?mode=ro", uri=True)) as db:
        plans = {sql: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked}
    assert [(sql, step) for sql, plan in plans.items() for step in plan if SCANNED.match(step)] == []


@pytest.mark.scenario("api/Large tape")
@pytest.mark.parametrize(("question", "limit_s"), [("tokens", TOKENS_S), ("stats", STATS_S)])
def test_what_has_a_limit_is_answered_at_once(api, paths, question, limit_s):
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        answer = api.get(paths[question]).json()
        best = min(best, time.perf_counter() - started)
    assert best < limit_s
    assert len(answer.get("tokens", ())) == 1000 or answer["total"]["call_count"] == 100


def test_polling_a_tape_on_which_nothing_happens_takes_no_time(million):
    with Tape.open(million.path) as tape:
        position = tape.now()
        assert tape.changes(position).changes == []
        started = time.perf_counter()
        for _ in range(20):
            tape.changes(position)
        assert time.perf_counter() - started < 1


def test_a_whole_tape_is_told_in_pieces(million):
    with Tape.open(million.path) as tape:
        happened = tape.changes(Position())
        assert sum(len(change.events.token_index) for change in happened.changes if hasattr(change, "events")) < 25_000
        assert happened.until.highest < 20
