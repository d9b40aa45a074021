"""Runs, labels and marks: what a call belongs to is decided where it is sent, and nothing of it leaks."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from programs import Program
from tape_reader import TapeReader
from tokentape.testing import FakeClock, Finish, Text
from tokentape.testing.rig import Rig

THREE_WORDS = [(0.005, Text("one ")), (0.005, Text("two ")), (0.005, Text("three ")), Finish("stop")]
RUNS = """
select r.name, r.status, r.metadata_json, parent.name as parent, r.started_at <= r.ended_at as ended
from runs r left join runs parent on parent.id = r.parent_id order by r.id
"""
RUN_OF_CALLS = "select r.name from llm_calls c join runs r on r.id = c.run_id order by c.id"


def one_call(model: str = "m") -> None:
    with tokentape.start_llm_stream(model=model) as stream:
        stream.add_token("a ")


def process_run(tape: TapeReader) -> str:
    return str(tape.rows("select name from runs where parent_id is null")[0]["name"])


@pytest.mark.scenario("privacy/Name that is not text")
def test_a_name_that_is_no_text_is_refused(tape: TapeReader) -> None:
    with pytest.raises(TypeError, match=r"^name of a run: expected a text, got NoneType$"):
        tokentape.run(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^name of a mark: expected a text, got list$"):
        tokentape.mark(["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^kind of a mark: expected a text, got NoneType$"):
        tokentape.mark("search", kind=None)  # type: ignore[arg-type]
    with tokentape.run(5):  # type: ignore[arg-type]  # what has a text is taken for it
        one_call()
    assert tape.rows(RUN_OF_CALLS) == [{"name": "5"}]


@pytest.mark.scenario("capture/Nested runs")
def test_nested_runs(tape: TapeReader) -> None:
    with tokentape.run("outer"), tokentape.run("inner", metadata={"k": 1}) as inner:
        one_call()
        assert tokentape.current_run() is inner
    top = process_run(tape)
    tokentape.disable()
    runs = {row.pop("name"): row for row in tape.rows(RUNS)}
    ended = {"status": "completed", "metadata_json": None, "ended": 1}
    assert runs == {
        top: ended | {"parent": None},
        "outer": ended | {"parent": top},
        "inner": ended | {"parent": "outer", "metadata_json": '{"k": 1}'},
    }
    assert tape.rows("select uid from runs where id = (select run_id from llm_calls)") == [{"uid": inner.uid}]


@pytest.mark.scenario("capture/Nested runs")
async def test_nested_runs_in_async_code(tape: TapeReader) -> None:
    async with tokentape.run("outer"):
        one_call()
        async with tokentape.run("inner"):
            await asyncio.create_task(asyncio.to_thread(one_call))
        one_call()
    assert [row["name"] for row in tape.rows(RUN_OF_CALLS)] == ["outer", "inner", "outer"]


@pytest.mark.scenario("capture/Nested runs")
@pytest.mark.parametrize(
    ("mistake", "status"),
    [
        (ValueError(), "error"),
        (KeyboardInterrupt(), "error"),
        (asyncio.CancelledError(), "error"),
        (SystemExit(3), "error"),
        (SystemExit(0), "completed"),
    ],
    ids=repr,
)
def test_a_run_left_by_an_exception(tape: TapeReader, mistake: BaseException, status: str) -> None:
    with pytest.raises(type(mistake)) as caught, tokentape.run("outer"), tokentape.run("inner"):
        raise mistake
    assert caught.value is mistake
    rows = {row["name"]: (row["status"], row["ended"]) for row in tape.rows(RUNS)}
    assert (rows["inner"], rows["outer"]) == ((status, 1), (status, 1))


def test_a_run_that_is_still_open_is_running(tape: TapeReader) -> None:
    with tokentape.run("open"):
        one_call()
        assert [(row["status"], row["ended"]) for row in tape.rows(RUNS) if row["name"] == "open"] == [
            ("running", None)
        ]


@pytest.mark.scenario("capture/Process run")
def test_calls_of_a_script_belong_to_a_run_named_after_it(tmp_path: Path) -> None:
    code = """
    import tokentape
    tokentape.enable()
    for _ in range(2):
        with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("a")
    """
    program = Program(tmp_path, code, name="nightly.py")
    assert program.run().returncode == 0
    assert program.rows(RUN_OF_CALLS) == [{"name": "nightly.py"}] * 2
    assert program.rows("select name, status, parent_id, ended_at > '2' as ended from runs") == [
        {"name": "nightly.py", "status": "completed", "parent_id": None, "ended": 1}
    ]


@pytest.mark.scenario("capture/Labels follow tasks")
async def test_labels_follow_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_LABELS", "env=prod")
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)

    async def task() -> None:
        await asyncio.sleep(0)
        one_call()

    with tokentape.label(user="17"):
        tasks = [asyncio.create_task(task()) for _ in range(2)]
    await asyncio.gather(*tasks)
    one_call()
    rows = TapeReader(tmp_path / "tape.db").rows("select * from call_labels order by call_id, key")
    assert [(row["call_id"], row["key"], row["value"]) for row in rows] == [
        (1, "env", "prod"),
        (1, "user", "17"),
        (2, "env", "prod"),
        (2, "user", "17"),
        (3, "env", "prod"),
    ]


def test_labels_nest_and_the_inner_value_wins(tape: TapeReader) -> None:
    with tokentape.label(user=17, env="test"):
        with tokentape.label(env="prod", request_id="r"):
            one_call()
        one_call()
    one_call()
    assert [json.loads(call["labels_json"] or "{}") for call in tape.calls()] == [
        {"user": "17", "env": "prod", "request_id": "r"},
        {"user": "17", "env": "test"},
        {},
    ]


@pytest.mark.scenario("capture/Mark between calls")
def test_mark_between_calls(tmp_path: Path) -> None:
    fake = FakeClock()
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20, clock=fake.clock)
    with tokentape.run("agent"), tokentape.mark("search", kind="tool"):
        fake.advance(ms=200)
    (mark,) = TapeReader(tmp_path / "tape.db").rows(
        "select m.*, r.name as run from marks m join runs r on r.id = m.run_id"
    )
    assert mark == {
        "id": 1,
        "run_id": mark["run_id"],
        "run": "agent",
        "call_id": None,
        "started_unix_us": 1_793_000_000_000_000,
        "duration_us": 200_000,
        "kind": "tool",
        "name": "search",
    }


async def test_marks_nest_in_async_code_and_belong_to_the_process_where_no_run_is_open(tape: TapeReader) -> None:
    with tokentape.mark("plan", kind="node"), tokentape.mark("search"):
        await asyncio.sleep(0.02)
    marks = tape.rows("select m.name, m.kind, m.duration_us, r.parent_id from marks m join runs r on r.id = m.run_id")
    assert [(mark["name"], mark["kind"], mark["parent_id"]) for mark in marks] == [
        ("search", "tool", None),
        ("plan", "node", None),
    ]
    assert 20_000 <= marks[0]["duration_us"] <= marks[1]["duration_us"]


def test_a_mark_left_by_an_exception_is_kept(tape: TapeReader) -> None:
    with pytest.raises(ValueError, match="^no$"), tokentape.mark("search"):
        raise ValueError("no")
    assert [row["name"] for row in tape.rows("select name from marks")] == ["search"]


@pytest.mark.scenario("capture/Suppressed block")
async def test_suppressed_block(rig: Rig) -> None:
    rig.server.add(THREE_WORDS, THREE_WORDS)
    with tokentape.suppress():
        stream = await rig.send()
    assert len(await rig.read(stream)) == 4
    await rig.read(await rig.send())
    call = rig.call()
    assert (call["status"], call["event_count"]) == ("completed", 3)
    assert len(rig.server.requests) == 2


def test_suppression_covers_streams_by_hand_and_ends_with_its_block(tape: TapeReader) -> None:
    with tokentape.suppress(), tokentape.start_llm_stream(model="hidden") as stream:
        stream.add_token("a")
        stream.usage(output_tokens=1)
        stream.finish("stop")
    assert list(tokentape.record_stream(lambda: iter("ab"), model="seen", text=str)) == ["a", "b"]
    assert [call["request_model"] for call in tape.calls()] == ["seen"]


@pytest.mark.scenario("capture/Stream changes hands")
@pytest.mark.parametrize("rig", ["async"], indirect=True)
async def test_made_in_one_task_read_in_a_second_broken_off_in_a_third(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.server.add([(0.005, Text(f"word{i} ")) for i in range(20)])
    held: list[Any] = []

    async def make() -> None:
        async with tokentape.run("first"):
            with tokentape.label(user="17"), tokentape.content("full"):
                held.append(await rig.send())

    async def read(count: int) -> None:
        async with tokentape.run("other"):
            async for _ in held[0]:
                count -= 1
                if not count:
                    break

    async def drop() -> None:
        held.clear()

    await asyncio.create_task(make())
    await asyncio.create_task(read(2))
    await asyncio.create_task(read(1))
    await asyncio.create_task(drop())
    await rig.collect()
    call = rig.call()
    assert (call["status"], call["event_count"], call["content_level"]) == ("abandoned", 3, "full")
    assert (call["labels_json"], rig.rows(RUN_OF_CALLS)) == ('{"user": "17"}', [{"name": "first"}])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.scenario("capture/Stream changes hands")
@pytest.mark.parametrize("rig", ["sync"], indirect=True)
@pytest.mark.parametrize("to_its_end", [True, False])
async def test_read_in_another_thread(rig: Rig, to_its_end: bool, caplog: pytest.LogCaptureFixture) -> None:
    rig.server.add(THREE_WORDS)
    with tokentape.run("first"):
        stream = await rig.send()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in stream:
                if not to_its_end:
                    break
            stream.close()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(10)
    assert failures == []
    assert rig.call()["status"] == ("completed" if to_its_end else "abandoned")
    assert rig.rows(RUN_OF_CALLS) == [{"name": "first"}]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.scenario("capture/Context variables untouched")
async def test_context_variables_before_between_and_after_chunks(rig: Rig) -> None:
    rig.server.add(THREE_WORDS)
    theirs: contextvars.ContextVar[str] = contextvars.ContextVar("theirs", default="")
    theirs.set("mine")

    def everything() -> dict[Any, Any]:
        return dict(contextvars.copy_context().items())

    before = everything()
    stream = await rig.send()
    seen = [everything()]
    async for _ in through(rig, stream):
        seen.append(everything())
    await rig.close(stream)
    seen.append(everything())
    assert seen == [before] * 6


async def through(rig: Rig, stream: Any) -> Any:
    """The chunks one by one; a plain wrapper that sets nothing."""
    for _ in range(4):
        yield await rig.next(stream)


def test_a_block_left_in_another_context_than_it_was_entered_in(tape: TapeReader) -> None:
    def generator() -> Iterator[int]:
        with tokentape.run("in a generator"), tokentape.label(user="17"):
            yield 1

    started = generator()
    contextvars.copy_context().run(next, started)
    started.close()
    one_call()
    assert tape.rows(RUN_OF_CALLS)[0]["name"] == process_run(tape)
    assert tape.call()["labels_json"] is None


def test_last_call_is_that_of_the_run_else_of_the_process(tape: TapeReader) -> None:
    with tokentape.run("a"):
        one_call("in a")
        inside = tokentape.last_call()
        with tokentape.run("b"):
            one_call("in b")
        assert tokentape.last_call() is inside
    last = tokentape.last_call()
    assert (inside.call.request_model, last.call.request_model) == ("in a", "in b")  # type: ignore[union-attr]
    assert {inside.uid, last.uid} == {call["uid"] for call in tape.calls()}  # type: ignore[union-attr]


def test_log_records_can_carry_run_and_call(tape: TapeReader, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("program")
    logger.addFilter(log_filter := tokentape.LogFilter())
    try:
        with tokentape.run("a") as run:
            one_call()
            logger.warning("hello")
    finally:
        logger.removeFilter(log_filter)
    (record,) = caplog.records
    assert (record.tokentape_run, record.tokentape_call) == (run.uid, tape.call()["uid"])


async def test_everything_can_be_left_in_a_program_that_is_not_recorded() -> None:
    async with tokentape.run("a", metadata={"k": 1}) as run:
        with tokentape.label(user="17"), tokentape.content("full"), tokentape.suppress(), tokentape.mark("search"):
            one_call()
    assert len(run.uid) == 26
    assert (tokentape.current_run(), tokentape.last_call()) == (None, None)
