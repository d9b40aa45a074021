"""When things happened."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from ..events import Finish, Reasoning, Role, Text, ToolArgs, ToolCall, Usage, WaitFor
from ..rig import END, Rig
from .suite import Suite, scenario

# How far a stored time may be from the scripted one: what a busy machine adds, never what a wrong definition would.
ROOM_MS = 150
# From the widest to the narrowest: what is text is all of them.
FIRSTS = ("first_token_latency_ms", "first_output_token_latency_ms", "first_text_latency_ms")


class Timing(Suite):
    """When it came."""

    @pytest.mark.scenario("metrics/Paced by a server")
    @scenario(differs={("sees_waits", False): "latencies and gaps are right, `hold_ms` is NULL"})
    async def test_waiting_and_holding_are_told_apart(self, rig: Rig) -> None:
        taken = threading.Event()
        begin, rest = [(0.3, Text("a")), (0.02, Text("b")), (0.02, Text("c"))], [(0.5, Text("d")), (0.02, Text("e"))]
        await self._warm_up(rig, [Text("a")])
        rig.server.add([*begin, WaitFor(taken), *rest, Finish("stop")])
        stream = await rig.send()
        while (chunk := await rig.next(stream)) is not END:
            if rig.driver.text(chunk) == "c":
                taken.set()
            if rig.driver.text(chunk):
                await rig.pause(0.1)
        call, rows = rig.call(), rig.tokens()
        assert call["first_token_latency_ms"] == pytest.approx(300, abs=ROOM_MS)
        assert call["inter_chunk_max_ms"] == pytest.approx(500, abs=ROOM_MS)
        assert all(row["delta_ms"] >= 0 for row in rows)
        if rig.traits.sees_waits:
            assert call["hold_ms"] >= 400
            assert rows[3]["wait_ms"] < rows[3]["delta_ms"] - 80
        else:
            assert call["hold_ms"] is None

    @pytest.mark.scenario("metrics/Four first times")
    @scenario()
    async def test_each_first_has_its_own_latency(self, rig: Rig) -> None:
        firsts: dict[str, list[Any]] = {
            "reasoning": [Reasoning("hm")],
            "tool_args": [ToolCall(0, "call_1", "look"), ToolArgs(0, "{}")],
            "text": [Text("so")],
        }
        steps: list[Any] = [(0.01, Role())]
        expected = {"first_chunk_latency_ms": 10}
        for at, kind in enumerate((kind for kind in firsts if kind in rig.driver.kinds), start=1):
            steps += [(0.3, firsts[kind][0]), *firsts[kind][1:]]
            for column in FIRSTS[: 1 + list(firsts).index(kind)]:
                expected.setdefault(column, 10 + 300 * at)
        steps += [Finish("stop"), Usage(3, 4)]
        await self._warm_up(rig, [step[1] if isinstance(step, tuple) else step for step in steps])
        rig.server.add(steps)
        await rig.read(await rig.send())
        call = rig.call()
        assert {column: call[column] for column in expected} == {
            column: pytest.approx(ms, abs=ROOM_MS) for column, ms in expected.items()
        }

    async def _warm_up(self, rig: Rig, events: Iterable[Any]) -> None:
        """Read the events once unrecorded: an SDK loads what reads an event with the first of its kind."""
        await self.unrecorded(rig, list(events))
