"""Where an agent's time goes: its tools, retrievers and nodes are marks, and `show` adds them up with the models."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from click.testing import CliRunner
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import tokentape
from langchain_drivers import chat_model
from tape_reader import TapeReader
from tokentape.cli import cli
from tokentape.testing import Finish, ProviderServer, Text, ToolArgs, ToolCall, Usage

SEARCH_S, CLOCK_S, WAIT_S, PACE_S = 0.6, 0.2, 0.15, 0.02
SECRET = "what nobody else may read"


@tool
def search(query: str) -> str:
    """Look something up."""
    time.sleep(SEARCH_S)
    return SECRET


@tool
async def clock() -> str:
    """Say what time it is."""
    await asyncio.sleep(CLOCK_S)
    return "noon"


@tool
def broken() -> str:
    """Fail."""
    raise KeyError(SECRET)


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(SECRET)]


@pytest.fixture
def agent(server: ProviderServer) -> Any:
    """An agent that searches, asks for the time, and answers: three requests at a true pace."""
    arguments = [(PACE_S, ToolArgs(0, piece)) for piece in ('{"query": "', SECRET, '"}')]
    answer = [(PACE_S, Text(f"word{i} ")) for i in range(10)]
    server.add(
        [(WAIT_S, ToolCall(0, "call_1", "search")), *arguments, Finish("tool_calls"), Usage(100, 20)],
        [(WAIT_S, ToolCall(0, "call_2", "clock")), (PACE_S, ToolArgs(0, "{}")), Finish("tool_calls"), Usage(150, 10)],
        [(WAIT_S, answer[0][1]), *answer[1:], Finish("stop"), Usage(200, 30)],
    )
    return create_agent(chat_model(server.url), [search, clock])


async def ask(agent: Any) -> str:
    said = ""
    config = {"configurable": {"thread_id": "7"}}
    async for piece, _ in agent.astream({"messages": [("user", "when?")]}, config, stream_mode="messages"):
        said += piece.content if piece.type == "AIMessageChunk" else ""
    return said


def marks(tape: TapeReader) -> list[tuple[Any, ...]]:
    rows = tape.rows("select kind, name from marks order by started_unix_us, id")
    return [tuple(row.values()) for row in rows]


def spent_on(run_uid: str, monkeypatch: pytest.MonkeyPatch, tape: TapeReader) -> tuple[str, list[dict[str, Any]]]:
    """What `show` says of a run's time, in words and as JSON."""
    monkeypatch.setenv("TOKENTAPE_DB", str(tape.path))
    plain, as_json = (CliRunner().invoke(cli, ["show", *options, run_uid]) for options in ([], ["--json"]))
    return plain.stdout.splitlines()[2], json.loads(as_json.stdout)["time"]


@pytest.mark.scenario("adapters/An agent with a tool")
def test_an_agents_time_adds_up(
    agent: Any, server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tokentape.run("agent") as run:
        started = time.monotonic()
        assert asyncio.run(ask(agent)) == "".join(f"word{i} " for i in range(10))
        wall_ms = (time.monotonic() - started) * 1000
    calls = tape.calls()
    assert [call["layer"] for call in calls] == ["framework", "sdk"] * 3
    assert all(inner["parent_id"] == outer["id"] for outer, inner in zip(calls[::2], calls[1::2], strict=True))
    assert marks(tape) == [
        ("node", "model"),
        ("node", "tools"),
        ("tool", "search"),
        ("node", "model"),
        ("node", "tools"),
        ("tool", "clock"),
        ("node", "model"),
    ]
    line, spent = spent_on(run.uid, monkeypatch, tape)
    took = {(share["kind"], share["name"]): share["duration_us"] / 1000 for share in spent}
    assert took["tool", "search"] >= SEARCH_S * 1000
    assert took["tool", "clock"] >= CLOCK_S * 1000
    assert took["model", None] >= 3 * WAIT_S * 1000
    # The run is a little more than what was timed inside it, and on a busy machine not much more than a little.
    assert 0 <= sum(took.values()) - wall_ms < 1000
    total, pieces = re.fullmatch(r"([\d.]+) s: (.*)", line).groups()
    shown = [float(piece.split()[-2]) for piece in pieces.split(" · ")]
    assert sum(shown) == pytest.approx(float(total))
    assert [piece.rsplit(" ", 2)[0] for piece in pieces.split(" · ")][:3] == ["model", "tool search", "tool clock"]


def test_an_agents_totals_are_the_providers(agent: Any, tape: TapeReader) -> None:
    with tokentape.run("agent") as run:
        asyncio.run(ask(agent))
    (stats,) = tape.rows("select * from run_stats where uid = ?", run.uid)
    assert (stats["call_count"], stats["input_tokens"], stats["token_count"]) == (3, 450, 60)
    (models,) = tape.rows("select * from model_stats")
    assert (models["call_count"], models["input_tokens"], models["token_count"]) == (3, 450, 60)
    labels = tape.rows("select distinct key, value from call_labels order by key")
    assert [tuple(row.values()) for row in labels] == [("langgraph_node", "model"), ("thread_id", "7")]


def test_a_mark_has_neither_arguments_nor_results(tape: TapeReader) -> None:
    with tokentape.run("steps") as run:
        search.invoke({"query": SECRET})
        Shelf().invoke(SECRET)
        with pytest.raises(KeyError):
            broken.invoke({})
        asyncio.run(clock.ainvoke({}))
    assert marks(tape) == [("tool", "search"), ("retriever", "Shelf"), ("tool", "broken"), ("tool", "clock")]
    rows = tape.rows("select m.*, r.uid from marks m join runs r on r.id = m.run_id")
    assert {(row["uid"], row["call_id"]) for row in rows} == {(run.uid, None)}
    assert SECRET not in json.dumps(rows)
    assert rows[0]["duration_us"] >= SEARCH_S * 1_000_000


def test_what_is_no_step_of_a_graph_is_no_mark(tape: TapeReader) -> None:
    chain = RunnableLambda(lambda text: text).with_config(run_name="named") | (lambda text: text)
    chain.invoke("hi", {"metadata": {"langgraph_node": "looks like one"}})
    clock_face = RunnableLambda(lambda text: text).as_tool(name="face", description="-", arg_types={"text": str})
    clock_face.invoke({"text": "hi"})
    assert marks(tape) == [("tool", "face")]


def test_a_mark_of_the_programs_own_belongs_to_no_call_that_has_ended(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    chat_model(server.url).invoke("hi")

    async def later() -> None:
        await chat_model(server.url).ainvoke("hi")
        with tokentape.mark("own"):
            pass

    server.add([Text("Hel"), Finish("stop")])
    asyncio.run(later())
    assert tape.rows("select name, call_id from marks") == [{"name": "own", "call_id": None}]
