"""Pauses, and whose they were."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ..events import Drop, Finish, HTTPError, Role, Text
from ..rig import END, Rig
from .suite import scenario, words
from .timing import ATTEMPTS, Timed

UNKNOWN = {("sees_waits", False): "the cause is `unknown`"}


class Stalls(Timed):
    """Pauses, and whose they were."""

    @pytest.mark.scenario("metrics/Rate limited first", "adapters/Not known to a framework")
    @scenario(
        differs={("sees_attempts", False): "`retries`, `retry_ms` and `headers_latency_ms` are NULL"},
        attempts=ATTEMPTS,
        uses="watched",
    )
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
        assert call["first_token_latency_ms"] - call["headers_latency_ms"] == self.about(200)

    @pytest.mark.scenario("metrics/Slow provider", "adapters/Not known to a framework")
    @scenario(differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
    async def test_a_stall_of_the_provider(self, rig: Rig) -> None:
        rig.server.add([Text("a"), (1.5, Text("b")), Finish("stop")])
        await rig.read(await rig.send())
        stall = self._expect_stall(rig, "upstream", 1500)
        if rig.traits.sees_waits:
            assert stall["wait_us"] - stall["blocked_us"] >= 1_300_000

    @pytest.mark.scenario("metrics/Slow program")
    @scenario(differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
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
    @scenario("async", differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
    async def test_a_stall_of_the_event_loop(self, rig: Rig) -> None:
        rig.server.add([*words(100, 0.02), Finish("stop")])

        async def block() -> None:
            await asyncio.sleep(0.3)
            time.sleep(1.5)

        stream = await rig.send()
        await rig.read(stream, 1)
        blocking = asyncio.create_task(block())
        while await rig.next(stream) is not END:
            pass
        await blocking
        stall = self._expect_stall(rig, "blocked", 1500)
        if rig.traits.sees_waits:
            assert stall["blocked_us"] / 1000 == self.about(1500, 100)

    @scenario(differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
    async def test_silence_before_the_connection_drops(self, rig: Rig) -> None:
        rig.server.add([*words(3), (1.3, Drop())])
        assert (await self.seen(rig)).failure
        stall = self._expect_stall(rig, "upstream", 1300)
        assert (stall["position"], stall["token_index"]) == ("tail", 3)
        assert rig.call()["status"] == "error"

    @scenario(differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
    async def test_nothing_but_silence_before_the_connection_drops(self, rig: Rig) -> None:
        rig.server.add([Role(), (1.3, Drop())])
        assert (await self.seen(rig)).failure
        stall = self._expect_stall(rig, "upstream", 1300)
        assert (stall["position"], stall["token_index"]) == ("tail", 0)
        assert (rig.call()["status"], rig.call()["first_token_latency_ms"]) == ("error", None)

    @scenario(differs=UNKNOWN, attempts=ATTEMPTS, uses="watched")
    async def test_silence_before_the_first_event(self, rig: Rig) -> None:
        rig.server.add([Role(), (1.3, Text("late")), Finish("stop")])
        await rig.read(await rig.send())
        stalls = rig.rows("select * from llm_stalls")
        assert [(s["position"], s["cause"]) for s in stalls] == [("first", self._cause(rig, "upstream"))]
        assert rig.call()["stall_count"] == 0

    def _cause(self, rig: Rig, cause: str) -> str:
        """What can be known of it: never that it was the provider, without evidence."""
        return cause if rig.traits.sees_waits else "unknown"

    def _expect_stall(self, rig: Rig, cause: str, gap_ms: float) -> dict[str, Any]:
        stalls = rig.rows("select * from llm_stalls where position != 'first'")
        assert len(stalls) == 1
        stall = stalls[0]
        assert stall["cause"] == self._cause(rig, cause)
        assert stall["gap_us"] / 1000 == self.about(gap_ms)
        assert rig.call()["stall_count"] == 1
        return stall
