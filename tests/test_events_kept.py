"""What the tape holds of a stream: one row a call, one a token event, nothing read ahead."""

from __future__ import annotations

import threading
from dataclasses import fields
from typing import Any

import openai
import pytest

import tokentape
from openai_drivers import ChatDriver
from tape_reader import TapeReader
from tokentape.models import Metrics
from tokentape.testing import Finish, ProviderServer, Raw, Role, Text, Usage, WaitFor
from tokentape.testing.rig import END, Rig

METRICS = [field.name for field in fields(Metrics)]


def chunk(*texts: str) -> Raw:
    """One chunk of a chat completion, with a piece for each choice."""
    choices = [{"index": i, "delta": {"content": text}, "finish_reason": None} for i, text in enumerate(texts)]
    return Raw({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", "choices": choices})


@pytest.mark.scenario("capture/Whole stream kept")
async def test_a_whole_stream(rig: Rig) -> None:
    rig.server.add([Role(), (0.02, Text("Hel")), (0.02, Text("lo")), Finish("stop"), Usage(3, 2)])
    assert len(await rig.read(await rig.send())) == 5
    call = rig.call()
    counts = {name: call[name] for name in ("status", "chunk_count", "event_count", "dropped_count", "events_kept")}
    assert counts == {
        "status": "completed",
        "chunk_count": 5,
        "event_count": 2,
        "dropped_count": 0,
        "events_kept": "all",
    }
    rows = rig.rows("select * from llm_tokens order by token_index")
    assert [(row["token_index"], row["token"], row["part"], row["n_tokens"]) for row in rows] == [
        (0, "Hel", 0, None),
        (1, "lo", 0, None),
    ]
    assert 0 < rows[0]["offset_us"] < rows[1]["offset_us"]
    assert all(0 < row["wait_us"] <= row["offset_us"] for row in rows)
    (part,) = rig.rows("select p.*, k.name kind from llm_parts p join token_kinds k on k.id = p.kind_id")
    assert (part["part"], part["kind"], part["choice"], part["content"]) == (0, "text", 0, "Hello")


@pytest.mark.scenario("capture/Row before the first chunk")
async def test_the_row_is_there_while_the_program_still_waits(rig: Rig) -> None:
    go_on = threading.Event()
    rig.server.add([WaitFor(go_on), Text("late"), Finish("stop")])
    stream = await rig.send()
    assert tokentape.flush(5)
    call = rig.call()
    assert (call["status"], call["event_count"], call["chunk_count"], call["ended_at"]) == ("running", 0, None, None)
    assert {name: call[name] for name in METRICS} == dict.fromkeys(METRICS)
    assert rig.tokens() == []
    go_on.set()
    await rig.read(stream)
    assert rig.call()["status"] == "completed"


@pytest.mark.scenario("capture/One chunk, two parts")
async def test_a_chunk_for_two_choices_is_two_events_of_one_time(rig: Rig) -> None:
    rig.server.add([chunk("Hi", "Yo"), Finish("stop"), Finish("stop", choice=1)])
    stream = await rig.send()
    await rig.next(stream)
    await rig.close(stream)
    first, second = rig.rows("select * from llm_tokens order by token_index")
    assert (first["token"], second["token"]) == ("Hi", "Yo")
    assert (first["part"], second["part"]) == (0, 1)
    assert first["offset_us"] == second["offset_us"]
    assert first["wait_us"] > 0
    assert second["wait_us"] == 0
    assert (rig.call()["chunk_count"], rig.call()["event_count"]) == (1, 2)
    assert [row["choice"] for row in rig.tokens()] == [0, 1]


@pytest.mark.scenario("capture/One chunk, two parts")
async def test_chunks_are_counted_whatever_they_bring(rig: Rig) -> None:
    rig.server.add([chunk("Hi", "Yo"), chunk(), chunk("a"), chunk("", ""), chunk("b", "c", "d")])
    assert len(await rig.read(await rig.send())) == 5
    assert (rig.call()["chunk_count"], rig.call()["event_count"]) == (5, 6)


@pytest.mark.scenario("capture/Empty stream")
async def test_a_stream_without_a_single_chunk(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.server.add([])
    assert await rig.read(await rig.send()) == []
    call = rig.call()
    assert (call["status"], call["chunk_count"], call["event_count"]) == ("completed", 0, 0)
    without_value = [
        name for name in METRICS if name.endswith(("_token_latency_ms", "_text_latency_ms", "_chunk_latency_ms"))
    ]
    assert {name: call[name] for name in without_value} == dict.fromkeys(without_value)
    assert call["duration_ms"] > 0
    assert rig.tokens() == []
    assert [record for record in caplog.records if record.name.startswith("tokentape")] == []


@pytest.mark.scenario("capture/Nothing read ahead")
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_the_sdk_is_asked_as_often_as_it_is_without_recording(
    server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    asked = 0

    def counted(stream: Any) -> Any:
        nonlocal asked
        for item in original(stream):
            asked += 1
            yield item

    # Beneath the recording, which patches the same method: it has to be there first.
    tokentape.disable()
    original = vars(openai.Stream)["__stream__"]
    monkeypatch.setattr(openai.Stream, "__stream__", counted)
    tokentape.enable(db=tape.path, flush_ms=20)
    server.add([*(Text(f"word{i} ") for i in range(10)), Finish("stop")])
    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client, driver.send(client) as stream:
        for _ in range(taken):
            next(stream)
    assert asked == taken
    assert (tape.call()["chunk_count"], len(tape.tokens())) == (taken, taken)
    tokentape.disable()


@pytest.mark.scenario("capture/Nothing read ahead")
@pytest.mark.parametrize("taken", [0, 1, 4])
async def test_the_sdk_is_asked_as_often_in_async_code(
    server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    asked = 0

    async def counted(stream: Any) -> Any:
        nonlocal asked
        async for item in original(stream):
            asked += 1
            yield item

    tokentape.disable()
    original = vars(openai.AsyncStream)["__stream__"]
    monkeypatch.setattr(openai.AsyncStream, "__stream__", counted)
    tokentape.enable(db=tape.path, flush_ms=20)
    server.add([*(Text(f"word{i} ") for i in range(10)), Finish("stop")])
    driver = ChatDriver()
    async with driver.client(server.url, asynchronous=True) as client, await driver.send(client) as stream:
        for _ in range(taken):
            await anext(stream)
    assert asked == taken
    assert (tape.call()["chunk_count"], len(tape.tokens())) == (taken, taken)
    tokentape.disable()


@pytest.mark.scenario("capture/No buffering")
async def test_a_chunk_arrives_before_the_server_may_send_the_next(rig: Rig) -> None:
    confirmed = [threading.Event() for _ in range(3)]
    rig.server.add([step for i, event in enumerate(confirmed) for step in (Text(f"{i} "), WaitFor(event))])
    stream = await rig.send()
    received = []
    for event in confirmed:
        received.append(rig.driver.text(await rig.next(stream)))
        event.set()
    assert received == ["0 ", "1 ", "2 "]
    assert await rig.next(stream) is END
