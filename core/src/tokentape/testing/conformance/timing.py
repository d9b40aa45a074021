"""When things happened, and whose time it was."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from ..events import Drop, Finish, HTTPError, Reasoning, Role, Text, ToolArgs, ToolCall, Usage, WaitFor
from ..rig import END, Rig
from .suite import Suite, scenario, words

# How far a stored time may be from the scripted one: what a busy machine adds, never what a wrong definition would.
ROOM_MS = 150
# From the widest to the narrowest: what is text is all of them.
FIRSTS = ("first_token_latency_ms", "first_output_token_latency_ms", "first_text_latency_ms")


class Timing(Suite):
    """Times and their causes."""

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
        # Where nobody knows when a chunk was asked for, a gap is all that can be said.
        in_between = 0 if rig.traits.sees_waits else 100
        assert call["inter_chunk_max_ms"] == pytest.approx(500 + in_between, abs=ROOM_MS)
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

    @pytest.mark.scenario("metrics/Rate limited first", "adapters/Not known to a framework")
    @scenario(differs={("sees_attempts", False): "`retries`, `retry_ms` and `headers_latency_ms` are NULL"})
    async def test_a_refused_attempt_is_no_slow_model(self, rig: Rig) -> None:
        rig.server.add([HTTPError(429, headers={"retry-after": "1"})], [(0.2, Text("at last")), Finish("stop")])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["status"], len(rig.server.requests)) == ("completed", 2)
        if not rig.traits.sees_attempts:
            # Nothing is claimed of what is not known.
            assert (call["retries"], call["retry_ms"], call["headers_latency_ms"]) == (None, None, None)
            return
        assert call["retries"] == 1
        assert call["retry_ms"] >= 1000
        assert call["headers_latency_ms"] >= call["retry_ms"]
        assert call["first_token_latency_ms"] - call["headers_latency_ms"] == pytest.approx(200, abs=ROOM_MS)

    @pytest.mark.scenario("metrics/Slow provider", "adapters/Not known to a framework")
    @scenario(differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_a_stall_of_the_provider(self, rig: Rig) -> None:
        rig.server.add([Text("a"), (1.5, Text("b")), Finish("stop")])
        await rig.read(await rig.send())
        stall = self._expect_stall(rig, "upstream", 1500)
        if rig.traits.sees_waits:
            assert stall["wait_us"] - stall["blocked_us"] >= 1_300_000

    @pytest.mark.scenario("metrics/Slow program")
    @scenario(differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_a_stall_of_the_program(self, rig: Rig) -> None:
        rig.server.add([*words(2), Finish("stop")])
        stream = await rig.send()
        while not rig.tokens():
            assert await rig.next(stream) is not END
        await rig.pause(1.5)
        await rig.read(stream)
        stall = self._expect_stall(rig, "own", 1500)
        if rig.traits.sees_waits:
            assert stall["hold_us"] >= 1_500_000

    @pytest.mark.scenario("metrics/Blocked event loop")
    @scenario("async", differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_a_stall_of_the_event_loop(self, rig: Rig) -> None:
        rig.server.add([*words(100, 0.02), Finish("stop")])

        async def block() -> None:
            await asyncio.sleep(0.3)
            time.sleep(1.5)

        blocking = asyncio.create_task(block())
        await rig.read(await rig.send())
        await blocking
        stall = self._expect_stall(rig, "blocked", 1500)
        if rig.traits.sees_waits:
            assert stall["blocked_us"] / 1000 == pytest.approx(1500, abs=100)

    @scenario(differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_silence_before_the_connection_drops(self, rig: Rig) -> None:
        rig.server.add([*words(3), (1.3, Drop())])
        assert (await self.seen(rig)).failure
        stall = self._expect_stall(rig, "upstream", 1300)
        assert (stall["position"], stall["token_index"]) == ("tail", 3)
        assert rig.call()["status"] == "error"

    @scenario(differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_nothing_but_silence_before_the_connection_drops(self, rig: Rig) -> None:
        rig.server.add([Role(), (1.3, Drop())])
        assert (await self.seen(rig)).failure
        stall = self._expect_stall(rig, "upstream", 1300)
        assert (stall["position"], stall["token_index"]) == ("tail", 0)
        assert (rig.call()["status"], rig.call()["first_token_latency_ms"]) == ("error", None)

    @scenario(differs={("sees_waits", False): "the cause is `unknown`"})
    async def test_silence_before_the_first_event(self, rig: Rig) -> None:
        rig.server.add([Role(), (1.3, Text("late")), Finish("stop")])
        await rig.read(await rig.send())
        stalls = rig.rows("select * from llm_stalls")
        assert [(s["position"], s["cause"]) for s in stalls] == [("first", self._cause(rig, "upstream"))]
        assert rig.call()["stall_count"] == 0

    async def _warm_up(self, rig: Rig, events: Iterable[Any]) -> None:
        """Read the events once unrecorded: an SDK loads what reads an event with the first of its kind."""
        await self.unrecorded(rig, list(events))

    def _cause(self, rig: Rig, cause: str) -> str:
        """What can be known of it: never that it was the provider, without evidence."""
        return cause if rig.traits.sees_waits else "unknown"

    def _expect_stall(self, rig: Rig, cause: str, gap_ms: float) -> dict[str, Any]:
        (stall,) = rig.rows("select * from llm_stalls where position != 'first'")
        assert stall["cause"] == self._cause(rig, cause)
        assert stall["gap_us"] / 1000 == pytest.approx(gap_ms, abs=ROOM_MS)
        assert rig.call()["stall_count"] == 1
        return stall
