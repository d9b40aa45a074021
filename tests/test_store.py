"""What the SQLite store makes of the hooks: rows, and what it does when it cannot write them."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sqlite3
import time

import pytest

from tokentape.models import Mark, Part, Process, TokenBatch, Usage
from tokentape.store import committer, schema
from tokentape.store.plugin import SQLiteStore
from tokentape.store.text import CallText
from values import STARTED_US, call_value, finished, metrics_value, process_value, run_value, stall

pytest_plugins = ("million",)

TEXT = Part(0, "text")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "tape.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path, process_value(), max_buffer=1000, busy_ms=50)
    store.tokentape_run_started(run_value())
    yield store
    store.tokentape_shutdown()


@pytest.fixture
def rows(path):
    """Reads a whole table from the file, as another program would."""

    def read(sql):
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(f"SELECT * FROM {sql}" if " " not in sql else sql)]
        finally:
            connection.close()

    return read


def batch(*events, start_us=1000, parts=(TEXT,), **columns):
    """Events 1 ms apart, each a text of part 0, or a part with its text."""
    pairs = [event if isinstance(event, tuple) else (0, event) for event in events]
    return TokenBatch(
        offset_us=[start_us * (i + 1) for i in range(len(pairs))],
        wait_us=[700 + i for i in range(len(pairs))],
        part=[part for part, _ in pairs],
        token=[token for _, token in pairs],
        parts=parts,
        **columns,
    )


def record(store, call, *batches, parts=(TEXT,), **end):
    store.tokentape_call_started(call)
    for each in batches:
        store.tokentape_tokens(call, each)
    store.tokentape_call_finished(finished(call, parts=parts, **end))
    store.tokentape_flush()


def tokens(rows):
    return [row["token"] for row in rows("SELECT token FROM llm_tokens ORDER BY call_id, token_index")]


@pytest.mark.scenario("storage/Whole row")
def test_every_column_of_a_whole_call(store, rows):
    call = call_value(
        labels={"env": "prod", "user": "17"},
        metadata={"ticket": [1, "ü"]},
        request={"model": "gpt-x", "temperature": 0.5},
        prompt_json='{"messages": []}',
        framework_run_id="f-1",
        trace_id="t" * 32,
        span_id="s" * 16,
        in_flight_at_start=3,
    )
    parts = (TEXT, Part(1, "tool_args", 0, "1/0", "search", "call_1"))
    record(
        store,
        call,
        TokenBatch(
            [1000, 2500, 2500], [900, 1400, 0], [0, 0, 1], ["He", "llo", "{}"], {0: 2}, {1: [{"logprob": -0.5}]}, parts
        ),
        parts=parts,
        ended_us=4_000_000,
        finish_reason="tool_calls",
        error_type="LateError",
        error_message="after the end",
        http_status=200,
        retries=2,
        response_model="gpt-x-2026",
        response_id="resp_1",
        provider_request_id="req_1",
        response_meta={"service_tier": "default"},
        usage=Usage(10, 4, 1, 7, 2, {"total_tokens": 17}),
        token_count=7,
        token_count_source="usage",
        reasoning_hidden=True,
        chunk_count=5,
        event_count=3,
        stalls=(stall(1, gap_us=1500, wait_us=1400, hold_us=100, blocked_us=20, cause="own"),),
        metrics=metrics_value(),
    )

    (row,) = rows("llm_calls")
    assert {name: value for name, value in row.items() if not name.endswith("_json")} == {
        "id": 1,
        "uid": "CALL",
        "name": "gpt-x 18:00:00",
        "run_id": 1,
        "process_id": 1,
        "parent_id": None,
        "layer": "sdk",
        "adapter": "openai",
        "provider": "openai",
        "server_address": "api.example.com",
        "operation": "chat",
        "request_model": "gpt-x",
        "response_model": "gpt-x-2026",
        "response_id": "resp_1",
        "provider_request_id": "req_1",
        "streaming": 1,
        "status": "completed",
        "finish_reason": "tool_calls",
        "error_type": "LateError",
        "error_message": "after the end",
        "http_status": 200,
        "retries": 2,
        "started_at": "2026-11-23T18:00:00.000000Z",
        "started_unix_us": STARTED_US,
        "ended_at": "2026-11-23T18:00:04.000000Z",
        "last_event_at": "2026-11-23T18:00:00.002500Z",
        "content_level": "full",
        "events_kept": "all",
        "framework_run_id": "f-1",
        "trace_id": "t" * 32,
        "span_id": "s" * 16,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "cache_write_tokens": 1,
        "output_tokens": 7,
        "reasoning_tokens": 2,
        "reasoning_hidden": 1,
        "token_count": 7,
        "token_count_source": "usage",
        "chunk_count": 5,
        "event_count": 3,
        "dropped_count": 0,
        "in_flight_at_start": 3,
    } | {name: getattr(metrics_value(), name) for name in metrics_value().__slots__}
    assert {name: json.loads(value) for name, value in row.items() if name.endswith("_json")} == {
        "labels_json": {"env": "prod", "user": "17"},
        "request_json": {"model": "gpt-x", "temperature": 0.5},
        "response_meta_json": {"service_tier": "default"},
        "usage_json": {"total_tokens": 17},
        "metadata_json": {"ticket": [1, "ü"]},
        "prompt_json": {"messages": []},
    }
    assert rows("llm_tokens") == [
        event(0, 1000, 900, 0, "He", 2),
        event(1, 2500, 1400, 0, "llo", None),
        event(2, 2500, 0, 1, "{}", None),
    ]
    assert rows("llm_token_logprobs") == [{"call_id": 1, "token_index": 1, "logprobs_json": '[{"logprob": -0.5}]'}]
    assert rows("SELECT p.*, k.name AS kind FROM llm_parts p JOIN token_kinds k ON k.id = kind_id") == [
        {
            "call_id": 1,
            "part": 0,
            "kind_id": 1,
            "choice": 0,
            "provider_index": None,
            "name": None,
            "external_id": None,
            "content": "Hello",
            "kind": "text",
        },
        {
            "call_id": 1,
            "part": 1,
            "kind_id": 3,
            "choice": 0,
            "provider_index": "1/0",
            "name": "search",
            "external_id": "call_1",
            "content": "{}",
            "kind": "tool_args",
        },
    ]
    assert rows("llm_stalls") == [
        {
            "call_id": 1,
            "token_index": 1,
            "position": "middle",
            "gap_us": 1500,
            "wait_us": 1400,
            "hold_us": 100,
            "blocked_us": 20,
            "cause": "own",
        }
    ]
    assert rows("call_labels") == [
        {"call_id": 1, "key": "env", "value": "prod"},
        {"call_id": 1, "key": "user", "value": "17"},
    ]


def event(token_index, offset_us, wait_us, part, token, n_tokens, call_id=1):
    return {
        "call_id": call_id,
        "token_index": token_index,
        "offset_us": offset_us,
        "wait_us": wait_us,
        "part": part,
        "token": token,
        "n_tokens": n_tokens,
    }


def test_process_run_and_mark_are_rows(store, rows):
    inner = run_value("INNER", parent_uid="RUN", metadata={"k": 1}, started_unix_us=STARTED_US + 1)
    store.tokentape_run_started(inner)
    store.tokentape_call_started(call_value())
    store.tokentape_mark(Mark("INNER", "CALL", STARTED_US, 1234, "tool", "search"))
    store.tokentape_mark(Mark("NOBODY", None, STARTED_US, 5, "tool", "elsewhere"))
    ended = run_value("INNER", parent_uid="RUN", status="error", ended_unix_us=STARTED_US + 9, metadata={"k": 2})
    store.tokentape_run_finished(ended)
    store.tokentape_flush()

    (process,) = rows("processes")
    assert process.pop("last_seen_at") > "2026"
    assert process == {
        "id": 1,
        "host": "box",
        "boot_id": "boot",
        "pid": 7,
        "pid_started_at": "2026-11-23T17:00:00.000000Z",
        "name": "app.py",
        "started_at": "2026-11-23T17:59:59.000000Z",
    }
    outer = {"id": 1, "uid": "RUN", "parent_id": None, "process_id": 1, "name": "nightly", "status": "running"}
    assert rows("runs") == [
        outer | {"started_at": "2026-11-23T18:00:00.000000Z", "ended_at": None, "metadata_json": None},
        {
            "id": 2,
            "uid": "INNER",
            "parent_id": 1,
            "process_id": 1,
            "name": "nightly",
            "status": "error",
            "started_at": "2026-11-23T18:00:00.000001Z",
            "ended_at": "2026-11-23T18:00:00.000009Z",
            "metadata_json": '{"k": 2}',
        },
    ]
    mark = {"started_unix_us": STARTED_US, "kind": "tool"}
    assert rows("marks") == [
        {"id": 1, "run_id": 2, "call_id": 1, "duration_us": 1234, "name": "search"} | mark,
        {"id": 2, "run_id": None, "call_id": None, "duration_us": 5, "name": "elsewhere"} | mark,
    ]


@pytest.mark.scenario("metrics/Still running")
def test_a_running_call_shows_its_events_and_parts_but_no_numbers(store, rows):
    store.tokentape_call_started(call_value())
    store.tokentape_tokens(call_value(), batch("a", "b"))
    store.tokentape_flush()

    (call,) = rows("llm_calls")
    known = {name for name, value in call.items() if value is not None}
    assert known == {
        "id",
        "uid",
        "name",
        "run_id",
        "process_id",
        "layer",
        "adapter",
        "provider",
        "server_address",
        "operation",
        "request_model",
        "streaming",
        "status",
        "started_at",
        "started_unix_us",
        "last_event_at",
        "content_level",
        "events_kept",
        "event_count",
        "dropped_count",
        "in_flight_at_start",
    }
    assert (call["status"], call["event_count"]) == ("running", 2)
    assert call["last_event_at"] == "2026-11-23T18:00:00.002000Z"
    assert [(row["part"], row["content"]) for row in rows("llm_parts")] == [(0, None)]


def test_a_call_links_to_its_parent_call_and_an_unknown_parent_to_none(store, rows):
    record(store, call_value("OUTER", layer="framework"))
    record(store, call_value("INNER", parent_uid="OUTER"))
    record(store, call_value("ORPHAN", parent_uid="ELSEWHERE", run_uid="ELSEWHERE", name="mine"))

    found = [(row["uid"], row["parent_id"], row["run_id"], row["name"]) for row in rows("llm_calls")]
    assert found == [
        ("OUTER", None, 1, "gpt-x 18:00:00"),
        ("INNER", 1, 1, "gpt-x 18:00:00"),
        ("ORPHAN", None, None, "mine"),
    ]


def test_a_call_without_a_model_is_named_after_its_operation(store, rows):
    record(store, call_value(request_model=None, operation="responses"))

    assert rows("llm_calls")[0]["name"] == "responses 18:00:00"


def test_a_run_that_another_process_opened_is_used_as_it_is(store, path, rows):
    store.tokentape_flush()
    child = SQLiteStore(path, process_value(pid=8), max_buffer=10)
    child.tokentape_run_started(run_value(name="worker.py"))
    record(child, call_value())
    child.tokentape_shutdown()

    assert [(row["uid"], row["name"], row["process_id"]) for row in rows("runs")] == [("RUN", "nightly", 1)]
    assert [(row["run_id"], row["process_id"]) for row in rows("llm_calls")] == [(1, 2)]


def test_a_second_store_of_one_process_uses_its_row(store, path, rows):
    store.tokentape_flush()
    again = SQLiteStore(path, process_value(), max_buffer=10)
    record(again, call_value())
    again.tokentape_shutdown()
    nameless = SQLiteStore(path, process_value(pid_started_at=None), max_buffer=10)
    record(nameless, call_value("SECOND"))
    nameless.tokentape_shutdown()

    assert [(row["id"], row["pid_started_at"] is None) for row in rows("processes")] == [(1, False), (2, True)]


def test_at_timings_nothing_of_the_content_is_kept(store, rows):
    call = call_value(content_level="timings")
    record(store, call, batch("secret", "text", n_tokens={0: 1}, logprobs={0: [1]}), event_count=2)

    assert rows("llm_tokens") == [event(0, 1000, 700, 0, None, None), event(1, 2000, 701, 0, None, None)]
    assert [row["content"] for row in rows("llm_parts")] == [None]
    assert rows("llm_token_logprobs") == []


def test_a_call_that_is_not_sampled_keeps_its_numbers_only(store, rows):
    call = call_value(sampled=False)
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch("a", "b", logprobs={0: [1]}))
    store.tokentape_flush()
    assert [(row["event_count"], row["last_event_at"]) for row in rows("llm_calls")] == [
        (2, "2026-11-23T18:00:00.002000Z")
    ]

    store.tokentape_call_finished(finished(call, parts=(TEXT,), event_count=2, metrics=metrics_value()))
    store.tokentape_flush()

    (row,) = rows("llm_calls")
    assert (row["events_kept"], row["event_count"], row["dropped_count"]) == ("sampled_out", 2, 0)
    assert row["first_token_latency_ms"] == metrics_value().first_token_latency_ms
    assert rows("llm_tokens") == rows("llm_token_logprobs") == []
    assert [row["content"] for row in rows("llm_parts")] == [None]


def test_indexes_run_on_over_batches_and_flushes_and_calls_do_not_mix(store, rows):
    first, second = call_value("FIRST"), call_value("SECOND")
    store.tokentape_call_started(first)
    store.tokentape_call_started(second)
    for texts in (("a", "b"), ("c",)):
        store.tokentape_tokens(first, batch(*texts))
        store.tokentape_tokens(second, batch(*(text.upper() for text in texts)))
        store.tokentape_flush()

    found = [(row["call_id"], row["token_index"], row["token"]) for row in rows("llm_tokens")]
    assert found == [(1, 0, "a"), (1, 1, "b"), (1, 2, "c"), (2, 0, "A"), (2, 1, "B"), (2, 2, "C")]


@pytest.mark.parametrize("size", [1, 2, 3, 511, 512, 513, 999])
def test_a_batch_of_any_size_is_stored_whole(store, rows, size):
    record(store, call_value(), batch(*map(str, range(size))), event_count=size)

    assert tokens(rows) == [str(i) for i in range(size)]


def test_a_backlog_is_committed_in_pieces_before_the_flush(path, rows):
    store = SQLiteStore(path, process_value(), max_buffer=20_000)
    store.tokentape_call_started(call_value())
    for _ in range(30):
        store.tokentape_tokens(call_value(), batch(*["word"] * 1000))
        assert store.pending_events < 10_000

    assert rows("SELECT count(*) AS n, max(token_index) AS last FROM llm_tokens") == [{"n": 30_000, "last": 29_999}]
    store.tokentape_shutdown()


@pytest.mark.scenario("storage/Emoji cut in two")
def test_an_emoji_cut_in_two_is_whole_in_the_second_event(store, rows):
    call = call_value()
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch("a\ud83d"))
    store.tokentape_tokens(call, batch("\ude00b", "\ude00", "c\ud83d", parts=()))
    store.tokentape_call_finished(finished(call, parts=(TEXT,), event_count=4))
    store.tokentape_flush()

    assert tokens(rows) == ["a", "😀b", "\ufffd", "c\ufffd"]
    assert [row["content"] for row in rows("llm_parts")] == ["a😀b\ufffdc\ufffd"]


def test_half_an_emoji_waits_for_its_own_part(store, rows):
    parts = (TEXT, Part(1, "text", 1))
    record(store, call_value(), batch((0, "\ud83d"), (1, "x"), (0, "\ude00"), parts=parts), parts=parts)

    assert tokens(rows) == ["", "x", "😀"]
    assert [row["content"] for row in rows("llm_parts")] == ["😀", "x"]


@pytest.mark.scenario("storage/Control characters")
def test_control_characters_and_what_follows_a_nul_are_kept(store, rows):
    record(store, call_value(), batch("a\x00b", "\x1b[31m", "\x9b", "z"))

    assert tokens(rows) == ["a\x00b", "\x1b[31m", "\x9b", "z"]
    assert [row["content"] for row in rows("llm_parts")] == ["a\x00b\x1b[31m\x9bz"]


@pytest.mark.scenario("storage/One megabyte in one chunk")
def test_a_megabyte_in_one_event_is_one_row_among_its_neighbours(store, rows):
    record(store, call_value(), batch("a", "ü" * 1_000_000, "b"))

    assert tokens(rows) == ["a", "ü" * 1_000_000, "b"]


def test_an_event_whose_text_is_no_text_does_not_sink_its_batch(store, rows):
    record(store, call_value(), batch("a", ["b"], None, "c", n_tokens={0: "many", 3: 2}))

    assert [(row["token"], row["n_tokens"]) for row in rows("llm_tokens")] == [
        ("a", None),
        ("\ufffd", None),
        (None, None),
        ("c", 2),
    ]


def test_text_that_cannot_be_stored_is_mended_in_every_column(store, rows):
    call = call_value(name="\ud83d", labels={"k\ud83d": "v\ude00"}, metadata={"a": "\ud83d\ude00"})
    record(store, call, parts=(Part(0, "tool_args", name="\udfff"),), error_message="\ud83dx")

    (row,) = rows("llm_calls")
    assert (row["name"], row["error_message"], row["metadata_json"]) == ("\ufffd", "\ufffdx", '{"a": "😀"}')
    assert [(label["key"], label["value"]) for label in rows("call_labels")] == [("k\ufffd", "v\ufffd")]
    assert rows("llm_parts")[0]["name"] == "\ufffd"


def test_numbers_that_are_no_json_become_null(store, rows):
    record(store, call_value(metadata={"a": math.nan, ("b",): 1, "c": object}), batch("x", logprobs={0: [-math.inf]}))

    assert json.loads(rows("llm_calls")[0]["metadata_json"]) == {"a": None, "c": "<class 'object'>"}
    assert rows("llm_token_logprobs")[0]["logprobs_json"] == "[null]"


def test_numbers_that_no_column_has_room_for_are_not_known(store, rows):
    call = call_value()
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, TokenBatch([1], [1], [0], ["a"], {0: 2**70}, parts=(Part(0, "text"),)))
    store.tokentape_call_finished(finished(call, event_count=1, usage=Usage(2**63, output_tokens=2**63 - 1)))
    store.tokentape_flush()
    (stored,) = rows("SELECT input_tokens, output_tokens, status FROM llm_calls")
    assert tuple(stored.values()) == (None, 2**63 - 1, "completed")
    assert [row["n_tokens"] for row in rows("SELECT n_tokens FROM llm_tokens")] == [None]


@pytest.mark.scenario("storage/Shape of times")
def test_times_have_the_shape_that_their_names_promise(million):
    with sqlite3.connect(million.path) as db:
        db.row_factory = sqlite3.Row
        for table in ("processes", "runs", "llm_calls", "llm_stalls", "marks"):
            for row in db.execute(f"SELECT * FROM {table} LIMIT 200"):
                for name, value in dict(row).items():
                    if value is not None and name.endswith("_at"):
                        assert (len(value), value[-1]) == (27, "Z"), (table, name, value)
                    kind = {"_us": int, "_ms": float, "_id": (int, str)}.get(name[-3:])
                    assert value is None or kind is None or isinstance(value, kind), (table, name, value)


def test_a_locked_tape_is_waited_for_and_then_written_whole(store, path, rows, caplog):
    store.tokentape_flush()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    call = call_value()
    store.tokentape_call_started(call)
    for text in "abc":
        store.tokentape_tokens(call, batch(text))
        store.tokentape_flush()

    held = store.health()
    assert (held["last_error"], held["pending_events"], held["dropped_events"]) == ("database is locked", 3, 0)
    blocker.execute("ROLLBACK")
    store.tokentape_flush()

    assert tokens(rows) == ["a", "b", "c"]
    assert (store.health()["last_error"], store.pending_events) == (None, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages == [
        f"{path} cannot be written (database is locked); what is recorded is held until it can. The program goes on.",
        f"{path} can be written again.",
    ]
    blocker.close()


def test_a_full_disk_is_survived_without_a_half_written_batch(store, path, rows):
    store.tokentape_call_started(call_value())
    store.tokentape_flush()
    connection = store._committer._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    store.tokentape_tokens(call_value(), batch(*["x" * 1000] * 100))
    store.tokentape_tokens(call_value(), batch("last"))
    connection.execute("SELECT 1")

    store.tokentape_flush()

    assert store.health()["last_error"] == "database or disk is full"
    assert rows("llm_tokens") == []
    store.tokentape_flush()  # a new connection has no limit
    assert tokens(rows) == ["x" * 1000] * 100 + ["last"]


def test_beyond_the_buffer_the_newest_events_are_dropped_and_counted(store, path, rows):
    store.tokentape_flush()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    first, second = call_value("FIRST"), call_value("SECOND")
    store.tokentape_call_started(first)
    store.tokentape_call_started(second)
    store.tokentape_tokens(first, batch(*["a"] * 990))
    store.tokentape_tokens(second, batch(*["b"] * 30, n_tokens={5: 1, 20: 1}, logprobs={9: [1], 10: [1]}))
    store.tokentape_tokens(second, batch("c", parts=(Part(1, "refusal"),)))
    store.tokentape_flush()
    assert store.health()["pending_events"] == 1000
    assert store.health()["dropped_events"] == 21
    blocker.close()
    store.tokentape_flush()
    store.tokentape_tokens(second, batch("later"))
    store.tokentape_call_finished(finished(second, parts=(TEXT, Part(1, "refusal")), event_count=32))
    store.tokentape_flush()

    counts = [(row["uid"], row["event_count"], row["dropped_count"], row["events_kept"]) for row in rows("llm_calls")]
    assert counts == [("FIRST", 990, 0, "all"), ("SECOND", 32, 21, "dropped")]
    found = rows("SELECT token_index, token, n_tokens FROM llm_tokens WHERE call_id = 2")
    assert [row["token"] for row in found] == ["b"] * 10 + ["later"]
    assert [row["token_index"] for row in found] == list(range(11))
    assert [row["n_tokens"] for row in found][5] == 1
    assert [row["token_index"] for row in rows("llm_token_logprobs")] == [9]
    assert [row["content"] for row in rows("llm_parts")] == [None, "b" * 10 + "later", ""]


def test_calls_without_end_are_not_held_without_end(path):
    store = SQLiteStore(path, process_value(), max_buffer=3)
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    for number in range(10):
        record(store, call_value(str(number)), batch("a"))
        store.tokentape_mark(Mark("RUN", None, STARTED_US, 1, "tool", "t"))

    assert len(store._committer.operations) <= 8
    assert store.health()["dropped_events"] + store.pending_events == 10


def test_a_folder_that_went_away_is_made_again_with_everything_that_is_open(store, path, rows):
    store.tokentape_run_started(run_value("INNER", parent_uid="RUN"))
    call = call_value(run_uid="INNER", labels={"env": "prod"})
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, batch("lost"))
    store.tokentape_flush()
    shutil.rmtree(path.parent)

    store.tokentape_tokens(call, batch("kept"))
    store.tokentape_flush()
    store.tokentape_call_finished(finished(call, parts=(TEXT,), event_count=2))
    store.tokentape_flush()

    assert tokens(rows) == ["kept"]
    assert [(row["uid"], row["status"]) for row in rows("llm_calls")] == [("CALL", "completed")]
    assert [(row["uid"], row["parent_id"]) for row in rows("runs")] == [("RUN", None), ("INNER", 1)]
    assert [(row["event_count"], row["dropped_count"], row["events_kept"]) for row in rows("llm_calls")] == [
        (2, 1, "dropped")
    ]
    assert [(row["key"], row["value"]) for row in rows("call_labels")] == [("env", "prod")]


def test_a_tape_replaced_by_garbage_is_left_alone_until_it_is_gone(store, path, rows):
    store.tokentape_call_started(call_value())
    store.tokentape_flush()
    garbage = b"not a database, whatever its name says\n" * 100
    path.unlink()
    path.write_bytes(garbage)
    store.tokentape_tokens(call_value(), batch("a"))

    store.tokentape_flush()

    assert store.health()["last_error"] == f"{path} is not an SQLite database; choose another file"
    assert path.read_bytes() == garbage
    path.unlink()
    store.tokentape_flush()
    assert tokens(rows) == ["a"]


def test_what_is_written_to_a_file_that_is_moved_meanwhile_is_written_again(store, path, rows):
    store.tokentape_flush()
    store.tokentape_call_started(call_value())
    store.tokentape_tokens(call_value(), batch("a"))
    moved = path.with_name("moved.db")
    store._committer.add(committer.Operation(lambda to: moved.exists() or path.rename(moved), "a move"))

    store.tokentape_flush()

    assert tokens(rows) == ["a"]
    assert [(row["uid"], row["dropped_count"]) for row in rows("llm_calls")] == [("CALL", 0)]
    assert store.health()["last_error"] is None


def test_what_cannot_be_stored_at_all_is_given_up_and_its_neighbours_are_kept(store, rows, caplog, monkeypatch):
    monkeypatch.delenv("TOKENTAPE_STRICT", raising=False)
    good, bad = call_value("GOOD"), call_value("BAD")
    store.tokentape_call_started(good)
    store.tokentape_call_started(bad)
    store.tokentape_tokens(good, batch("a"))
    store.tokentape_tokens(bad, TokenBatch([1], [2**70], [0], ["waited too long"], parts=(TEXT,)))
    store.tokentape_tokens(good, batch("b"))
    store.tokentape_flush()

    assert [(row["call_id"], row["token"]) for row in rows("llm_tokens")] == [(1, "a"), (1, "b")]
    assert (store.pending_events, store.health()["dropped_events"]) == (0, 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "token events" in caplog.text


def test_events_of_a_call_that_was_never_announced_are_counted_as_dropped(store):
    store.tokentape_tokens(call_value(), batch("a", "b"))
    store.tokentape_call_finished(finished(call_value()))
    store.tokentape_flush()

    assert store.health()["dropped_events"] == 2


def test_last_seen_is_refreshed_while_nothing_is_written_and_not_at_every_flush(store, rows, monkeypatch):
    store.tokentape_flush()
    first = rows("processes")[0]["last_seen_at"]
    store.tokentape_flush()
    assert rows("processes")[0]["last_seen_at"] == first

    monkeypatch.setattr(committer, "SEEN_IDLE_S", 0.0)
    monkeypatch.setattr(committer, "SEEN_EVERY_S", 0.0)
    time.sleep(0.001)
    store.tokentape_flush()

    assert rows("processes")[0]["last_seen_at"] > first


def test_health_names_the_path_and_the_last_commit(store, path):
    before = store.health()
    store.tokentape_flush()
    after = store.health()

    assert before == {
        "path": str(path),
        "last_error": None,
        "pending_events": 0,
        "dropped_events": 0,
        "last_commit_at": None,
        "set_aside": [],
        "network_file_system": None,
        "thinned_calls": 0,
        "past_max_mb": False,
        "open_to_others": [],
    }
    assert len(after["last_commit_at"]) == 27


def test_shutdown_closes_the_file_and_says_what_could_not_be_written(path, caplog):
    store = SQLiteStore(path, process_value(), max_buffer=10)
    record(store, call_value(), batch("a"))
    store.tokentape_tokens(call_value(), batch("b"))
    store.tokentape_call_started(call_value("LATE"))
    store.tokentape_tokens(call_value("LATE"), batch("b"))
    store.tokentape_shutdown()

    assert [file.name for file in path.parent.iterdir()] == ["tape.db"]
    assert f"{path}: 1 token events could not be written and are lost." in caplog.text


def test_the_tape_of_the_store_is_sound(store, path):
    record(store, call_value(labels={"a": "b"}), batch("a", "b", logprobs={0: [1]}), stalls=(stall(1),))

    connection = schema.open_for_writing(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_deleting_a_call_takes_everything_of_it_along(store, path, rows):
    record(store, call_value(labels={"a": "b"}), batch("a", logprobs={0: [1]}), stalls=(stall(1),))
    connection = schema.open_for_writing(path)
    connection.execute("DELETE FROM llm_calls")
    connection.close()

    tables = ("llm_parts", "llm_tokens", "llm_token_logprobs", "llm_stalls", "call_labels")
    assert {table: rows(table) for table in tables} == {table: [] for table in tables}


@pytest.mark.scenario("storage/Bytes per event")
def test_an_event_takes_at_most_32_bytes(path):
    store = SQLiteStore(path, Process("h", None, 1, None, "n", "2026-11-23T18:00:00.000000Z"), max_buffer=10**6)
    call = call_value()
    store.tokentape_call_started(call)
    words = (" the", " token", " a", ".", " of", " is")
    for start in range(0, 100_000, 250):
        events = range(start, start + 250)
        store.tokentape_tokens(
            call,
            TokenBatch(
                offset_us=[i * 20_000 + i % 977 for i in events],
                wait_us=[19_000 + i % 977 for i in events],
                part=[0] * 250,
                token=[words[i % 6] for i in events],
                parts=(TEXT,),
            ),
        )
        if start % 1000 == 0:
            store.tokentape_flush()
    store.tokentape_flush()
    with sqlite3.connect(path) as db:
        if not db.execute("SELECT sqlite_compileoption_used('ENABLE_DBSTAT_VTAB')").fetchone()[0]:
            pytest.skip("this SQLite has no dbstat")
        size = db.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'llm_tokens'").fetchone()[0]
    store.tokentape_shutdown()

    assert size / 100_000 <= 32


def test_text_of_a_call_in_one_look_and_in_pieces_is_the_same():
    whole, pieces = CallText(), CallText()
    texts = ["a", "\ud83d", "\ude00", "", "z\ud83d"]
    together = whole.take([0] * 5, texts)
    apart = [text for each in texts for text in pieces.take([0], [each])]

    assert list(together) == apart == ["a", "", "😀", "", "z"]
    assert (whole.rest(), pieces.rest()) == ([0], [0])
    assert whole.content(0) == pieces.content(0) == "a😀z\ufffd"
