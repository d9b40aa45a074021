"""Every way in which a program can use a model through LangChain is recorded exactly once, and changed in nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, manager
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_openai import OpenAI
from langgraph.graph import END, START, StateGraph

import tokentape
from langchain_drivers import chat_model
from tape_reader import TapeReader
from tokentape.testing import Finish, HTTPError, ProviderServer, Script, Text, ToolArgs, ToolCall, Usage

ANSWER = [Text("Hel"), Text("lo"), Finish("stop"), Usage(12, 2, cached=3)]
Model = Any


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[TapeReader]:
    """Only the framework's layer is recorded."""
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20, plugins=["langchain"])
    yield TapeReader(tmp_path / "tape.db")
    tokentape.disable()


@pytest.fixture(autouse=True)
def _beta() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is in beta.*")
        yield


@pytest.fixture
def model(server: ProviderServer) -> Model:
    server.add(Script(ANSWER, repeat=True))
    return chat_model(server.url)


async def drained(stream: Any) -> list[Any]:
    return [item async for item in stream]


class State(TypedDict):
    said: str


def graph(model: Model, asynchronous: bool = False) -> Any:
    """A graph whose only node invokes the model."""

    def ask(state: State) -> State:
        return {"said": str(model.invoke("hi").content)}

    async def aask(state: State) -> State:
        return {"said": str((await model.ainvoke("hi")).content)}

    built = StateGraph(State)
    built.add_node("ask", aask if asynchronous else ask)
    built.add_edge(START, "ask")
    built.add_edge("ask", END)
    return built.compile()


def streamed_v3(model: Model) -> str:
    return "".join(model.stream_events("hi", version="v3").text)


async def astreamed_v3(model: Model) -> str:
    stream = await model.astream_events("hi", version="v3")
    return "".join([text async for text in stream.text])


async def aevents(model: Model, version: str) -> None:
    await drained(model.astream_events("hi", version=version))


async def aevents_of_a_chain(model: Model) -> None:
    async def ask(text: str) -> Any:
        return await model.ainvoke(text)

    await drained(RunnableLambda(ask).astream_events("hi", version="v2"))


async def agraph(model: Model, mode: str) -> None:
    await drained(graph(model, asynchronous=True).astream({"said": ""}, stream_mode=mode))


STREAMED: dict[str, Callable[[Model], Any]] = {
    "stream": lambda m: list(m.stream("hi")),
    "astream": lambda m: asyncio.run(drained(m.astream("hi"))),
    "stream of a chain": lambda m: list((m | StrOutputParser()).stream("hi")),
    "astream of a chain": lambda m: asyncio.run(drained((m | StrOutputParser()).astream("hi"))),
    "bind_tools": lambda m: list(m.bind_tools([]).stream("hi")),
    "invoke that streams": lambda m: m.invoke("hi", stream=True),
    "ainvoke that streams": lambda m: asyncio.run(m.ainvoke("hi", stream=True)),
    "astream_events v1": lambda m: asyncio.run(aevents(m, "v1")),
    "astream_events v2": lambda m: asyncio.run(aevents(m, "v2")),
    "astream_events v2 of a chain": lambda m: asyncio.run(aevents_of_a_chain(m)),
    "stream_events v3": streamed_v3,
    "astream_events v3": lambda m: asyncio.run(astreamed_v3(m)),
    "astream_log": lambda m: asyncio.run(drained(m.astream_log("hi"))),
    "langgraph messages": lambda m: list(graph(m).stream({"said": ""}, stream_mode="messages")),
    "langgraph messages, async": lambda m: asyncio.run(agraph(m, "messages")),
}
AT_ONCE: dict[str, Callable[[Model], Any]] = {
    "invoke": lambda m: m.invoke("hi"),
    "ainvoke": lambda m: asyncio.run(m.ainvoke("hi")),
    "generate": lambda m: m.generate([[HumanMessage("hi")]]),
    "langgraph values": lambda m: list(graph(m).stream({"said": ""}, stream_mode="values")),
    "langgraph values, async": lambda m: asyncio.run(agraph(m, "values")),
}


def expected(streaming: bool) -> dict[str, Any]:
    return {
        "layer": "framework",
        "adapter": "langchain",
        "operation": "chat",
        "provider": "openai",
        "request_model": "gpt-x",
        "response_model": "gpt-x",
        "parent_id": None,
        "status": "completed",
        "finish_reason": "stop",
        "streaming": int(streaming),
        "event_count": 2 if streaming else 0,
        # The frames of the finish and of the usage; not the one that LangChain makes up.
        "chunk_count": 4 if streaming else 0,
        "input_tokens": 12,
        "cached_input_tokens": 3,
        "output_tokens": 2,
        "token_count": 2,
        "token_count_source": "usage",
    }


def shown(call: dict[str, Any]) -> dict[str, Any]:
    return {column: call[column] for column in expected(streaming=True)}


@pytest.mark.scenario("adapters/Every LangChain surface")
@pytest.mark.parametrize("surface", STREAMED)
def test_a_stream_is_recorded_once(surface: str, model: Model, tape: TapeReader) -> None:
    STREAMED[surface](model)
    call = tape.call()
    assert shown(call) == expected(streaming=True)
    assert [(row["kind"], row["token"]) for row in tape.tokens()] == [("text", "Hel"), ("text", "lo")]
    assert len(call["framework_run_id"]) == 36


@pytest.mark.scenario("adapters/Plain invoke")
@pytest.mark.parametrize("surface", AT_ONCE)
def test_an_answer_in_one_piece_is_a_row_and_stays_one_piece(
    surface: str, model: Model, server: ProviderServer, tape: TapeReader
) -> None:
    AT_ONCE[surface](model)
    assert shown(tape.call()) == expected(streaming=False)
    assert tape.tokens() == []
    (request,) = server.requests
    assert "stream" not in request.json or request.json["stream"] is False


def test_an_answer_in_one_piece_is_no_stream_however_long_it_took(server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script(ANSWER, headers_delay=1.5))
    asked = threading.Thread(target=chat_model(server.url).invoke, args=("hi",))
    asked.start()
    while not server.requests:
        time.sleep(0.01)
    # Nothing says yet what it is.
    assert (tape.call()["status"], tape.call()["streaming"]) == ("running", 1)
    asked.join()
    assert shown(tape.call()) == expected(streaming=False)


@pytest.mark.scenario("adapters/Plain invoke")
@pytest.mark.parametrize("surface", [*STREAMED, *AT_ONCE])
def test_requests_are_the_same_with_and_without_recording(
    surface: str, model: Model, server: ProviderServer, tmp_path: Path
) -> None:
    use = {**STREAMED, **AT_ONCE}[surface]
    use(model)
    tokentape.enable(db=tmp_path / "tape.db", plugins=["langchain"])
    # Another one: the connections of the first belong to an event loop that is gone.
    use(chat_model(server.url))
    before, after = server.requests
    assert before.body == after.body


def test_what_the_program_sees_is_the_same(model: Model, server: ProviderServer, tmp_path: Path) -> None:
    def seen(asked: Model) -> list[Any]:
        chunks = list(asked.stream("hi"))
        return [(type(c), c.content, c.usage_metadata, c.response_metadata, c.chunk_position) for c in chunks]

    async def events(asked: Model) -> list[Any]:
        told = await drained(asked.astream_events("hi", version="v2"))
        return [(event["event"], event["name"], sorted(event["data"])) for event in told]

    plain = seen(model), asyncio.run(events(model))
    tokentape.enable(db=tmp_path / "tape.db")
    again = chat_model(server.url)
    assert (seen(again), asyncio.run(events(again))) == plain


class Listener(AsyncCallbackHandler):
    """A program's own."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.heard.append(token)


async def test_a_listener_of_the_programs_own_hears_what_we_do(model: Model, tape: TapeReader) -> None:
    listener = Listener()
    await drained(model.astream("Hi", {"callbacks": [listener]}))
    assert [text for text in listener.heard if text] == ["Hel", "lo"]
    assert [row["token"] for row in tape.tokens()] == ["Hel", "lo"]


async def test_tokens_that_nobody_else_listens_to_spare_langchains_dispatch(
    model: Model, tape: TapeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dispatched(*args: Any, **kwargs: Any) -> None:
        assert "on_llm_new_token" not in args
        await ahandle_event(*args, **kwargs)

    ahandle_event = manager.ahandle_event
    monkeypatch.setattr(manager, "ahandle_event", dispatched)
    await drained(model.astream("Hi"))
    assert [row["token"] for row in tape.tokens()] == ["Hel", "lo"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_of_a_batch_is_a_call(asynchronous: bool, model: Model, tape: TapeReader) -> None:
    if asynchronous:
        asyncio.run(model.abatch(["a", "b", "c"]))
    else:
        model.batch(["a", "b", "c"])
    assert [shown(call) for call in tape.calls()] == [expected(streaming=False)] * 3


def test_models_side_by_side_are_told_apart(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("a1 "), Text("a2"), Finish("stop")], model="a")
    server.add([Text("b1 "), Text("b2 "), Text("b3"), Finish("stop")], model="b")
    both = RunnableParallel({name: chat_model(server.url, model=name) for name in "ab"})
    list(both.stream("hi"))
    texts = {row["model"]: row["text"] for row in tape.rows("select model, text from responses")}
    assert texts == {"a": "a1 a2", "b": "b1 b2 b3"}


def test_a_model_made_to_stream_streams_when_invoked(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    assert chat_model(server.url, streaming=True).invoke("hi").content == "Hello"
    assert shown(tape.call()) == expected(streaming=True)


def test_text_models_are_recorded(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, [Text("one "), Text("piece"), Finish("stop"), Usage(5, 3)])
    model = OpenAI(model="gpt-x", base_url=server.url, api_key="none")
    list(model.stream("hi"))
    model.invoke("hi")
    streamed, whole = tape.calls()
    columns = ("operation", "layer", "streaming", "status", "event_count", "finish_reason")
    assert [streamed[c] for c in columns] == ["text_completion", "framework", 1, "completed", 2, "stop"]
    assert [whole[c] for c in columns] == ["text_completion", "framework", 0, "completed", 0, "stop"]
    assert (whole["input_tokens"], whole["output_tokens"]) == (5, 3)
    assert tape.text() == "Hello"


def test_tool_calls_are_parts_with_their_names(server: ProviderServer, tape: TapeReader) -> None:
    args = [ToolArgs(0, '{"q":'), ToolArgs(1, "{}"), ToolArgs(0, "1}")]
    server.add([ToolCall(0, "call_1", "look"), ToolCall(1, "call_2", "find"), *args, Finish("tool_calls")])
    list(chat_model(server.url).stream("hi"))
    assert [(p["kind"], p["name"], p["external_id"], p["provider_index"], p["content"]) for p in tape.parts()] == [
        ("tool_args", "look", "call_1", "0", '{"q":1}'),
        ("tool_args", "find", "call_2", "1", "{}"),
    ]
    assert tape.call()["finish_reason"] == "tool_calls"


def test_what_the_configuration_says_is_kept(model: Model, tape: TapeReader) -> None:
    class Own:
        """Nobody may keep this, or ask it for its text."""

        def __str__(self) -> str:
            raise AssertionError

    config = {"run_name": "greeting", "tags": ["t"], "metadata": {"thread_id": 7, "deep": {"a": [1]}, "own": Own()}}
    list(model.stream("hi", config))
    call = tape.call()
    kept = json.loads(call["metadata_json"])
    assert kept["tags"] == ["t"]
    mine = {key: value for key, value in kept["metadata"].items() if not key.startswith(("ls_", "lc_"))}
    assert mine == {"thread_id": 7, "deep": {"a": [1]}, "own": f"<{Own.__qualname__}>"}
    assert (call["name"], json.loads(call["labels_json"])) == ("greeting", {"thread_id": "7"})
    assert json.loads(call["request_json"]) == {"model": "gpt-x"}


@pytest.mark.scenario("adapters/Names of a graph")
def test_node_and_thread_are_labels_and_the_programs_own_win(model: Model, tape: TapeReader) -> None:
    config = {"configurable": {"thread_id": "langgraph's"}}
    graph(model).invoke({"said": ""}, config)
    with tokentape.label(thread_id="mine", user="17"):
        graph(model).invoke({"said": ""}, config)
    labels = [json.loads(call["labels_json"]) for call in tape.calls()]
    assert labels == [
        {"langgraph_node": "ask", "thread_id": "langgraph's"},
        {"langgraph_node": "ask", "thread_id": "mine", "user": "17"},
    ]


def test_only_a_run_that_the_program_opened_is_a_run(model: Model, tape: TapeReader) -> None:
    with tokentape.run("nightly") as run:
        list((model | StrOutputParser()).stream("hi"))
        graph(model).invoke({"said": ""})
    used = tape.rows("select distinct r.uid from runs r join llm_calls c on c.run_id = r.id")
    assert used == [{"uid": run.uid}]
    # The other one is the process's own, which every program has.
    assert len(tape.rows("select * from runs")) == 2


def test_prompts_are_kept_only_where_asked_for(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script(ANSWER, repeat=True))
    messages = [("system", "be brief"), ("user", [{"type": "text", "text": "hi"}])]
    for prompts in (False, True):
        tokentape.enable(db=tmp_path / "tape.db", prompts=prompts, plugins=["langchain"])
        list(chat_model(server.url).stream(messages))
        tokentape.disable()
    without, kept = TapeReader(tmp_path / "tape.db").calls()
    assert without["prompt_json"] is None
    assert json.loads(kept["prompt_json"]) == [
        {"role": "system", "content": "be brief"},
        {"role": "human", "content": [{"type": "text", "text": "hi"}]},
    ]


def test_an_answer_out_of_the_cache_counts_no_tokens(model: Model, server: ProviderServer, tape: TapeReader) -> None:
    set_llm_cache(InMemoryCache())
    try:
        assert [model.invoke("hi").content for _ in range(2)] == ["Hello", "Hello"]
    finally:
        set_llm_cache(None)
    assert len(server.requests) == 1
    asked, cached = tape.calls()
    assert shown(asked) == expected(streaming=False)
    assert (cached["status"], cached["streaming"], cached["output_tokens"]) == ("completed", 0, None)
    assert json.loads(cached["response_meta_json"]) == {"cached": True}
    (totals,) = tape.rows("select * from model_stats")
    assert (totals["call_count"], totals["input_tokens"], totals["token_count"]) == (2, 12, 2)


@pytest.mark.parametrize("surface", ["stream", "astream", "invoke", "stream_events v3", "astream_events v3"])
def test_a_refused_request_is_a_row(surface: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add([HTTPError(401)])
    with pytest.raises(Exception) as caught:
        {**STREAMED, **AT_ONCE}[surface](chat_model(server.url))
    call = tape.call()
    assert (call["status"], call["http_status"], call["event_count"]) == ("error", 401, 0)
    assert call["error_type"] == type(caught.value).__qualname__


def test_suppressed_models_leave_no_row(model: Model, tape: TapeReader) -> None:
    with tokentape.suppress():
        graph(model).invoke({"said": ""})
        list(model.stream("hi"))
    assert tape.calls() == []
    assert tape.rows("select * from marks") == []


def test_langchain_imported_after_recording_started_is_recorded(server: ProviderServer, tmp_path: Path) -> None:
    server.add(ANSWER)
    program = f"""
import sys, tokentape
tokentape.enable(db={str(tmp_path / "late.db")!r}, plugins=["langchain"])
assert "langchain_core" not in sys.modules
import langchain_core
assert "langchain_core.tracers.context" not in sys.modules, "importing it costs what LangChain itself puts off"
from langchain_openai import ChatOpenAI
list(ChatOpenAI(model="gpt-x", base_url={server.url!r}, api_key="none").stream("hi"))
assert tokentape.status()["faults"] == {{}}
tokentape.disable()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert shown(TapeReader(tmp_path / "late.db").call()) == expected(streaming=True)
