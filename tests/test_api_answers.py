"""What the HTTP API answers is what plain SQL finds on the same tape, recorded through real SDKs."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from statistics import quantiles

import openai
import pytest
from langchain_openai import ChatOpenAI

import tokentape
from api_client import asking, client
from programs import read
from tokentape.models import Mark, Metrics, Part
from tokentape.testing import Finish, HTTPError, ProviderServer, Reasoning, Script, Text, ToolArgs, ToolCall, Usage
from values import STARTED_US, metrics_value, stall

pytest_plugins = ("api_fixtures",)

METRICS = [field.name for field in fields(Metrics)]
COUNTED = "(c.layer = 'sdk' OR NOT EXISTS (SELECT 1 FROM llm_calls child WHERE child.parent_id = c.id))"


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    """Two runs, one inside the other: text, thinking with a tool, two choices, an error, a framework's call."""
    path = tmp_path_factory.mktemp("recorded") / "tape.db"
    tokentape.enable(db=path, flush_ms=20)
    try:
        with ProviderServer() as server:
            _record(server)
    finally:
        tokentape.disable()
    return path


def _record(server):
    asks = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)

    def ask(model, *steps, **more):
        server.add(Script(steps))
        try:
            list(asks.chat.completions.create(model=model, messages=[], stream=True, **more))
        except openai.OpenAIError:
            pass

    with tokentape.run("outer", metadata={"why": "tést"}), tokentape.label(env="prod"):
        ask("gpt-a", Text("Hel"), (0.03, Text("lo")), (0.03, Text("!")), Finish("stop"), Usage(10, 3))
        with tokentape.run("inner"), tokentape.label(user="7"):
            thinks = [Reasoning("Hm"), ToolCall(0, "call_1", "search"), ToolArgs(0, '{"q"'), ToolArgs(0, ": 1}")]
            ask("gpt-b", *thinks, Finish("tool_calls"), Usage(20, 9))
            two = [Text("a"), Text("x", choice=1), Text("b"), Text("y", choice=1)]
            ask("gpt-b", *two, Finish("stop"), Finish("stop", choice=1), n=2)
        with tokentape.mark("search", kind="tool"):
            pass
        ask("gpt-c", HTTPError(500, "no"))
        server.add([Text("chain "), Text("ed"), Finish("stop"), Usage(5, 2)])
        list(ChatOpenAI(model="gpt-a", base_url=server.url, api_key="none", max_retries=0).stream("hi"))
    tokentape.flush(10)


@pytest.fixture(scope="module")
def recorded_api(tape):
    with client(tape) as api:
        yield api


@pytest.fixture
def recorded(recorded_api):
    return asking(recorded_api)


@pytest.fixture
def rows(tape):
    return lambda sql: read(tape, sql)


INSIDE = """
WITH RECURSIVE inside(root, id) AS (
  SELECT id, id FROM runs UNION SELECT inside.root, r.id FROM runs r JOIN inside ON r.parent_id = inside.id
)
"""


@pytest.mark.scenario("api/As plain SQL says")
def test_runs_are_those_of_the_tape(recorded, rows):
    asked = recorded("/v1/runs")
    assert asked["next"] is None
    plain = rows(
        INSIDE
        + f"""
        SELECT r.id, r.uid, p.uid AS parent_uid, r.name, r.status, r.started_at, r.ended_at, count(c.id) AS call_count,
          sum(c.status = 'error') AS failed_count, sum(c.status = 'running') AS running_count,
          max(c.streaming) AS streaming,
          sum(c.input_tokens) AS input_tokens, sum(c.token_count) AS token_count, sum(c.event_count) AS event_count,
          max(c.first_token_latency_ms) AS slowest_first_token_ms, sum(c.stall_count) AS stall_count
        FROM runs r JOIN inside ON inside.root = r.id JOIN llm_calls c ON c.run_id = inside.id
        LEFT JOIN runs p ON p.id = r.parent_id WHERE {COUNTED} GROUP BY r.id ORDER BY r.started_at DESC, r.id DESC"""
    )
    assert [{name: run[name] for name in plain[0]} for run in asked["runs"]] == plain
    assert [run["name"] for run in asked["runs"]][:2] == ["inner", "outer"]
    for run in asked["runs"]:
        assert (run["duration_ms"] is None) == (run["ended_at"] is None)
    inner, outer = asked["runs"][:2]
    took = datetime.fromisoformat(outer["ended_at"]) - datetime.fromisoformat(outer["started_at"])
    assert outer["duration_ms"] == pytest.approx(took.total_seconds() * 1000)
    assert (outer["models"], inner["models"]) == (["gpt-a", "gpt-b", "gpt-c"], ["gpt-b"])
    assert (outer["labels"], inner["labels"]) == ({"env": "prod"}, {"env": "prod", "user": "7"})
    # The framework's call and the SDK's beneath have the same tokens.
    assert (outer["call_count"], outer["token_count"]) == (5, 3 + 9 + 2)
    assert recorded(f"/v1/runs/{outer['uid']}") == outer | {"metadata": {"why": "tést"}}
    assert recorded(f"/v1/runs/{inner['id']}") == inner | {"metadata": None}


@pytest.mark.scenario("api/Runs inside a run")
def test_a_run_has_what_is_inside_it_and_each_token_once(made, get):
    made.run("OUTER")
    made.run("INNER", parent_uid="OUTER")
    made.call("FRAME", (1, 0, "a"), call={"layer": "framework", "run_uid": "OUTER"}, token_count=12)
    made.call("SDK", (1, 0, "a"), call={"parent_uid": "FRAME", "run_uid": "OUTER"}, token_count=12)
    made.call("MORE", (1, 0, "a"), call={"run_uid": "INNER"}, token_count=5)

    found = {run["uid"]: (run["call_count"], run["token_count"]) for run in get("/v1/runs")["runs"]}
    assert found == {"OUTER": (2, 17), "INNER": (1, 5)}


@pytest.mark.scenario("api/As plain SQL says")
def test_calls_are_those_of_the_tape(recorded, rows):
    asked = recorded("/v1/llm-calls")
    view = {row["call_id"]: row for row in rows("SELECT * FROM calls")}
    plain = rows(
        f"""SELECT c.*, r.uid AS run_uid, r.name AS run_name, p.uid AS parent_uid, {COUNTED} AS counted
        FROM llm_calls c JOIN runs r ON r.id = c.run_id LEFT JOIN llm_calls p ON p.id = c.parent_id
        ORDER BY c.started_unix_us DESC, c.id DESC"""
    )
    assert len(plain) == 6
    for call, row in zip(asked["calls"], plain, strict=True):
        own = {name for name in call if name in row}
        assert {name: call[name] for name in own} == {name: row[name] for name in own}
        assert set(call) - own == {
            "model",
            "running_for_ms",
            "silent_for_ms",
            "longest_gap_ms",
            "cause",
            "text_start",
            "labels",
        }
        assert {name: call[name] for name in ("model", "longest_gap_ms", "cause", "text_start")} == {
            name: view[row["id"]][name] for name in ("model", "longest_gap_ms", "cause", "text_start")
        }
        assert call["labels"] == json.loads(row["labels_json"])
        assert (call["running_for_ms"], call["silent_for_ms"]) == (None, None)


@pytest.mark.scenario("api/As plain SQL says")
def test_a_call_has_every_column_of_its_row(recorded, rows):
    for row in rows("SELECT * FROM llm_calls"):
        call = recorded(f"/v1/llm-calls/{row['uid']}")
        for name in ("labels", "request", "response_meta", "usage", "metadata", "prompt"):
            value = row.pop(f"{name}_json")
            assert call[name] == (json.loads(value) if value else ({} if name == "labels" else None))
        run = rows(f"SELECT uid, name FROM runs WHERE id = {row.pop('run_id')}")[0]
        assert (call["run_uid"], call["run_name"]) == (run["uid"], run["name"])
        del row["process_id"], row["parent_id"]
        assert {name: call[name] for name in row} == row
        assert call["parts"] == rows(
            "SELECT part, k.name AS kind, choice, provider_index, p.name, external_id, content FROM llm_parts p "
            f"JOIN token_kinds k ON k.id = p.kind_id WHERE call_id = {row['id']} ORDER BY part"
        )
        assert call["kept"] == {"events": "all", "event_count": row["event_count"], "content": bool(call["parts"])}


def test_a_call_names_the_call_that_made_it_and_those_it_made(recorded, rows):
    (child,) = rows("SELECT * FROM llm_calls WHERE parent_id IS NOT NULL")
    (parent,) = rows(f"SELECT * FROM llm_calls WHERE id = {child['parent_id']}")
    link = ("uid", "name", "layer", "status")

    below, above = recorded(f"/v1/llm-calls/{child['id']}"), recorded(f"/v1/llm-calls/{parent['id']}")
    assert (below["parent"], below["children"]) == ({name: parent[name] for name in link}, [])
    assert (above["parent"], above["children"]) == (None, [{name: child[name] for name in link}])
    assert (below["counted"], above["counted"]) == (True, False)


@pytest.mark.scenario("api/As plain SQL says")
def test_token_events_are_those_of_the_timeline(recorded, rows):
    for call in rows("SELECT c.id, c.uid, r.uid AS run FROM llm_calls c JOIN runs r ON r.id = c.run_id"):
        timeline = rows(
            "SELECT v.token_index, v.token, v.kind, v.part, v.choice, v.timestamp_ms, v.delta_ms, v.wait_ms, "
            "t.n_tokens FROM token_timeline v JOIN llm_tokens t USING (call_id, token_index) "
            f"WHERE v.call_id = {call['id']} ORDER BY v.token_index"
        )
        assert recorded(f"/v1/runs/{call['run']}/llm-calls/{call['uid']}/tokens") == {"tokens": timeline, "next": None}
        plain = rows(f"SELECT * FROM llm_tokens WHERE call_id = {call['id']} ORDER BY token_index")
        columns = recorded(f"/v1/llm-calls/{call['uid']}/events")
        for name in ("token_index", "offset_us", "wait_us", "part", "token"):
            assert columns[name] == [row[name] for row in plain]
        assert (columns["call_uid"], columns["next"]) == (call["uid"], None)


@pytest.mark.scenario("api/As plain SQL says")
def test_statistics_of_a_run_are_those_of_its_calls(recorded, rows):
    (run,) = rows("SELECT * FROM runs WHERE name = 'outer'")
    asked = recorded(f"/v1/runs/{run['uid']}/streaming-stats")
    plain = rows(
        f"SELECT s.*, c.layer, c.input_tokens, {COUNTED} AS counted FROM streaming_stats s "
        "JOIN llm_calls c ON c.id = s.call_id ORDER BY c.started_unix_us"
    )
    for row in plain:
        del row["call_id"]
    assert asked["run_uid"] == run["uid"]
    assert asked["calls"] == plain

    total, counted = asked["total"], [row for row in plain if row["counted"]]
    assert {name: total[name] for name in ("call_count", "completed_count", "failed_count", "running_count")} == {
        "call_count": 5,
        "completed_count": 4,
        "failed_count": 1,
        "running_count": 0,
    }
    for name in ("input_tokens", "token_count", "event_count", "dropped_count", "stall_count"):
        assert total[name] == sum(row[name] or 0 for row in counted)
    completed = [row for row in counted if row["status"] == "completed"]
    for name in ("first_token_latency_ms", "duration_ms", "tokens_per_second"):
        known = sorted(row[name] for row in completed if row[name] is not None)
        *_, p95 = quantiles(known, n=20, method="inclusive")
        stem, unit = (name.removesuffix("_ms"), "_ms") if name.endswith("_ms") else (name, "")
        assert total[f"{stem}_p95{unit}"] == pytest.approx(p95)


@pytest.mark.scenario("api/Percentiles of a run")
def test_percentiles_are_over_completed_calls_unless_all_are_asked_for(made, get):
    made.run("RUN")
    for number, (ms, status) in enumerate(
        [(900, "completed"), (5000, "error"), (100, "completed"), (200, "completed")]
    ):
        numbers = Metrics(first_token_latency_ms=float(ms))
        made.call(f"C{number}", after_ms=number, status=status, metrics=numbers)
    made.call("GOING", running=True, after_ms=9)

    def spread(**params):
        total = get("/v1/runs/RUN/streaming-stats", **params)["total"]
        return [total[f"first_token_latency_p{share}_ms"] for share in (50, 95)]

    assert spread() == pytest.approx([200, 830])
    assert spread(all="true") == pytest.approx([550, 4385])
    assert get("/v1/runs/RUN/streaming-stats")["total"]["running_count"] == 1


@pytest.mark.scenario("api/Calls inside calls")
def test_a_timeline_has_calls_inside_the_call_that_made_them(made, get):
    start = STARTED_US - 1_000_000
    made.run("RUN", started_unix_us=start, ended_ms=9000)
    made.run("INNER", parent_uid="RUN", started_unix_us=start)
    made.call("FRAME", (500, 0, "a"), ended_ms=3000, call={"layer": "framework"})
    stalls = (
        stall(0, position="first", gap_us=50_000),
        stall(1, gap_us=40_000),
        stall(3, position="tail", gap_us=10_000),
    )
    events = [(50, 0, "a"), (90, 0, "b"), (95, 1, "c")]
    parts = (Part(0, "text"), Part(1, "reasoning"))
    sdk = {"parent_uid": "FRAME", "run_uid": "INNER"}
    numbers = metrics_value(duration_ms=105.0, last_token_latency_ms=95.0)
    made.call("ONE", *events, after_ms=10, call=sdk, stalls=stalls, metrics=numbers, parts=parts)
    made.mark(Mark("RUN", None, STARTED_US + 200_000, 300_000, "tool", "search"))
    made.call("TWO", *events, after_ms=600, call=sdk, parts=parts, metrics=numbers)
    made.call("AFTER", (5, 0, "z"), after_ms=5000)

    timeline = get("/v1/runs/RUN/timeline", bins=5)

    assert timeline["run"] == {k: v for k, v in get("/v1/runs/RUN").items() if k != "metadata"}
    assert timeline["duration_ms"] == 9000
    assert [call["uid"] for call in timeline["calls"]] == ["FRAME", "AFTER"]
    frame = timeline["calls"][0]
    assert [(call["uid"], call["start_ms"], call["run_uid"]) for call in frame["children"]] == [
        ("ONE", 1010.0, "INNER"),
        ("TWO", 1600.0, "INNER"),
    ]
    assert (frame["start_ms"], frame["counted"], frame["children"][0]["counted"]) == (1000.0, False, True)
    assert timeline["marks"] == [{"kind": "tool", "name": "search", "start_ms": 1200.0, "duration_ms": 300.0}]
    one = frame["children"][0]
    assert one["profile"] == [
        {"start_ms": 1060.0, "end_ms": 1069.0, "events": 1},
        {"start_ms": 1096.0, "end_ms": 1105.0, "events": 2},
    ]
    assert one["stalls"] == [
        timed("first", 0, 0.0, 50.0),
        timed("middle", 1, 50.0, 90.0),
        timed("tail", 3, 95.0, 105.0),
    ]
    assert (one["duration_ms"], one["parent_uid"]) == (105.0, "FRAME")
    assert frame["profile"] == [{"start_ms": 1500.0, "end_ms": 1500.0, "events": 1}]


def timed(position, token_index, start_ms, end_ms):
    return {
        "position": position,
        "token_index": token_index,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "gap_ms": end_ms - start_ms,
        "wait_ms": 1.5,
        "hold_ms": 0.5,
        "blocked_ms": 0.1,
        "cause": "upstream",
    }


@pytest.mark.scenario("api/Pause in a profile")
def test_a_profile_leaves_out_where_nothing_came(made, get):
    made.run("RUN", ended_ms=10_000)
    made.call("C", *[(ms, 0, "t") for ms in [*range(0, 1000, 100), *range(9000, 10_000, 100)]])

    (call,) = get("/v1/runs/RUN/timeline", bins=10)["calls"]
    assert [span["events"] for span in call["profile"]] == [10, 10]


def test_profiles_of_a_recorded_run_add_up(recorded, rows):
    (run,) = rows("SELECT * FROM runs WHERE name = 'outer'")
    timeline = recorded(f"/v1/runs/{run['uid']}/timeline")
    calls = [call for top in timeline["calls"] for call in (top, *top["children"])]
    assert len(calls) == 6
    for call in calls:
        assert sum(span["events"] for span in call["profile"]) == call["event_count"]
        spans = [edge for span in call["profile"] for edge in (span["start_ms"], span["end_ms"])]
        assert spans == sorted(spans)
        if call["event_count"]:
            assert spans[0] == pytest.approx(call["start_ms"] + call["first_token_latency_ms"])
            assert spans[-1] <= call["start_ms"] + call["last_token_latency_ms"] + 0.001
    assert timeline["marks"][0]["name"] == "search"


@pytest.mark.scenario("api/Timeline while it goes on")
def test_the_timeline_of_a_run_that_goes_on_grows(made, get):
    made.run("RUN")
    made.call("GOING", (5, 0, "a"), running=True)

    first, second = (get("/v1/runs/RUN/timeline") for _ in range(2))
    assert [call["duration_ms"] for call in second["calls"]] == [None]
    assert second["calls"][0]["status"] == "running"
    assert 0 < first["duration_ms"] < second["duration_ms"]


@pytest.mark.scenario("api/Events over time")
def test_events_are_counted_where_they_came(made, get):
    made.run("RUN", ended_ms=1200)
    made.call("C", *[(10 * number, 0, "t") for number in range(100)])
    made.call("SHORT", (1, 0, "x"), after_ms=1100, ended_ms=50)

    found = get("/v1/runs/RUN/tokens/timeseries", start=0, end=1000, buckets=10)
    assert (found["start_ms"], found["end_ms"], found["bucket_ms"]) == (0, 1000, 100)
    assert found["buckets"] == [{"start_ms": 100.0 * n, "events": 10, "calls": 1} for n in range(10)]
    whole = get("/v1/runs/RUN/tokens/timeseries", buckets=3)
    assert [bucket["events"] for bucket in whole["buckets"]] == [41, 40, 20]
    assert get("/v1/runs/RUN/tokens/timeseries", start=5, end=5)["buckets"] == []
    assert [b["calls"] for b in get("/v1/runs/RUN/tokens/timeseries", start=1040, end=1240, buckets=4)["buckets"]] == [
        0,
        1,
        1,
        0,
    ]


def test_events_that_a_framework_and_its_sdk_recorded_are_counted_once(made, get):
    made.run("RUN", ended_ms=100)
    made.call("FRAME", (1, 0, "a"), (2, 0, "b"), call={"layer": "framework"})
    made.call("SDK", (1, 0, "a"), (2, 0, "b"), call={"parent_uid": "FRAME"})
    made.call("ALONE", (1, 0, "a"), call={"layer": "framework"})
    (bucket,) = get("/v1/runs/RUN/tokens/timeseries", buckets=1)["buckets"]
    assert bucket == {"start_ms": 0, "events": 3, "calls": 3}


@pytest.mark.scenario("api/Models side by side")
def test_models_have_the_percentiles_of_the_view(recorded, rows):
    asked = recorded("/v1/models")["models"]
    plain = {row["model"]: row for row in rows("SELECT * FROM model_stats")}
    assert sorted(plain) == ["gpt-a", "gpt-b", "gpt-c"]
    for row in asked:
        view = plain[row["model"]]
        assert {name: row[name] for name in view} == pytest.approx(view)
    edges = {tuple(row["first_token_histogram"]["edges"]) for row in asked}
    assert [len(edge) for edge in edges] == [17]
    for row in asked:
        for name in ("first_token_histogram", "rate_histogram"):
            assert sorted(row[name]["edges"]) == row[name]["edges"]
            assert len(row[name]["counts"]) == 16
        assert sum(row["first_token_histogram"]["counts"]) == row["completed_count"]


def test_models_tell_which_calls_stalled_most(made, get):
    made.run()
    for number in range(7):
        numbers = metrics_value(stall_count=number, stall_excess_ms=100.0 * number)
        made.call(f"C{number}", metrics=numbers, status="error" if number == 6 else "completed")

    (model,) = get("/v1/models")["models"]
    assert [call["uid"] for call in model["most_stalled"]] == ["C6", "C5", "C4", "C3", "C2"]
    assert (sum(model["rate_histogram"]["counts"]), model["failed_count"]) == (6, 1)
    assert sum(get("/v1/models", all="true")["models"][0]["rate_histogram"]["counts"]) == 7


def test_a_model_without_numbers_has_empty_histograms(made, get):
    made.run()
    made.call("C", status="error")
    (model,) = get("/v1/models")["models"]
    assert (model["first_token_histogram"], model["rate_histogram"]) == ({"edges": [], "counts": []},) * 2
    assert model["first_token_latency_p50_ms"] is None


@pytest.mark.scenario("api/Compared calls")
def test_compared_calls_come_in_the_order_named_with_every_metric(recorded, rows):
    plain = rows("SELECT * FROM llm_calls ORDER BY id")
    named = [plain[index]["uid"] for index in (3, 0, 1)]

    found = recorded("/v1/compare", calls=",".join(named))

    assert [call["uid"] for call in found["calls"]] == named
    for call in found["calls"]:
        (row,) = (row for row in plain if row["uid"] == call["uid"])
        assert {name: call[name] for name in METRICS} == {name: row[name] for name in METRICS}
    assert found["duration_ms"] == max(call["duration_ms"] for call in found["calls"])
    assert found["calls"][1]["text_start"] == "Hello!"


@pytest.mark.scenario("api/Ways to name a call")
def test_a_call_answers_to_its_uid_the_beginning_of_it_and_its_row_id(recorded, rows, recorded_api):
    uids = [row["uid"] for row in rows("SELECT uid FROM llm_calls ORDER BY id")]
    whole = recorded(f"/v1/llm-calls/{uids[1]}")
    unique = next(uids[1][:n] for n in range(27) if sum(uid.startswith(uids[1][:n]) for uid in uids) == 1)
    assert recorded(f"/v1/llm-calls/{unique.lower()}") == recorded("/v1/llm-calls/2") == whole

    several = recorded_api.get("/v1/llm-calls/01")
    assert several.status_code == 404
    assert several.json()["detail"] == f"'01' could be any of {', '.join(sorted(uids)[:5])}, …; give more of it."
