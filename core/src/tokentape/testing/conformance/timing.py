"""When things happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import pytest

from ..events import Finish, Reasoning, Role, Text, ToolArgs, ToolCall, Usage, WaitFor
from ..rig import END, Rig
from .suite import Suite, scenario

# How far a stored time may be from the scripted one, besides what a busy machine adds.
ROOM_MS = 150
# A machine so busy that it adds more than was noticed is asked again.
ATTEMPTS = 3
STEP_S = 0.01
# From the widest to the narrowest: what is text is all of them.
FIRSTS = ("first_token_latency_ms", "first_output_token_latency_ms", "first_text_latency_ms")


class Lateness:
    """How late a thread of this process wakes up, at the worst, while the block lasts.

    Attributes:
        worst_ms: so far.
    """

    def __init__(self) -> None:
        self.worst_ms = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        asleep = time.perf_counter()
        while not self._over.wait(STEP_S):
            awake = time.perf_counter()
            self.worst_ms = max(self.worst_ms, (awake - asleep - STEP_S) * 1e3)
            asleep = awake


class Timed(Suite):
    """Scenarios that compare times."""

    @pytest.fixture
    def watched(self) -> Iterator[None]:
        """How busy the machine is, is noticed."""
        with Lateness() as self.lateness:
            yield

    def about(self, ms: float, room_ms: float = ROOM_MS) -> Any:
        """A time that compares equal to others as near as this machine allows."""
        return pytest.approx(ms, abs=room_ms + self.lateness.worst_ms)


class Timing(Timed):
    """When it came."""

    @pytest.mark.scenario("metrics/Paced by a server")
    @scenario(
        differs={("sees_waits", False): "latencies and gaps are right, `hold_ms` is NULL"},
        attempts=ATTEMPTS,
        uses="watched",
    )
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
        assert call["first_token_latency_ms"] >= 300
        assert call["inter_chunk_max_ms"] == self.about(500)
        assert all(row["delta_ms"] >= 0 for row in rows)
        if rig.traits.sees_waits:
            assert call["hold_ms"] >= 400
            assert rows[3]["wait_ms"] < rows[3]["delta_ms"] - 80
        else:
            assert call["hold_ms"] is None

    @pytest.mark.scenario("metrics/Four first times")
    @scenario(attempts=ATTEMPTS, uses="watched")
    async def test_each_first_has_its_own_latency(self, rig: Rig) -> None:
        firsts: dict[str, list[Any]] = {
            "reasoning": [Reasoning("hm")],
            "tool_args": [ToolCall(0, "call_1", "look"), ToolArgs(0, "{}")],
            "text": [Text("so")],
        }
        steps: list[Any] = [(0.01, Role())]
        # After the first chunk, which comes as soon as a busy machine has sent the request.
        expected: dict[str, float] = {}
        for at, kind in enumerate((kind for kind in firsts if kind in rig.driver.kinds), start=1):
            steps += [(0.3, firsts[kind][0]), *firsts[kind][1:]]
            for column in FIRSTS[: 1 + list(firsts).index(kind)]:
                expected.setdefault(column, 300 * at)
        steps += [Finish("stop"), Usage(3, 4)]
        await self._warm_up(rig, [step[1] if isinstance(step, tuple) else step for step in steps])
        rig.server.add(steps)
        await rig.read(await rig.send())
        call = rig.call()
        first = call["first_chunk_latency_ms"]
        assert first >= 10
        assert {column: call[column] - first for column in expected} == {
            column: self.about(ms) for column, ms in expected.items()
        }

    async def _warm_up(self, rig: Rig, events: Iterable[Any]) -> None:
        """Read the events once unrecorded: an SDK loads what reads an event with the first of its kind."""
        await self.unrecorded(rig, list(events))
