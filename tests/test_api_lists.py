"""Lists of the HTTP API: filters, and pages that stay in place while others record."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from itertools import chain

import pytest

from programs import eventually, read
from tokentape.models import Part
from values import STARTED_US, stall

pytest_plugins = ("api_fixtures",)

# Adds runs with a call each until it is ended.
GROW = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from handmade import Handmade
from values import STARTED_US
made = Handmade(Path(sys.argv[1]))
for number in range(100_000):
    at = STARTED_US + 1_000_000 * number
    made.run(f"NEW{number}", started_unix_us=at, ended_ms=1)
    made.call(f"NEWCALL{number}", (1, 0, "x"), call={"run_uid": f"NEW{number}", "started_unix_us": at})
"""


@pytest.fixture
def eight(made):
    """Eight calls that differ in everything that can be asked for; the newest last."""
    made.run("OUTER")
    made.run("INNER", parent_uid="OUTER", name="100% ünder_way")
    made.run("OTHER", ended_ms=5, status="error")

    def call(number, text="", run_uid="OUTER", running=False, **fields):
        own = {"run_uid": run_uid, **{k: fields.pop(k) for k in [*fields] if k not in END}}
        made.call(f"C{number}", (1, 0, text), after_ms=1000 * number, call=own, running=running, **fields)

    call(1, "Plain")
    call(2, "in the Inner", run_uid="INNER", labels={"env": "prod", "a:b": "c:d"})
    call(3, request_model="gpt-y", provider="anthropic", adapter="anthropic")
    call(4, response_model="gpt-z", status="error", error_message="100% down", run_uid="OTHER")
    call(5, labels={"env": "prod", "n": "1"}, stalls=(stall(1, position="tail"),))
    call(6, stalls=(stall(0, position="first"),), status="cancelled")
    call(7, "nul\0then", name="named_by_me", status="abandoned")
    call(8, running=True)


END = {"status", "stalls", "error_message", "response_model"}


@pytest.mark.scenario("api/Filters of calls")
@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({}, "1"),
        ({"run": "outer"}, "run_id IN (1, 2)"),
        ({"run": "2"}, "run_id = 2"),
        ({"model": "gpt-y"}, "request_model = 'gpt-y'"),
        ({"model": "gpt-z"}, "response_model = 'gpt-z'"),
        ({"provider": "anthropic"}, "provider = 'anthropic'"),
        ({"adapter": "anthropic"}, "adapter = 'anthropic'"),
        ({"status": "error"}, "status = 'error'"),
        ({"status": "running"}, "status = 'running'"),
        ({"label": "env:prod"}, "id IN (2, 5)"),
        ({"label": ["env:prod", "n:1"]}, "id = 5"),
        ({"label": "a:b:c:d"}, "0"),
        ({"label": "env:"}, "0"),
        ({"q": "INNER"}, "id = 2"),
        ({"q": "100%"}, "id = 4"),
        ({"q": "_by_"}, "id = 7"),
        ({"q": "l\0t"}, "id = 7"),
        ({"q": "gpt-Y"}, "id = 3"),
        ({"since": "2026-11-23T18:00:03Z"}, "id >= 3"),
        ({"until": "2026-11-23T19:00:03+01:00"}, "id < 3"),
        ({"since": "2026-11-23T18:00:03", "until": "2026-11-23T18:00:05"}, "id IN (3, 4)"),
        ({"stalled": "true"}, "id = 5"),
        ({"stalled": "false"}, "id <> 5"),
        ({"run": "outer", "label": "env:prod"}, "id IN (2, 5)"),
        ({"status": "completed", "model": "gpt-x", "stalled": "false", "q": "n"}, "id IN (1, 2)"),
    ],
)
def test_calls_are_those_that_fit_every_filter(made, get, eight, params, where):
    plain = read(made.path, f"SELECT uid FROM llm_calls WHERE {where} ORDER BY started_unix_us DESC")
    assert [call["uid"] for call in get("/v1/llm-calls", **params)["calls"]] == [row["uid"] for row in plain]


@pytest.mark.parametrize(
    ("params", "uids"),
    [
        ({}, ["OTHER", "INNER", "OUTER"]),
        ({"status": "running"}, ["INNER", "OUTER"]),
        ({"status": "error"}, ["OTHER"]),
        ({"q": "100% ü"}, ["INNER"]),
        ({"q": "oUt"}, ["OUTER"]),
        ({"q": "%"}, ["INNER"]),
    ],
)
def test_runs_are_those_that_fit_every_filter(get, eight, params, uids):
    assert [run["uid"] for run in get("/v1/runs", **params)["runs"]] == uids


def pages(get, path, name, **params):
    cursor, found = None, []
    while True:
        answer = get(path, **params, **({"cursor": cursor} if cursor else {}))
        found.append([row["uid"] for row in answer[name]])
        cursor = answer["next"]
        if cursor is None:
            return found


def flat(*asked, **params):
    return list(chain.from_iterable(pages(*asked, **params)))


def test_pages_end_where_the_list_does(get, eight):
    whole = [call["uid"] for call in get("/v1/llm-calls")["calls"]]
    assert pages(get, "/v1/llm-calls", "calls", limit=3) == [whole[:3], whole[3:6], whole[6:]]
    assert pages(get, "/v1/llm-calls", "calls", limit=4) == [whole[:4], whole[4:]]
    assert pages(get, "/v1/llm-calls", "calls", limit=2, label="env:prod") == [["C5", "C2"]]
    assert pages(get, "/v1/runs", "runs", limit=1) == [["OTHER"], ["INNER"], ["OUTER"]]
    assert get("/v1/llm-calls", status="lost") == {"calls": [], "next": None}


def test_what_started_at_the_same_moment_has_an_order(made, get):
    made.run()
    for number in range(7):
        made.call(f"C{number}")
        made.run(f"R{number}")
    assert flat(get, "/v1/llm-calls", "calls", limit=2) == [f"C{n}" for n in reversed(range(7))]
    assert flat(get, "/v1/runs", "runs", limit=2) == [*(f"R{n}" for n in reversed(range(7))), "RUN"]


@pytest.mark.scenario("api/Recording meanwhile")
def test_pages_stay_in_place_while_another_process_records(made, get, tmp_path):
    for number in range(60):
        made.run(f"OLD{number}", started_unix_us=STARTED_US + 1000 * number, ended_ms=1)
        made.call(f"OLDCALL{number}", after_ms=number, call={"run_uid": f"OLD{number}"})
    script = tmp_path / "grow.py"
    script.write_text(textwrap.dedent(GROW), "utf-8")
    grows = subprocess.Popen([sys.executable, str(script), str(made.path), str(__file__.rpartition("/")[0])])
    try:
        assert eventually(lambda: read(made.path, "SELECT * FROM llm_calls WHERE uid = 'NEWCALL1'"), bool, within=30)
        for path, name, old in (("/v1/llm-calls", "calls", "OLDCALL"), ("/v1/runs", "runs", "OLD")):
            before = len(read(made.path, "SELECT id FROM llm_calls"))
            found = flat(get, path, name, limit=7)
            assert len(read(made.path, "SELECT id FROM llm_calls")) > before
            assert [uid for uid in found if uid.startswith("OLD")] == [f"{old}{n}" for n in reversed(range(60))]
            assert len(found) == len(set(found))
    finally:
        grows.kill()
        grows.wait()


@pytest.mark.scenario("api/Cursor from elsewhere")
def test_a_cursor_of_another_list_is_refused(made, api, get, eight):
    of_runs = get("/v1/runs", limit=1)["next"]
    of_calls = get("/v1/llm-calls", limit=1)["next"]
    made.call("TWO", (1, 0, "a"), (2, 0, "b"), parts=(Part(0, "text"),), call={"run_uid": "OUTER"})
    of_tokens = get("/v1/runs/OUTER/llm-calls/TWO/tokens", limit=1)["next"]
    assert all((of_runs, of_calls, of_tokens))
    elsewhere = {
        "/v1/runs": (of_calls, of_tokens),
        "/v1/llm-calls": (of_runs, of_tokens),
        "/v1/runs/OUTER/llm-calls/C1/tokens": (of_runs, of_calls, of_tokens),
    }
    broken = ("abc", "", "%", "ü", "a" * 5000, "WyJydW5zIl0", "WyJydW5zIiwxLDFd", "W1tb", of_runs[:-2])
    for path, cursors in elsewhere.items():
        for cursor in (*cursors, *broken):
            answer = api.get(path, params={"cursor": cursor})
            assert answer.status_code == 422, (path, cursor)
            assert answer.json()["detail"] == "cursor: take it from the `next` of the same list."
