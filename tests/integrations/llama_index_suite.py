"""What holds for each of LlamaIndex's own integrations, over the SDK that it needs and with both adapters on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool

import tokentape
from llama_index_ways import ASKED, STREAMED, WHOLE, drained
from tape_reader import TapeReader
from tokentape.testing import (
    Drop,
    Finish,
    HTTPError,
    ProviderServer,
    Reasoning,
    Script,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)
from totals import totals

ANSWER = [Text("Hel"), Text("lo"), Finish("stop"), Usage(12, 2, cached=3, reasoning=1)]
CALLS_A_TOOL = [
    *(
        Text("so"),
        Reasoning("h"),
        Reasoning("m"),
        ToolCall(0, "call_1", "look"),
        ToolArgs(0, '{"q":'),
        ToolArgs(0, "1}"),
    ),
    *(Finish("tool_calls"), Usage(500, 40, cached=6, reasoning=7)),
]
BOTH = ("status", "streaming", "finish_reason", "event_count", "error_type", "provider", "request_model")
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "token_count")


class LlamaIndexSuite:
    """Subclass it for each model class.

    Attributes:
        adapter: the adapter of the SDK beneath.
    """

    adapter: ClassVar[str]

    def model(self, server: ProviderServer) -> Any:
        """A model that asks this server, once."""
        raise NotImplementedError

    @pytest.fixture
    def tape(self, tmp_path: Path) -> Iterator[TapeReader]:
        """LlamaIndex swallows what a handler raises, strict or not: faults are looked for at the end."""
        tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
        yield TapeReader(tmp_path / "tape.db")
        assert tokentape.status()["faults"] == {}
        tokentape.disable()

    def pairs(self, tape: TapeReader) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """LlamaIndex's calls, each with the SDK's call beneath it, which says the same."""
        calls = tape.calls()
        pairs = list(zip(calls[::2], calls[1::2], strict=True))
        for outer, inner in pairs:
            assert (outer["layer"], outer["adapter"]) == ("framework", "llama-index")
            assert (inner["layer"], inner["adapter"], inner["parent_id"]) == ("sdk", self.adapter, outer["id"])
            assert {name: outer[name] for name in BOTH} == {name: inner[name] for name in BOTH}
        return pairs

    @pytest.mark.must_run
    @pytest.mark.parametrize("way", STREAMED)
    def test_a_streamed_answer_is_the_same_on_both_layers(
        self, way: str, server: ProviderServer, tape: TapeReader
    ) -> None:
        server.add(ANSWER)
        STREAMED[way](self.model(server))
        ((outer, inner),) = self.pairs(tape)
        assert (inner["status"], inner["streaming"]) == ("completed", 1)
        assert [outer[name] for name in COUNTS] == [inner[name] for name in COUNTS] == [12, 3, 2, 1, 2]
        for call in (outer, inner):
            assert [row["token"] for row in tape.tokens(call["id"])] == ["Hel", "lo"]
        assert totals(tape) == (1, 12, 2)

    @pytest.mark.must_run
    @pytest.mark.parametrize("way", WHOLE)
    def test_an_answer_in_one_piece_is_a_row_on_both_layers(
        self, way: str, server: ProviderServer, tape: TapeReader
    ) -> None:
        server.add(ANSWER)
        WHOLE[way](self.model(server))
        ((outer, inner),) = self.pairs(tape)
        assert (inner["status"], inner["streaming"], inner["event_count"]) == ("completed", 0, 0)
        assert [outer[name] for name in COUNTS] == [inner[name] for name in COUNTS] == [12, 3, 2, 1, 2]
        assert totals(tape) == (1, 12, 2)

    @pytest.mark.must_run
    @pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
    def test_thinking_and_tools_are_the_same_parts_on_both_layers(
        self, way: str, server: ProviderServer, tape: TapeReader
    ) -> None:
        server.add(CALLS_A_TOOL)
        STREAMED[way](self.model(server))
        ((outer, inner),) = self.pairs(tape)
        for call in (outer, inner):
            parts = tape.parts(call["id"])
            assert [(part["kind"], part["name"], part["content"]) for part in parts] == [
                ("text", None, "so"),
                ("reasoning", None, "hm"),
                ("tool_args", "look", '{"q":1}'),
            ]
            assert parts[2]["external_id"] == "call_1"
        assert [outer[name] for name in COUNTS] == [inner[name] for name in COUNTS] == [500, 6, 40, 7, 40]
        assert totals(tape) == (1, 500, 40)

    @pytest.mark.must_run
    @pytest.mark.parametrize("way", ["chat", "achat"])
    def test_thinking_and_tools_of_an_answer_in_one_piece_are_counted(
        self, way: str, server: ProviderServer, tape: TapeReader
    ) -> None:
        server.add(CALLS_A_TOOL)
        WHOLE[way](self.model(server))
        ((outer, inner),) = self.pairs(tape)
        assert [outer[name] for name in COUNTS] == [inner[name] for name in COUNTS] == [500, 6, 40, 7, 40]
        assert totals(tape) == (1, 500, 40)

    @pytest.mark.must_run
    def test_the_calls_of_an_agent_add_up(self, server: ProviderServer, tape: TapeReader) -> None:
        server.add(CALLS_A_TOOL, ANSWER)

        def look(q: int) -> str:
            """Look something up."""
            return "there"

        async def ask() -> str:
            agent = FunctionAgent(tools=[FunctionTool.from_defaults(look)], llm=self.model(server))
            return str(await agent.run("where?"))

        assert asyncio.run(ask()) == "Hello"
        assert [inner["finish_reason"] for _, inner in self.pairs(tape)]
        assert totals(tape) == (2, 512, 42)
        assert [row["name"] for row in tape.rows("select name from marks where kind = 'tool'")] == ["look"]

    @pytest.mark.must_run
    @pytest.mark.parametrize("how", ["refused", "dropped"])
    @pytest.mark.parametrize("way", ["stream_chat", "astream_chat", "stream_complete", "astream_complete"])
    def test_an_answer_that_failed_counts_nothing(
        self, how: str, way: str, server: ProviderServer, tape: TapeReader
    ) -> None:
        failing = [HTTPError(401)] if how == "refused" else [Text("Hel"), (0.05, Drop())]
        server.add(failing, ANSWER)
        model = self.model(server)
        with pytest.raises(Exception) as caught:
            STREAMED[way](model)
        STREAMED[way](self.model(server))
        (failed, inner), _ = self.pairs(tape)
        assert (failed["status"], failed["error_type"]) == ("error", caught.type.__qualname__)
        assert inner["event_count"] == (0 if how == "refused" else 1)
        assert totals(tape) == (2, 12, 2)

    @pytest.mark.must_run
    def test_streams_side_by_side_have_their_own_children(self, server: ProviderServer, tape: TapeReader) -> None:
        server.add(Script([Text("a"), (0.05, Text("b")), Finish("stop"), Usage(3, 2)], repeat=True))

        async def together() -> None:
            await asyncio.gather(*(drained(self.model(server).astream_chat(ASKED)) for _ in range(4)))

        asyncio.run(together())
        outer = [call["id"] for call in tape.calls() if call["layer"] == "framework"]
        assert sorted(call["parent_id"] for call in tape.calls() if call["layer"] == "sdk") == outer
        assert totals(tape) == (4, 12, 8)
