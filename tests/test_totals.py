"""With a framework's and an SDK's adapter on, every total is the sum of the usage that the provider reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from openai import OpenAI

import tokentape
from langchain_drivers import chat_model
from tape_reader import TapeReader
from tokentape.testing import (
    Drop,
    ErrorEvent,
    Finish,
    HTTPError,
    ProviderServer,
    Reasoning,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)
from totals import shown, totals

QUESTION = {"messages": [("user", "when?")]}
# Every digit belongs to one answer: a sum says which of them were counted, and how often.
TURNS = [
    [ToolCall(0, "call_1", "clock"), ToolArgs(0, "{}"), Finish("tool_calls"), Usage(100_000, 10_000, cached=7)],
    [Reasoning("hm"), Text("It is "), Text("noon."), Finish("stop"), Usage(20_000, 2_000, reasoning=5)],
]
WHOLE = [Text("Hello"), Finish("stop"), Usage(3_000, 300)]
OWN = [Text("Hello"), Finish("stop"), Usage(400, 40)]
BROKEN = [Text("Hel"), (0.05, Drop())]
INCOMPLETE = [Text("Hel"), ErrorEvent("server_error", "it broke")]


@tool
def clock() -> str:
    """Say what time it is."""
    return "noon"


@pytest.fixture(params=["chat", "responses"])
def model(request: pytest.FixtureRequest, server: ProviderServer) -> Callable[..., Any]:
    """Makes models of one of the two APIs. Chat completions are asked for their counts, as LangChain asks OpenAI."""
    api = {"use_responses_api": True} if request.param == "responses" else {"stream_usage": True}
    return lambda **options: chat_model(server.url, **api | options)


@pytest.fixture
def cache() -> Iterator[None]:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


async def asked(agent: Any) -> None:
    async for _ in agent.astream(QUESTION, stream_mode="messages"):
        pass


AGENTS: dict[str, Callable[[Any], Any]] = {
    "stream": lambda agent: list(agent.stream(QUESTION, stream_mode="messages")),
    "invoke": lambda agent: agent.invoke(QUESTION),
    "astream": lambda agent: asyncio.run(asked(agent)),
    "ainvoke": lambda agent: asyncio.run(agent.ainvoke(QUESTION)),
}


@pytest.mark.scenario("storage/Totals over two layers")
@pytest.mark.parametrize("way", AGENTS)
def test_an_agents_tokens_are_what_the_provider_reported(
    way: str, model: Callable[..., Any], server: ProviderServer, tape: TapeReader
) -> None:
    server.add(*TURNS)
    with tokentape.run("agent") as run:
        AGENTS[way](create_agent(model(), [clock]))
    assert [call["layer"] for call in tape.calls()] == ["framework", "sdk"] * 2
    assert totals(tape) == (2, 120_000, 12_000)
    words, row = shown(tape, "show", run.uid)
    assert words.splitlines()[1].startswith("completed: 2 calls")
    assert (row["call_count"], row["input_tokens"], row["token_count"]) == (2, 120_000, 12_000)


@pytest.mark.scenario("storage/Totals over two layers")
@pytest.mark.usefixtures("cache")
def test_streamed_whole_failed_and_cached_answers_add_up(
    model: Callable[..., Any], server: ProviderServer, tape: TapeReader
) -> None:
    server.add(*TURNS, WHOLE, [HTTPError(500)], BROKEN, INCOMPLETE, OWN)
    with tokentape.run("program") as run:
        with tokentape.run("agent"):
            list(create_agent(model(cache=False), [clock]).stream(QUESTION, stream_mode="messages"))
        model().invoke("hi")
        for _ in range(3):
            with pytest.raises(Exception) as caught:
                list(model(cache=False).stream("hi"))
            assert tape.calls()[-2]["error_type"] == caught.type.__qualname__
        assert model().invoke("hi").content, "this one comes out of the cache"
        OpenAI(base_url=server.url, api_key="none").chat.completions.create(model="gpt-x", messages=[])
        said = AIMessage("Hi", usage_metadata={"input_tokens": 50, "output_tokens": 5, "total_tokens": 55})
        GenericFakeChatModel(messages=iter([said])).invoke("hi")

    assert len(server.requests) == 7
    # One a request, the cached one, and the model that no SDK asks for.
    assert totals(tape) == (9, 123_450, 12_345)
    words, _ = shown(tape, "show", run.uid)
    assert words.splitlines()[1].startswith("completed: 9 calls")
    _, listed = shown(tape, "list")
    assert sorted(call["layer"] for call in listed) == ["framework"] * 8 + ["sdk"] * 7


def test_an_answer_that_failed_counts_what_was_billed(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), Finish("failed"), Usage(100, 10)], WHOLE)
    model = chat_model(server.url, use_responses_api=True)
    with pytest.raises(Exception, match="scripted failure"):
        list(model.stream("hi"))
    model.invoke("hi")
    assert totals(tape) == (2, 3_100, 310)
