"""What a stream said is on the tape: every event, of its part, and what the provider told of it."""

from __future__ import annotations

from typing import Any

import pytest

from ..events import Finish, Text, ToolArgs, ToolCall, Usage
from ..rig import Rig
from .suite import Suite, scenario, words

LOOK, FIND = ['{"a"', ":", "[1,", '"é"]}'], ["{", "}"]


class Content(Suite):
    """What is kept."""

    @pytest.mark.scenario("capture/Whole stream kept")
    @scenario()
    async def test_every_event_is_kept_in_order(self, rig: Rig) -> None:
        rig.server.add([*words(20), Finish("stop"), Usage(7, 20)])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["status"], call["event_count"], call["streaming"]) == ("completed", 20, 1)
        assert rig.text() == "".join(f"word{i} " for i in range(20))
        assert [row["token_index"] for row in rig.tokens()] == list(range(20))

    @scenario(kinds=("tool_args",))
    async def test_arguments_of_parallel_tool_calls_are_exact(self, rig: Rig) -> None:
        first, second = ([ToolArgs(index, piece) for piece in said] for index, said in enumerate((LOOK, FIND)))
        begin = ToolCall(0, "call_1", "look"), ToolCall(1, "call_2", "find")
        steps: list[Any] = [begin[0], *first, begin[1], *second]
        if rig.traits.interleaves:
            steps = [*begin, first[0], second[0], *first[1:3], second[1], first[3]]
        rig.server.add([*steps, Finish("tool_calls"), Usage(3, 4)])
        await rig.read(await rig.send())
        parts = [part for part in rig.parts() if part["kind"] == "tool_args"]
        assert [(part["name"], part["external_id"], part["content"]) for part in parts] == [
            ("look", "call_1", "".join(LOOK)),
            ("find", "call_2", "".join(FIND)),
        ]
        assert [row["token"] for row in rig.tokens() if row["part"] == parts[0]["part"]] == LOOK

    @scenario(options=("choices",))
    async def test_answers_that_interleave_are_parts_of_their_own(self, rig: Rig) -> None:
        steps = [Text(f"{word}{choice} ", choice) for word in "abc" for choice in (1, 0)]
        rig.server.add([*steps, Finish("length", 1), Finish("stop", 0)])
        await rig.read(await rig.send(choices=2))
        assert [(part["choice"], part["content"]) for part in rig.parts()] == [(1, "a1 b1 c1 "), (0, "a0 b0 c0 ")]
        assert rig.call()["finish_reason"] == '["stop", "length"]'

    @scenario(kinds=("tool_args",), options=("choices",))
    async def test_tool_calls_of_answers_that_interleave_are_kept_apart(self, rig: Rig) -> None:
        places = [(choice, index) for choice in (0, 1) for index in (0, 1)]
        calls = [ToolCall(index, f"call_{choice}{index}", "look", choice) for choice, index in places]
        pieces = [ToolArgs(index, piece, choice) for piece in LOOK for choice, index in reversed(places)]
        rig.server.add([*calls, *pieces, Finish("tool_calls", 0), Finish("tool_calls", 1)])
        await rig.read(await rig.send(choices=2))
        assert [(part["choice"], part["external_id"], part["content"]) for part in rig.parts()] == [
            (choice, f"call_{choice}{index}", "".join(LOOK)) for choice, index in places
        ]

    @pytest.mark.scenario("adapters/Usage only when it comes")
    @scenario()
    async def test_usage_is_what_came(self, rig: Rig) -> None:
        rig.server.add([*words(3), Finish("stop"), Usage(25, 9, cached=5)], [*words(3), Finish("stop")])
        await rig.read(await rig.send())
        await rig.read(await rig.send())
        told, untold = rig.calls()
        columns = ("input_tokens", "cached_input_tokens", "output_tokens", "token_count", "token_count_source")
        assert [told[column] for column in columns] == [25, 5, 9, 9, "usage"]
        assert [untold[column] for column in columns] == [None] * 5
        assert untold["tokens_per_second"] is None
        assert untold["events_per_second"] > 0

    @pytest.mark.scenario("adapters/Usage told more than once")
    @scenario()
    async def test_usage_that_is_told_again_is_not_added_up(self, rig: Rig) -> None:
        rig.server.add([Text("a"), Usage(25, 3), Text("b"), Finish("stop"), Usage(25, 9)])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["input_tokens"], call["output_tokens"], rig.text()) == (25, 9, "ab")

    @pytest.mark.scenario("storage/Control characters", "storage/One megabyte in one chunk")
    @scenario()
    async def test_text_of_any_kind_survives(self, rig: Rig) -> None:
        pieces = ["\x00nul ", "\x1b[31mred ", "\x9b c1 ", "👩‍🚀 ", "x" * 1_000_000]
        rig.server.add([*map(Text, pieces), Finish("stop")])
        await rig.read(await rig.send())
        assert rig.text() == "".join(pieces)
        assert [row["token"] for row in rig.tokens()] == pieces

    @pytest.mark.scenario("storage/Emoji cut in two")
    @scenario()
    async def test_a_character_that_comes_in_halves_is_whole(self, rig: Rig) -> None:
        rig.server.add([Text("a\ud83d"), Text("\ude80b"), Text("\ud83d"), Finish("stop")])
        await rig.read(await rig.send())
        assert rig.text() == "a🚀b\ufffd"
        assert rig.call()["event_count"] == 3
