"""However a LangChain stream ends, its call ends once, as what it was; and recording never reaches the program."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.callbacks.manager import handle_event

import tokentape
from langchain_drivers import chat_model
from scripted_chat_model import ScriptedChatModel, chunk
from tape_reader import TapeReader
from tokentape.recorder import Recorder
from tokentape.testing import Drop, ErrorEvent, Finish, ProviderServer, Script, Text
from tokentape_langchain.handler import Handler
from tokentape_langchain.hook import SWITCH

WORDS = [(0.01, Text(f"word{i} ")) for i in range(20)]


def ended(tape: TapeReader) -> list[tuple[Any, ...]]:
    """Layer, status and number of events of each call."""
    return [(call["layer"], call["status"], call["event_count"]) for call in tape.calls()]


def left(events: int) -> list[tuple[Any, ...]]:
    return [("framework", "abandoned", events), ("sdk", "abandoned", events)]


def read(stream: Any, count: int) -> None:
    for _ in range(count):
        next(stream)


def test_closed_half_way(server: ProviderServer, tape: TapeReader) -> None:
    server.add(WORDS)
    stream = chat_model(server.url).stream("hi")
    read(stream, 3)
    stream.close()
    assert ended(tape) == left(3)
    assert [call["error_type"] for call in tape.calls()] == [None, None]


def test_dropped_half_way(server: ProviderServer, tape: TapeReader) -> None:
    server.add(WORDS)
    stream = chat_model(server.url).stream("hi")
    read(stream, 3)
    del stream
    gc.collect()
    assert ended(tape) == left(3)


def test_an_exception_in_the_loop_passes_unchanged(server: ProviderServer, tape: TapeReader) -> None:
    server.add(WORDS)
    mistake = ValueError("of the program")
    with pytest.raises(ValueError) as caught, closing(chat_model(server.url).stream("hi")) as stream:
        read(stream, 2)
        raise mistake
    assert caught.value is mistake
    assert mistake.__context__ is None
    assert ended(tape) == left(2)


@pytest.mark.parametrize("event", [Drop(), ErrorEvent("server_error", "overloaded")])
def test_a_failure_half_way(event: Any, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), (0.1, event)])
    with pytest.raises(Exception) as caught:
        list(chat_model(server.url).stream("hi"))
    assert ended(tape) == [("framework", "error", 1), ("sdk", "error", 1)]
    assert tape.calls()[0]["error_type"] == type(caught.value).__qualname__
    assert tape.calls()[0]["error_message"] == str(caught.value)


@pytest.mark.parametrize("how", ["ainvoke", "ainvoke that streams", "abatch", "astream"])
async def test_a_cancelled_task(how: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), (30.0, Text("never"))])
    server.add([Text("Hel"), (30.0, Text("never"))])
    model = chat_model(server.url, **{"streaming": True} if "stream" in how else {})

    async def use() -> None:
        if how == "abatch":
            await model.abatch(["hi", "hello"])
        elif "ainvoke" in how:
            await model.ainvoke("hi")
        else:
            async for _ in model.astream("hi"):
                pass

    events, requests = int("stream" in how), 2 if how == "abatch" else 1
    task = asyncio.create_task(use())
    async with asyncio.timeout(20):
        while len(server.requests) < requests or len(tape.tokens()) < 2 * events:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # what is waited for happens in other threads
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    expected = [("framework", "cancelled", events), ("sdk", "cancelled", events)]
    assert sorted(ended(tape)) == sorted(expected * requests)
    assert not SWITCH.get()._runs


def test_a_failure_of_the_model_itself(tape: TapeReader) -> None:
    with pytest.raises(KeyError):
        list(ScriptedChatModel(chunks=[chunk("Hel"), KeyError("x")]).stream("hi"))
    assert ended(tape) == [("framework", "error", 1)]


def test_silence_has_no_known_cause_above_and_a_known_one_beneath(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("a"), (1.3, Text("b")), Finish("stop")])
    list(chat_model(server.url).stream("hi"))
    stalls = tape.rows("select c.layer, s.cause from llm_stalls s join llm_calls c on c.id = s.call_id order by c.id")
    assert [tuple(row.values()) for row in stalls if row] == [("framework", "unknown"), ("sdk", "upstream")]


def test_after_disable_langchain_is_as_it_was(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(Script(WORDS[:2], repeat=True))
    model = chat_model(server.url)
    before = CallbackManager.configure().handlers
    tokentape.enable(db=tmp_path / "tape.db")
    (handler,) = [h for h in CallbackManager.configure().handlers if isinstance(h, Handler)]
    stream = model.stream("hi")
    read(stream, 1)
    tokentape.disable()
    assert CallbackManager.configure().handlers == before
    monkeypatch.setattr(Recorder, "start", fail)
    # What began while it was recorded goes on unrecorded, as does what still has the handler.
    list(stream)
    list(model.stream("hi", {"callbacks": [handler]}))
    assert ended(TapeReader(tmp_path / "tape.db")) == left(1)


def test_enabled_again_every_run_is_recorded_once(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([Text("a"), Finish("stop")], repeat=True))
    model = chat_model(server.url)
    for _ in range(3):
        tokentape.enable(db=tmp_path / "tape.db", plugins=["langchain"])
        list(model.stream("hi", {"callbacks": [SWITCH.get()]}))
        tokentape.disable()
    assert ended(TapeReader(tmp_path / "tape.db")) == [("framework", "completed", 1)] * 3


def test_a_copied_configuration_keeps_the_one_handler(tape: TapeReader) -> None:
    manager = CallbackManager.configure()
    assert copy.deepcopy(manager).handlers == manager.handlers
    list(ScriptedChatModel(chunks=[chunk("a")]).stream("hi", {"callbacks": copy.deepcopy(manager)}))
    assert ended(tape) == [("framework", "completed", 1)]
    # In another process it does nothing, and nothing there fails.
    elsewhere = pickle.loads(pickle.dumps(SWITCH.get()))
    list(ScriptedChatModel(chunks=[chunk("a")]).stream("hi", {"callbacks": [elsewhere]}))
    assert len(tape.calls()) == 2


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("of the recording")


def test_a_fault_of_ours_is_seen_where_faults_shall_be_seen(tape: TapeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_STRICT", "1")
    monkeypatch.setattr("tokentape_langchain.chunks.ChunkReader.read", fail)
    with pytest.raises(RuntimeError, match="of the recording"):
        list(ScriptedChatModel(chunks=[chunk("a")]).stream("hi"))


@pytest.mark.usefixtures("lenient", "tape")
def test_a_callback_called_as_it_never_was_reaches_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    CallbackManager.configure().on_tool_start({}, "", told_from_now_on=1).on_tool_end(None)
    handle_event(CallbackManager.configure().handlers, "on_tool_start", "ignore_agent")
    assert "Error in Handler.on_tool_start callback" in caplog.text


@pytest.mark.parametrize(
    "target",
    [
        "tokentape_langchain.handler.chat_request",
        "tokentape_langchain.chunks.ChunkReader.read",
        "tokentape_langchain.model_run.read_answer",
        "tokentape.marks.Marks.begin",
        "tokentape.marks.Marks.end",
        "tokentape.recorder.Recorder.start",
    ],
)
@pytest.mark.usefixtures("lenient")
def test_a_fault_of_ours_never_reaches_the_program(
    target: str,
    server: ProviderServer,
    tape: TapeReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(target, fail)
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    prompt_and_model = (lambda text: text) | as_node(chat_model(server.url))
    with caplog.at_level(logging.WARNING):
        said = "".join(piece.content for piece in prompt_and_model.stream("hi"))
    assert said == "Hello"
    assert {record.name for record in caplog.records} == {"tokentape"}
    ours = [record for record in caplog.records if "langchain adapter failed" in record.getMessage()]
    assert len(ours) == 1


def as_node(model: Any) -> Any:
    """The model, tagged as LangGraph tags its nodes."""
    from langchain_core.runnables import RunnableLambda

    tagged = RunnableLambda(lambda text: text).with_config(tags=["graph:step:1"], metadata={"langgraph_node": "ask"})
    return tagged | model


@pytest.mark.usefixtures("lenient")
def test_another_version_is_left_alone(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["langchain_core"], "__version__", "2.0.0")
    server.add([Text("Hel"), Finish("stop")])
    tokentape.enable(db=tmp_path / "tape.db", plugins=["langchain"])
    list(chat_model(server.url).stream("hi"))
    said = "langchain adapter: supports langchain_core >=1.7,<2, found 2.0.0: not recording."
    assert [record.getMessage() for record in caplog.records] == [said]
    (patches,) = tokentape.status()["patches"]
    assert (patches["adapter"], patches["problem"]) == ("langchain", said)
    assert tokentape.last_call() is None


def test_many_streams_in_many_threads_leave_nothing_open(server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script(WORDS[:5], repeat=True))
    model = chat_model(server.url)

    def use() -> None:
        for turn in range(5):
            stream = model.stream("hi")
            read(stream, 1 + turn % 5)
            stream.close()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tape.calls()) == 80
    assert tokentape.status()["open_calls"] == 0
    parents = [call["parent_id"] for call in tape.calls() if call["layer"] == "sdk"]
    assert len(set(parents)) == 40
