"""A framework's call and the requests it sent are parent and children, however they ran; every token counts once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from openai import AsyncOpenAI, OpenAI

import tokentape
from langchain_drivers import chat_model
from tape_reader import TapeReader
from tokentape import context
from tokentape.testing import Finish, ProviderServer, Script, Text, Usage, WaitFor
from tokentape_langchain.hook import SWITCH
from totals import totals

ANSWER = [Text("Hel"), Text("lo"), Finish("stop"), Usage(12, 2)]


class Delegating(BaseChatModel):
    """A model without `_astream`, which LangChain then runs `_stream` of on an executor's thread."""

    client: Any
    model_name: str = "gpt-x"

    @property
    def _llm_type(self) -> str:
        return "delegating"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        for chunk in self.client.chat.completions.create(model=self.model_name, messages=[], stream=True):
            if chunk.choices:
                yield ChatGenerationChunk(message=AIMessageChunk(chunk.choices[0].delta.content or ""))


def links(tape: TapeReader) -> list[tuple[Any, ...]]:
    """Layer and model of each call with those of its parent, in the order they were sent."""
    return [
        tuple(row.values())
        for row in tape.rows(
            "select c.layer, c.request_model, p.layer as parent, p.request_model as parent_model "
            "from llm_calls c left join llm_calls p on p.id = c.parent_id order by c.id"
        )
    ]


def pair(model: str = "gpt-x") -> list[tuple[Any, ...]]:
    return [("framework", model, None, None), ("sdk", model, "framework", model)]


async def drained(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def consumed_by_another_task(model: Any) -> None:
    stream = model.astream("hi")
    first = await asyncio.create_task(anext(stream))
    assert first.content == "Hel"
    await asyncio.create_task(drained(stream))


async def v3(model: Any) -> None:
    stream = await model.astream_events("hi", version="v3")
    await drained(stream.text)


def in_a_thread_of_its_own(model: Any) -> None:
    thread = threading.Thread(target=lambda: list(model.stream("hi")))
    thread.start()
    thread.join()


def in_an_executor(model: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, model.invoke, "hi").result()


def made_here_and_read_there(model: Any) -> None:
    stream = model.stream("hi")
    contextvars.copy_context().run(list, stream)


WAYS: dict[str, Callable[[Any], Any]] = {
    "stream": lambda m: list(m.stream("hi")),
    "invoke": lambda m: m.invoke("hi"),
    "stream_events v3": lambda m: list(m.stream_events("hi", version="v3").text),
    "astream": lambda m: asyncio.run(drained(m.astream("hi"))),
    "ainvoke": lambda m: asyncio.run(m.ainvoke("hi")),
    "astream_events v2": lambda m: asyncio.run(drained(m.astream_events("hi", version="v2"))),
    "astream_events v3": lambda m: asyncio.run(v3(m)),
    "task by task": lambda m: asyncio.run(consumed_by_another_task(m)),
    "thread": in_a_thread_of_its_own,
    "executor": in_an_executor,
    "lazy": made_here_and_read_there,
    "ainvoke of a synchronous function": lambda m: asyncio.run(RunnableLambda(m.invoke).ainvoke("hi")),
}


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize("way", WAYS)
def test_a_request_is_the_child_of_the_call_that_sent_it(way: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    WAYS[way](chat_model(server.url))
    assert links(tape) == pair()
    assert totals(tape) == (1, 12, 2)


def with_a_tool(model: Any) -> Any:
    """A chain whose tool hands the callbacks that it was given on to the model."""

    @tool
    async def look(question: str, config: RunnableConfig) -> str:
        """Look something up."""
        return "".join([str(chunk.content) async for chunk in model.astream(question, config)])

    return RunnableLambda(lambda question: {"question": question}) | look


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("handed_twice", [False, True], ids=["", "handler passed too"])
def test_events_of_a_tool_that_was_given_the_callbacks_are_the_same_and_counted_once(
    version: str, handed_twice: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script(ANSWER, repeat=True))

    def told() -> list[Any]:
        config = {"callbacks": [handler]} if (handler := SWITCH.get()) and handed_twice else {}
        events = with_a_tool(chat_model(server.url)).astream_events("hi", config, version=version)
        return [(event["event"], event["name"], sorted(event["data"])) for event in asyncio.run(drained(events))]

    recorded = told()
    assert ("on_chat_model_stream", "ChatOpenAI", ["chunk"]) in recorded
    assert links(tape) == pair()
    assert totals(tape) == (1, 12, 2)
    assert [row["name"] for row in tape.rows("select name from marks")] == ["look"]
    tokentape.disable()
    assert told() == recorded


@pytest.mark.scenario("capture/No buffering")
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_event_is_handed_over_before_the_next_chunk_is_sent(
    version: str, server: ProviderServer, tape: TapeReader
) -> None:
    seen = threading.Event()
    server.add([Text("one"), WaitFor(seen), Text("two"), Finish("stop")])
    async for event in chat_model(server.url).astream_events("hi", version=version):
        if event["event"] == "on_chat_model_stream" and event["data"]["chunk"].content == "one":
            seen.set()
    assert [call["status"] for call in tape.calls()] == ["completed", "completed"]
    assert tape.text() == "onetwo" * 2


@pytest.mark.scenario("adapters/Linked call")
def test_both_layers_hold_the_same_answer(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    list(chat_model(server.url).stream("hi"))
    outer, inner = tape.calls()
    columns = ("status", "finish_reason", "event_count", "input_tokens", "token_count", "request_model", "provider")
    assert [outer[column] for column in columns] == [inner[column] for column in columns]
    assert tape.rows("select text from responses order by call_id") == [{"text": "Hello"}, {"text": "Hello"}]
    assert inner["started_unix_us"] - outer["started_unix_us"] >= 0


def test_a_stream_on_an_executors_thread_is_linked(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    model = Delegating(client=OpenAI(base_url=server.url, api_key="none"))
    asyncio.run(drained(model.astream("hi")))
    assert links(tape) == pair()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_models_side_by_side_have_their_own_children(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        server.add(ANSWER, model=name)
    together = RunnableParallel({name: chat_model(server.url, model=name) for name in names})
    if asynchronous:
        asyncio.run(together.ainvoke("hi"))
    else:
        list(together.stream("hi"))
    assert sorted(links(tape)) == sorted(link for name in names for link in pair(name))
    assert totals(tape) == (3, 36, 6)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_of_a_batch_has_its_own_child(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script(ANSWER, repeat=True))
    model = chat_model(server.url)
    if asynchronous:
        asyncio.run(model.abatch(["a", "b", "c"]))
    else:
        model.batch(["a", "b", "c"])
    parents = [call["parent_id"] for call in tape.calls() if call["layer"] == "sdk"]
    assert sorted(parents) == sorted(call["id"] for call in tape.calls() if call["layer"] == "framework")
    assert totals(tape) == (3, 36, 6)


@pytest.mark.scenario("adapters/Asked in the loop")
def test_a_call_made_inside_the_loop_is_no_child(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, model="gpt-x")
    server.add(ANSWER, model="own")
    own = OpenAI(base_url=server.url, api_key="none")
    for count, _ in enumerate(chat_model(server.url).stream("hi")):
        if count == 0:
            own.chat.completions.create(model="own", messages=[])
    assert links(tape) == [*pair(), ("sdk", "own", None, None)]
    assert totals(tape) == (2, 24, 4)


@pytest.mark.filterwarnings("ignore:.*is in beta")
async def test_a_call_made_while_another_task_reads_is_no_child(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, model="gpt-x")
    server.add(ANSWER, model="own")
    own = AsyncOpenAI(base_url=server.url, api_key="none")
    # LangChain starts the call here and reads it in a task of its own, from which nothing can be put back here.
    stream = await chat_model(server.url).astream_events("hi", version="v3")
    await anext(aiter(stream.text))
    await own.chat.completions.create(model="own", messages=[])
    await drained(stream.text)
    assert links(tape) == [*pair(), ("sdk", "own", None, None)]


@pytest.mark.filterwarnings("ignore:.*is in beta")
@pytest.mark.parametrize("way", WAYS)
def test_a_call_made_afterwards_is_no_child(way: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, model="gpt-x")
    server.add(ANSWER, model="own")
    WAYS[way](chat_model(server.url))
    OpenAI(base_url=server.url, api_key="none").chat.completions.create(model="own", messages=[])
    assert links(tape)[2:] == [("sdk", "own", None, None)]
    # Nothing of ours stays in the program's context.
    assert context.PARENT not in contextvars.copy_context()


async def test_a_call_made_after_an_awaited_one_is_no_child(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, model="gpt-x")
    server.add(ANSWER, model="own")
    await chat_model(server.url).ainvoke("hi")
    await asyncio.to_thread(
        OpenAI(base_url=server.url, api_key="none").chat.completions.create, model="own", messages=[]
    )
    assert links(tape) == [*pair(), ("sdk", "own", None, None)]


@pytest.mark.scenario("adapters/Cached")
def test_an_answer_out_of_the_cache_has_no_child(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(2):
            chat_model(server.url).invoke("hi")
    finally:
        set_llm_cache(None)
    assert links(tape) == [*pair(), ("framework", "gpt-x", None, None)]
    assert totals(tape) == (2, 12, 2)


def test_a_model_that_falls_back_has_a_child_each(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER, model="spare")
    model = chat_model(server.url).with_fallbacks([chat_model(server.url, model="spare")])
    assert model.invoke("hi").content == "Hello"
    assert links(tape) == [*pair(), *pair("spare")]
    assert [call["status"] for call in tape.calls()] == ["error", "error", "completed", "completed"]
