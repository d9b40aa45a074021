"""Every way to use a model through LlamaIndex is recorded exactly once, linked, and ends as what it was."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import TextBlock, ToolCallBlock
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.tools import FunctionTool
from openai import OpenAI

import tokentape
from llama_index_ways import SECRET, STREAMED, WHOLE, Shelf, drained
from scripted_llama_llm import ASKED, ChattingLLM, CompletingLLM, ServedLLM, piece
from tape_reader import TapeReader
from tokentape import context
from tokentape.testing import Drop, Finish, ProviderServer, Script, Text, Usage
from totals import totals

ANSWER = [Text("Hel"), Text("lo"), Finish("stop"), Usage(12, 2)]


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[TapeReader]:
    """LlamaIndex swallows what a handler raises, strict or not: faults are looked for at the end."""
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    yield TapeReader(tmp_path / "tape.db")
    assert tokentape.status()["faults"] == {}
    tokentape.disable()


def links(tape: TapeReader) -> list[tuple[Any, ...]]:
    """Layer and model of each call with the layer of its parent, in the order they were sent."""
    rows = tape.rows(
        "select c.layer, c.request_model, p.layer as parent from llm_calls c "
        "left join llm_calls p on p.id = c.parent_id order by c.id"
    )
    return [tuple(row.values()) for row in rows]


PAIR = [("framework", "gpt-x", None), ("sdk", "gpt-x", "framework")]


def ended(tape: TapeReader) -> list[tuple[Any, ...]]:
    return [(call["layer"], call["status"], call["event_count"], call["error_type"]) for call in tape.calls()]


@pytest.mark.scenario("adapters/Every LlamaIndex surface")
@pytest.mark.parametrize("surface", STREAMED)
def test_a_stream_is_one_call_and_the_parent_of_its_request(
    surface: str, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(ANSWER)
    STREAMED[surface](ServedLLM(url=server.url))
    assert links(tape) == PAIR
    outer, inner = tape.calls()
    columns = ("status", "streaming", "event_count", "finish_reason", "input_tokens", "output_tokens", "response_id")
    assert [outer[column] for column in columns] == ["completed", 1, 2, "stop", 12, 2, inner["response_id"]]
    assert [row["token"] for row in tape.tokens(outer["id"])] == ["Hel", "lo"]
    assert (outer["adapter"], outer["layer"]) == ("llama-index", "framework")
    assert totals(tape) == (1, 12, 2)
    assert context.PARENT not in contextvars.copy_context()


@pytest.mark.parametrize("surface", WHOLE)
def test_an_answer_in_one_piece_is_a_row(surface: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    WHOLE[surface](ServedLLM(url=server.url))
    assert links(tape) == PAIR
    columns = ("status", "streaming", "event_count", "finish_reason", "input_tokens")
    assert [tape.calls()[0][column] for column in columns] == ["completed", 0, 0, "stop", 12]


@pytest.mark.scenario("adapters/Answer announced more than once")
@pytest.mark.parametrize("surface", ["stream_chat", "astream_chat", "stream_complete", "astream_complete"])
def test_an_answer_that_is_announced_more_than_once_is_one_call(surface: str, tape: TapeReader) -> None:
    STREAMED[surface](CompletingLLM(pieces=["Hel", "lo"]))
    assert ended(tape) == [("framework", "completed", 2, None)]
    assert tape.text() == "Hello"


@pytest.mark.scenario("adapters/Asked while LlamaIndex streams")
def test_a_call_of_the_programs_own_is_no_child(server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script(ANSWER, repeat=True))
    own = OpenAI(base_url=server.url, api_key="none").chat.completions
    stream = ServedLLM(url=server.url).stream_chat(ASKED)
    own.create(model="before", messages=[])
    next(stream)
    own.create(model="between", messages=[])
    list(stream)
    own.create(model="after", messages=[])
    assert sorted(links(tape), key=str) == sorted(
        [*PAIR, *(("sdk", name, None) for name in ("before", "between", "after"))], key=str
    )


def test_streams_side_by_side_have_their_own_children(server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([Text("a"), (0.05, Text("b")), Finish("stop")], repeat=True))

    async def together() -> None:
        await asyncio.gather(*(drained(ServedLLM(url=server.url, model=f"m{i}").astream_chat(ASKED)) for i in range(5)))

    asyncio.run(together())
    rows = tape.rows(
        "select c.request_model as c, p.request_model as p from llm_calls c join llm_calls p on p.id = c.parent_id"
    )
    assert sorted(row["c"] for row in rows) == [f"m{i}" for i in range(5)]
    assert all(row["c"] == row["p"] for row in rows)


@pytest.mark.scenario("adapters/Dropped LlamaIndex stream")
@pytest.mark.parametrize("how", ["dropped", "closed", "never read"])
def test_a_stream_that_is_left(how: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add([(0.01, Text(f"word{i} ")) for i in range(20)])
    stream = ServedLLM(url=server.url).stream_chat(ASKED)
    if how != "never read":
        next(stream), next(stream)
    if how == "closed":
        stream.close()
    del stream
    gc.collect()
    events = 0 if how == "never read" else 2
    sdk = [] if how == "never read" else [("sdk", "abandoned", 2, None)]
    assert ended(tape) == [("framework", "abandoned", events, None), *sdk]


async def test_a_cancelled_task(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), (30.0, Text("never"))])
    task = asyncio.create_task(drained(ServedLLM(url=server.url).astream_chat(ASKED)))
    async with asyncio.timeout(20):
        while len(tape.tokens()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # what is waited for happens in another thread
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [row[:3] for row in ended(tape)] == [("framework", "cancelled", 1), ("sdk", "cancelled", 1)]


def test_a_failure_half_way(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), (0.1, Drop())])
    with pytest.raises(Exception) as caught:
        list(ServedLLM(url=server.url).stream_chat(ASKED))
    assert ended(tape)[0] == ("framework", "error", 1, type(caught.value).__qualname__)


def test_a_failure_before_any_answer(tape: TapeReader) -> None:
    for surface in ("chat", "achat"):
        with pytest.raises(KeyError):
            WHOLE[surface](ChattingLLM(answers=[[KeyError("x")]]))
    assert ended(tape) == [("framework", "error", 0, "KeyError")] * 2
    assert [call["streaming"] for call in tape.calls()] == [0, 0]


def test_reasoning_and_tool_arguments_have_their_parts(tape: TapeReader) -> None:
    def tools(*said: tuple[str, str]) -> list[Any]:
        return [ToolCallBlock(tool_call_id=f"c{i}", tool_name=n, tool_kwargs=a) for i, (n, a) in enumerate(said)]

    chunks = [
        piece(additional_kwargs={"thinking_delta": "h"}),
        piece(said={"thinking_delta": "m"}),
        piece("so", [TextBlock(text="so")]),
        piece(blocks=tools(("look", '{"q":'))),
        piece(blocks=tools(("look", '{"q":1}'), ("find", "{}"))),
        piece(None, additional_kwargs={"prompt_tokens": 7, "completion_tokens": 3}),
    ]
    list(ChattingLLM(answers=[chunks]).stream_chat(ASKED))
    assert [(p["kind"], p["name"], p["external_id"], p["content"]) for p in tape.parts()] == [
        ("reasoning", None, None, "hm"),
        ("text", None, None, "so"),
        ("tool_args", "look", "c0", '{"q":1}'),
        ("tool_args", "find", "c1", "{}"),
    ]
    call = tape.call()
    assert (call["event_count"], call["chunk_count"], call["input_tokens"], call["output_tokens"]) == (6, 6, 7, 3)


def test_usage_in_groqs_own_place_counts(tape: TapeReader) -> None:
    raw = {"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}}
    list(ChattingLLM(answers=[[piece("so", [TextBlock(text="so")]), piece("", raw=raw)]]).stream_chat(ASKED))
    assert (tape.call()["input_tokens"], tape.call()["output_tokens"]) == (7, 3)


@pytest.mark.scenario("adapters/LlamaIndex agent with a tool")
def test_an_agents_tools_and_steps_are_marks(tape: TapeReader) -> None:
    def search(query: str) -> str:
        """Look something up."""
        return SECRET

    asks = piece(blocks=[ToolCallBlock(tool_call_id="c", tool_name="search", tool_kwargs='{"query": "x"}')])
    model = ChattingLLM(answers=[[asks], [piece("noon", [TextBlock(text="noon")])]])

    async def ask() -> str:
        return str(await FunctionAgent(tools=[FunctionTool.from_defaults(search)], llm=model).run("when?"))

    assert asyncio.run(ask()) == "noon"
    assert [call["status"] for call in tape.calls()] == ["completed", "completed"]
    rows = tape.rows("select kind, name from marks")
    assert [row["name"] for row in rows if row["kind"] == "tool"] == ["search"]
    assert {"run_agent_step", "call_tool"} <= {row["name"] for row in rows if row["kind"] == "node"}
    assert SECRET not in str(tape.rows("select * from marks"))


def test_a_retrieval_is_a_mark_and_a_tool_is_used_once(tape: TapeReader) -> None:
    Shelf().retrieve(SECRET)
    FunctionTool.from_defaults(lambda: 1, name="one", description="-")()
    rows = tape.rows("select kind, name from marks order by id")
    assert [tuple(row.values()) for row in rows] == [("retriever", "Shelf"), ("tool", "one")]


def test_suppressed_models_leave_no_row(tape: TapeReader) -> None:
    with tokentape.suppress():
        list(CompletingLLM(pieces=["a"]).stream_chat(ASKED))
        Shelf().retrieve("x")
    assert (tape.calls(), tape.rows("select * from marks")) == ([], [])


def test_nothing_of_llama_index_is_kept(tape: TapeReader) -> None:
    seen: list[weakref.ref[Any]] = []
    most = 0

    class Lazy(ChattingLLM):
        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return (piece(f"{i} ", [TextBlock(text="so")]) for i in range(20))

    for chunk in Lazy(answers=[]).stream_chat(ASKED):
        seen.append(weakref.ref(chunk))
        most = max(most, sum(one() is not None for one in seen))
    del chunk
    gc.collect()
    # While it is read: the chunk that came, and those that LlamaIndex's own generator still has.
    assert most <= 3
    assert [one() for one in seen if one() is not None] == []
    assert tape.call()["event_count"] == 20


def test_after_disable_llama_index_is_as_it_was(tmp_path: Path) -> None:
    root = get_dispatcher()
    before = list(root.event_handlers), list(root.span_handlers), list(context.PARENT_FINDERS)
    tokentape.enable(db=tmp_path / "tape.db")
    stream = CompletingLLM(pieces=["Hel", "lo"]).stream_chat(ASKED)
    next(stream)
    tokentape.disable()
    assert (root.event_handlers, root.span_handlers, context.PARENT_FINDERS) == before
    assert [chunk.delta for chunk in stream] == ["lo"]
    assert ended(TapeReader(tmp_path / "tape.db")) == [("framework", "abandoned", 1, None)]


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("target", ["chunks.ChunkReader.read", "events.chat_request", "spans.method_of"])
def test_a_fault_of_ours_never_reaches_the_program(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("of the recording")

    tokentape.enable(db=tmp_path / "tape.db")
    monkeypatch.setattr(f"tokentape_llama_index.{target}", fail)
    assert [chunk.delta for chunk in CompletingLLM(pieces=["Hel", "lo"]).stream_chat(ASKED)] == ["Hel", "lo"]
    assert "llama-index adapter" in tokentape.status()["faults"]
