"""Calls without an end on the tape, and calls of which not everything was kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from api_client import client
from handmade import Handmade, gone_process
from tokentape.models import Metrics
from tokentape.tape import Tape
from values import call_value, metrics_value, run_value, stall

pytest_plugins = ("api_fixtures",)

PATHS = (
    "/v1/runs",
    "/v1/runs/RUN",
    "/v1/runs/RUN/timeline",
    "/v1/runs/RUN/streaming-stats",
    "/v1/runs/RUN/tokens/timeseries",
    "/v1/runs/RUN/llm-calls/LEFT/tokens",
    "/v1/runs/RUN/llm-calls/LEFT/tokens?format=csv",
    "/v1/llm-calls",
    "/v1/llm-calls/LEFT",
    "/v1/llm-calls/LEFT/events",
    "/v1/models",
    "/v1/models?all=true",
    "/v1/compare?calls=LEFT,DONE",
)


@pytest.fixture
def left(tmp_path):
    """A tape that a process left in the middle of a call with three events, with one that had ended before."""
    left = Handmade(tmp_path / "tape.db", gone_process())
    left.run()
    left.call("DONE", (1, 0, "ok"))
    left.call("LEFT", (500, 0, "He"), (1700, 0, "llo"), (2900, 0, "!"), running=True)
    left.close()
    return left


@pytest.mark.scenario("api/Process gone")
def test_what_a_dead_process_left_is_lost_before_and_after_somebody_marks_it(left):
    with client(left.path) as api:

        def answers():
            return {path: api.get(path).text for path in PATHS}

        before = answers()
        detail = api.get("/v1/llm-calls/LEFT").json()
        listed = api.get("/v1/llm-calls?status=lost").json()["calls"]
        running = api.get("/v1/llm-calls?status=running").json()["calls"]
        runs = [api.get(f"/v1/runs?status={status}").json()["runs"] for status in ("lost", "running")]
        assert left.rows("SELECT status FROM llm_calls WHERE uid = 'LEFT'") == [{"status": "running"}]
        with Tape.open(left.path) as tape:
            assert tape.mark_lost() == 1
        assert answers() == before

    assert (detail["status"], detail["event_count"], detail["duration_ms"]) == ("lost", 3, None)
    assert (detail["first_token_latency_ms"], detail["inter_chunk_p50_ms"], detail["stall_count"]) == (500, 1200, 2)
    assert detail["parts"][0]["content"] == "Hello!"
    assert [(row["start_ms"], row["end_ms"], row["cause"]) for row in detail["stalls"]] == [
        (500, 1700, "own"),
        (1700, 2900, "own"),
    ]
    assert [(row["uid"], row["status"], row["text_start"], row["longest_gap_ms"]) for row in listed] == [
        ("LEFT", "lost", "Hello!", 1200)
    ]
    assert running == []
    assert [[(run["uid"], run["status"], run["stall_count"]) for run in found] for found in runs] == [
        [("RUN", "lost", 2)],
        [],
    ]


@pytest.mark.scenario("api/Nothing is written")
def test_no_path_writes_anything(left):
    before = left.path.read_bytes()
    with client(left.path) as api:
        for path in PATHS:
            assert api.get(path).status_code == 200, path
    assert left.path.read_bytes() == before
    with closing(sqlite3.connect(left.path)) as db:
        assert db.execute("SELECT count(*) FROM llm_calls WHERE status = 'running'").fetchone() == (1,)


def test_a_run_whose_process_is_gone_goes_on_while_a_live_one_has_calls_in_it(left, tmp_path):
    alive = Handmade(left.path)
    alive.call("ALIVE", (1, 0, "a"), running=True)
    with client(left.path) as api:
        assert api.get("/v1/runs/RUN").json()["status"] == "running"
        assert api.get("/v1/runs/RUN/timeline").json()["duration_ms"] > 1000
    alive.close()


@pytest.mark.scenario("api/Running call")
def test_a_running_call_says_what_is_known_so_far(made, get):
    made.run()
    made.call("GOING", (5, 0, "He"), (9, 0, "y"), running=True)

    (listed,) = get("/v1/llm-calls", status="running")["calls"]
    detail = get("/v1/llm-calls/GOING")
    for call in (listed, detail):
        assert (call["status"], call["duration_ms"], call["event_count"]) == ("running", None, 2)
        assert (call["first_token_latency_ms"], call["tokens_per_second"]) == (5, None)
        assert call["running_for_ms"] >= call["silent_for_ms"] >= 0
    assert listed["text_start"] == "Hey"
    assert [part["content"] for part in detail["parts"]] == ["Hey"]
    assert detail["stalls"] == []
    (run,) = get("/v1/runs")["runs"]
    assert (run["running_count"], run["failed_count"], run["duration_ms"]) == (1, 0, None)
    assert run["slowest_first_token_ms"] == 5


@pytest.mark.scenario("api/What is left of a call")
def test_what_is_left_of_a_call_is_told(made, get):
    made.run()
    stalls = (stall(0, position="first", gap_us=5000), stall(1, gap_us=4000), stall(2, position="tail", gap_us=3000))
    numbers = metrics_value(last_token_latency_ms=9.0, duration_ms=12.0)
    kept = {"stalls": stalls, "metrics": numbers}
    made.call("PACKED", (5, 0, "He"), (9, 0, "y"), **kept)
    made.call("SAMPLED", (5, 0, "He"), (9, 0, "y"), call={"sampled": False}, **kept)
    made.call("TIMED", (5, 0, None), (9, 0, None), call={"content_level": "timings"}, **kept)
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("DELETE FROM llm_tokens WHERE call_id = 1")
        db.execute("UPDATE llm_calls SET events_kept = 'aggregated' WHERE id = 1")

    packed, sampled, timed = (get(f"/v1/llm-calls/{uid}") for uid in ("PACKED", "SAMPLED", "TIMED"))

    assert packed["kept"] == {"events": "aggregated", "event_count": 0, "content": True}
    assert sampled["kept"] == {"events": "sampled_out", "event_count": 0, "content": False}
    assert timed["kept"] == {"events": "all", "event_count": 2, "content": False}
    assert (packed["event_count"], packed["last_token_latency_ms"]) == (2, 9)
    assert [part["content"] for part in packed["parts"]] == ["Hey"]
    assert [(row["position"], row["start_ms"], row["end_ms"]) for row in packed["stalls"]] == [
        ("first", 0, 5),
        ("middle", None, None),
        ("tail", 9, 12),
    ]
    assert [row["start_ms"] for row in timed["stalls"]] == [0, 5, 9]
    for uid in ("PACKED", "SAMPLED"):
        assert get(f"/v1/runs/RUN/llm-calls/{uid}/tokens") == {"tokens": [], "next": None}
        columns = get(f"/v1/llm-calls/{uid}/events")
        assert (columns["token_index"], columns["next"]) == ([], None)
    assert [token["token"] for token in get("/v1/runs/RUN/llm-calls/TIMED/tokens")["tokens"]] == [None, None]
    profiles = {call["uid"]: call["profile"] for call in get("/v1/runs/RUN/timeline")["calls"]}
    assert (profiles["PACKED"], len(profiles["TIMED"])) == ([], 2)


@pytest.mark.scenario("retention/Reading what is left")
def test_there_is_no_gap_and_no_rate_across_events_that_were_removed(made, get):
    made.run()
    made.call("HOLES", *((10.0 * i, 0, f" {i}") for i in range(100)))
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("DELETE FROM llm_tokens WHERE token_index BETWEEN 10 AND 89")
        db.execute("UPDATE llm_calls SET events_kept = 'aggregated'")

    tokens = get("/v1/runs/RUN/llm-calls/HOLES/tokens")["tokens"]
    assert [token["token_index"] for token in tokens] == [*range(10), *range(90, 100)]
    assert [token["delta_ms"] for token in tokens] == [0, *[10] * 9, None, *[10] * 9]
    assert get("/v1/llm-calls/HOLES/events", after=9)["token_index"] == list(range(90, 100))
    (call,) = get("/v1/runs/RUN/timeline")["calls"]
    assert call["profile"] == []
    detail = get("/v1/llm-calls/HOLES")
    assert detail["kept"] == {"events": "aggregated", "event_count": 20, "content": True}
    assert detail["parts"][0]["content"] == "".join(f" {i}" for i in range(100))


def test_runs_without_calls_and_a_tape_without_anything(made, get):
    assert (get("/v1/runs"), get("/v1/llm-calls"), get("/v1/models")) == (
        {"runs": [], "next": None},
        {"calls": [], "next": None},
        {"models": []},
    )
    made.run("EMPTY", ended_ms=5)
    (run,) = get("/v1/runs")["runs"]
    assert (run["call_count"], run["token_count"], run["models"], run["labels"]) == (0, None, [], {})
    assert get("/v1/runs/EMPTY/timeline") | {"run": None} == {"run": None, "duration_ms": 5, "calls": [], "marks": []}
    total = get("/v1/runs/EMPTY/streaming-stats")["total"]
    assert (total["call_count"], total["token_count"], total["duration_p50_ms"]) == (0, None, None)
    assert [bucket["events"] for bucket in get("/v1/runs/EMPTY/tokens/timeseries", buckets=5)["buckets"]] == [0] * 5


def test_labels_of_a_run_are_those_that_all_its_calls_have(made, get):
    made.run()
    made.call("ONE", call={"labels": {"env": "prod", "n": "1"}})
    made.call("TWO", call={"labels": {"env": "prod", "n": "2", "x": "y"}})
    assert get("/v1/runs/RUN")["labels"] == {"env": "prod"}
    made.call("BARE")
    assert get("/v1/runs/RUN")["labels"] == {}


def test_a_call_that_outlives_its_run_is_on_its_timeline(made, get):
    run = run_value()
    made.run(run.uid, ended_ms=10)
    made.call("LATE", (5, 0, "a"), (70, 0, "b"), metrics=Metrics(duration_ms=80.0), call={"run_uid": run.uid})
    assert get("/v1/runs/RUN/timeline")["duration_ms"] == 80
    assert sum(b["events"] for b in get("/v1/runs/RUN/tokens/timeseries")["buckets"]) == 2
    assert call_value("LATE").run_uid == run.uid
