"""What every adapter must pass, synchronous and asynchronous from one list. Subclass it and name a driver:

    from tokentape.testing.conformance import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        driver = MyDriver()

Needs pytest. Everything runs against a real server on loopback; times are compared with generous room for a busy
machine.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tokentape

from .events import Drop, Finish, HTTPError, Reasoning, Role, Text, ToolArgs, ToolCall, Usage, WaitFor
from .rig import END, Driver, Rig
from .script import Script

# How far a stored time may be from the scripted one: what a busy machine adds, never what a wrong definition would.
ROOM_MS = 150

Scenario = Callable[[Any, Rig], Coroutine[Any, Any, None]]


def scenario(*names: str) -> Callable[[Scenario], Callable[[Any, Rig], None]]:
    """Make a coroutine over a rig into a test of both modes, and name the scenarios it stands for."""

    def decorate(body: Scenario) -> Callable[[Any, Rig], None]:
        @functools.wraps(body)
        def test(self: Any, rig: Rig) -> None:
            reason = self.not_possible.get(body.__name__)
            if reason is not None:
                pytest.skip(f"not possible here: {reason}")

            async def whole() -> None:
                try:
                    await body(self, rig)
                finally:
                    await rig.finish()

            rig.run(whole())

        return test

    return decorate


def words(count: int, delay: float = 0.0) -> list[Any]:
    """A script of that many words."""
    return [(delay, Text(f"word{i} ")) for i in range(count)]


class AdapterConformance:
    """The list.

    Attributes:
        driver: which SDK.
        plugins: which adapters record; None for all that are installed. A framework's adapter is tested by itself.
        not_possible: tests that the framework does not allow, by name, each with the reason.
    """

    driver: ClassVar[Driver]
    plugins: ClassVar[Sequence[str] | None] = None
    not_possible: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(params=["sync", "async"])
    def rig(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
        """Server, tape and driver in one of the two modes."""
        with Rig(self.driver, tmp_path / "tape.db", request.param == "async").running(plugins=self.plugins) as rig:
            yield rig

    def test_what_is_declared_not_possible_is_on_the_list(self) -> None:
        assert [name for name in self.not_possible if not hasattr(AdapterConformance, name)] == []

    def needs(self, *kinds: str) -> None:
        """Leave out a test of something that the SDK cannot stream."""
        missing = set(kinds) - self.driver.kinds
        if missing:
            pytest.skip(f"the SDK streams no {', '.join(sorted(missing))}")

    @pytest.mark.scenario("capture/Whole stream kept")
    @scenario()
    async def test_every_event_is_kept_in_order(self, rig: Rig) -> None:
        rig.server.add([*words(20), Finish("stop"), Usage(7, 20)])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["status"], call["event_count"], call["streaming"]) == ("completed", 20, 1)
        assert rig.text() == "".join(f"word{i} " for i in range(20))
        assert [row["token_index"] for row in rig.tokens()] == list(range(20))

    @scenario()
    async def test_the_program_sees_the_same_chunks(self, rig: Rig) -> None:
        script = Script([*words(5), Finish("stop"), Usage(7, 5)], repeat=True)
        rig.server.add(script)
        recorded = [(type(chunk), chunk) for chunk in await rig.read(await rig.send())]
        tokentape.disable()
        plain = [(type(chunk), chunk) for chunk in await rig.read(await rig.send())]
        assert [kind for kind, _ in recorded] == [kind for kind, _ in plain]
        assert len(recorded) == len(plain)

    @scenario()
    async def test_left_by_break_inside_with(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        stream = await rig.send()
        if rig.asynchronous:
            async with stream:
                await rig.read(stream, 3)
        else:
            with stream:
                await rig.read(stream, 3)
        await self._expect_abandoned(rig, 3)

    @scenario()
    async def test_left_by_break_and_dropped(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        stream = await rig.send()
        await rig.read(stream, 3)
        del stream
        await rig.collect()
        await self._expect_abandoned(rig, 3)

    @pytest.mark.scenario("capture/Reader breaks off")
    @scenario()
    async def test_closed_half_way_while_still_referenced(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        stream = await rig.send()
        await rig.read(stream, 3)
        await rig.close(stream)
        await self._expect_abandoned(rig, 3)
        # An asynchronous generator around the SDK's stream leaves the connection to the event loop.
        await rig.collect()
        assert rig.server.requests[0].outcome() == "left"

    @pytest.mark.scenario("capture/Never read")
    @scenario()
    async def test_never_read_and_dropped(self, rig: Rig) -> None:
        rig.server.add(words(3))
        stream = await rig.send()
        del stream
        await rig.collect()
        call = await self._expect_abandoned(rig, 0)
        assert call["first_token_latency_ms"] is None

    @scenario()
    async def test_never_read_when_recording_stops(self, rig: Rig) -> None:
        rig.server.add(words(3))
        stream = await rig.send()
        tokentape.disable()
        assert (rig.call()["status"], rig.call()["event_count"]) == ("abandoned", 0)
        await rig.close(stream)

    @pytest.mark.scenario("capture/Exception in the loop body")
    @scenario()
    async def test_exception_in_the_loop_body(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        mistake = ValueError("of the program")
        stream = await rig.send()
        with pytest.raises(ValueError) as caught:
            if rig.asynchronous:
                async with stream:
                    await rig.read(stream, 2)
                    raise mistake
            else:
                with stream:
                    await rig.read(stream, 2)
                    raise mistake
        assert caught.value is mistake
        assert mistake.__context__ is None
        call = await self._expect_abandoned(rig, 2)
        assert call["error_type"] == "ValueError"

    @pytest.mark.scenario("capture/Connection drops")
    @scenario()
    async def test_connection_drops_half_way(self, rig: Rig) -> None:
        rig.server.add(Script([*words(4), (0.1, Drop())], repeat=True))
        recorded = await self._failure(rig)
        call = rig.call()
        assert (call["status"], call["event_count"], call["error_type"]) == ("error", 4, type(recorded).__qualname__)
        tokentape.disable()
        reference = await self._failure(rig)
        assert (type(recorded), str(recorded)) == (type(reference), str(reference))

    @pytest.mark.scenario("capture/Task cancelled")
    @scenario()
    async def test_task_is_cancelled_while_waiting(self, rig: Rig) -> None:
        if not rig.asynchronous:
            return
        rig.server.add([*words(2), (30.0, Text("never"))])
        stream = await rig.send()

        async def read() -> None:
            await rig.read(stream)

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(read(), 0.4)
        call = rig.call()
        assert (call["status"], call["event_count"]) == ("cancelled", 2)

    @pytest.mark.scenario("capture/No buffering")
    @scenario()
    async def test_a_chunk_is_handed_over_before_the_next_is_sent(self, rig: Rig) -> None:
        seen = threading.Event()
        rig.server.add([Text("first"), WaitFor(seen), Text("second"), Finish("stop")])
        stream = await rig.send()
        while not (await self._has_text(rig)):
            await rig.next(stream)
        seen.set()
        await rig.read(stream)
        assert rig.text() == "firstsecond"

    @pytest.mark.scenario("capture/Nothing read ahead", "capture/Resumed after a break")
    @scenario()
    async def test_nothing_is_read_ahead_and_reading_can_go_on(self, rig: Rig) -> None:
        rig.server.add([*words(10), Finish("stop")])
        stream = await rig.send()
        await rig.read(stream, 4)
        assert len(rig.tokens()) <= 4
        assert rig.call()["status"] == "running"
        while await rig.next(stream) is not END:
            pass
        assert (rig.call()["status"], len(rig.tokens())) == ("completed", 10)

    @pytest.mark.scenario("metrics/Paced by a server")
    @scenario()
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
        assert call["hold_ms"] >= 400
        assert rows[3]["wait_ms"] < rows[3]["delta_ms"] - 80
        assert all(row["delta_ms"] >= 0 for row in rows)

    @pytest.mark.scenario("metrics/Four first times")
    @scenario()
    async def test_each_first_has_its_own_latency(self, rig: Rig) -> None:
        self.needs("reasoning", "tool_args", "text")
        steps: list[Any] = [
            (0.01, Role()),
            (0.2, Reasoning("hm")),
            (0.2, ToolCall(0, "call_1", "look")),
            (0.0, ToolArgs(0, "{}")),
            (0.6, Text("so")),
            Finish("stop"),
            Usage(3, 4),
        ]
        await self._warm_up(rig, Script(steps).events)
        rig.server.add(steps)
        await rig.read(await rig.send())
        call = rig.call()
        assert call["first_chunk_latency_ms"] == pytest.approx(10, abs=ROOM_MS)
        assert call["first_token_latency_ms"] == pytest.approx(210, abs=ROOM_MS)
        assert call["first_output_token_latency_ms"] == pytest.approx(410, abs=ROOM_MS)
        assert call["first_text_latency_ms"] == pytest.approx(1010, abs=ROOM_MS)

    @pytest.mark.scenario("capture/Empty stream")
    @scenario()
    async def test_a_stream_without_content(self, rig: Rig, caplog: Any = None) -> None:
        rig.server.add([Role(), Finish("content_filter")])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["status"], call["event_count"], call["first_token_latency_ms"]) == ("completed", 0, None)

    @pytest.mark.scenario("capture/Context variables untouched")
    @scenario()
    async def test_context_variables_stay_as_they_were(self, rig: Rig) -> None:
        rig.server.add([*words(5, 0.01), Finish("stop")])
        before = dict(contextvars.copy_context().items())
        stream = await rig.send()
        assert dict(contextvars.copy_context().items()) == before
        await rig.read(stream, 2)
        assert dict(contextvars.copy_context().items()) == before
        await rig.close(stream)
        assert dict(contextvars.copy_context().items()) == before

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario()
    async def test_a_stream_read_in_one_context_and_closed_in_another(self, rig: Rig) -> None:
        rig.server.add(words(10, 0.01))
        if rig.asynchronous:
            stream = await asyncio.create_task(rig.send())
            await asyncio.create_task(rig.read(stream, 3))
            await asyncio.create_task(rig.close(stream))
        else:
            stream = await rig.send()
            contextvars.copy_context().run(next, stream)
            contextvars.copy_context().run(stream.close)
        assert rig.call()["status"] == "abandoned"

    @pytest.mark.scenario("metrics/Rate limited first")
    @scenario()
    async def test_a_refused_attempt_is_no_slow_model(self, rig: Rig) -> None:
        rig.server.add([HTTPError(429, headers={"retry-after": "1"})], [(0.2, Text("at last")), Finish("stop")])
        await rig.read(await rig.send())
        call = rig.call()
        assert (call["status"], call["retries"]) == ("completed", 1)
        assert call["retry_ms"] >= 1000
        assert call["headers_latency_ms"] >= call["retry_ms"]
        assert call["first_token_latency_ms"] - call["headers_latency_ms"] == pytest.approx(200, abs=ROOM_MS)

    @scenario()
    async def test_a_refused_request_is_a_row(self, rig: Rig) -> None:
        rig.server.add(Script([HTTPError(401)], repeat=True))
        with pytest.raises(Exception) as caught:
            await rig.send()
        call = rig.call()
        assert (call["status"], call["http_status"], call["event_count"]) == ("error", 401, 0)
        assert call["error_type"] == type(caught.value).__qualname__

    @pytest.mark.scenario("metrics/Slow provider")
    @scenario()
    async def test_a_stall_of_the_provider(self, rig: Rig) -> None:
        rig.server.add([Text("a"), (1.5, Text("b")), Finish("stop")])
        await rig.read(await rig.send())
        stall = self._expect_stall(rig, "upstream", 1500)
        assert stall["wait_us"] - stall["blocked_us"] >= 1_300_000

    @pytest.mark.scenario("metrics/Slow program")
    @scenario()
    async def test_a_stall_of_the_program(self, rig: Rig) -> None:
        rig.server.add([*words(2), Finish("stop")])
        stream = await rig.send()
        while not (await self._has_text(rig)):
            await rig.next(stream)
        await rig.pause(1.5)
        await rig.read(stream)
        stall = self._expect_stall(rig, "own", 1500)
        assert stall["hold_us"] >= 1_500_000

    @pytest.mark.scenario("metrics/Blocked event loop")
    @scenario()
    async def test_a_stall_of_the_event_loop(self, rig: Rig) -> None:
        if not rig.asynchronous:
            return
        rig.server.add([*words(100, 0.02), Finish("stop")])

        async def block() -> None:
            await asyncio.sleep(0.3)
            time.sleep(1.5)

        blocking = asyncio.create_task(block())
        await rig.read(await rig.send())
        await blocking
        stall = self._expect_stall(rig, "blocked", 1500)
        assert stall["blocked_us"] / 1000 == pytest.approx(1500, abs=100)

    @scenario()
    async def test_silence_before_the_connection_drops(self, rig: Rig) -> None:
        rig.server.add([*words(3), (1.3, Drop())])
        await self._failure(rig)
        stall = self._expect_stall(rig, "upstream", 1300)
        assert (stall["position"], stall["token_index"]) == ("tail", 3)
        assert rig.call()["status"] == "error"

    @scenario()
    async def test_silence_before_the_first_event(self, rig: Rig) -> None:
        rig.server.add([Role(), (1.3, Text("late")), Finish("stop")])
        await rig.read(await rig.send())
        stalls = rig.rows("select * from llm_stalls")
        assert [(s["position"], s["cause"]) for s in stalls] == [("first", "upstream")]
        assert rig.call()["stall_count"] == 0

    @pytest.mark.scenario("storage/Control characters", "storage/One megabyte in one chunk")
    @scenario()
    async def test_text_of_any_kind_survives(self, rig: Rig) -> None:
        pieces = ["\x00nul ", "\x1b[31mred ", "\x9b c1 ", "👩‍🚀 ", "x" * 1_000_000]
        rig.server.add([*map(Text, pieces), Finish("stop")])
        await rig.read(await rig.send())
        assert rig.text() == "".join(pieces)

    @pytest.mark.scenario("adapters/Usage only when it comes")
    @scenario()
    async def test_usage_is_what_came(self, rig: Rig) -> None:
        rig.server.add([*words(3), Finish("stop"), Usage(25, 9, cached=5)], [*words(3), Finish("stop")])
        await rig.read(await rig.send())
        await rig.read(await rig.send())
        with_usage, without = rig.calls()
        assert (with_usage["input_tokens"], with_usage["cached_input_tokens"], with_usage["output_tokens"]) == (
            25,
            5,
            9,
        )
        assert (with_usage["token_count"], with_usage["token_count_source"]) == (9, "usage")
        assert (without["output_tokens"], without["token_count"], without["tokens_per_second"]) == (None, None, None)
        assert without["events_per_second"] > 0

    @scenario()
    async def test_a_hundred_streams_leave_nothing_behind(self, rig: Rig) -> None:
        rig.server.add(Script([*words(3), Finish("stop")], repeat=True))
        for turn in range(100):
            stream = await rig.send()
            await rig.read(stream, turn % 4)
            await rig.close(stream)
            del stream
            # CPython may fail to close an asynchronous generator that the collector finds on a thread other than its
            # loop's, so it is not left for one.
            gc.collect(1)
        await rig.collect()
        # Where a request goes out with the first read, a stream that is never read is no call.
        is_lazy = "test_never_read_and_dropped" in self.not_possible
        assert len(rig.calls()) == (75 if is_lazy else 100)
        assert tokentape.status()["open_calls"] == 0

    async def _warm_up(self, rig: Rig, events: Iterable[Any]) -> None:
        """Read the events once unrecorded: an SDK loads what reads an event with the first of its kind."""
        rig.server.add(events)
        with tokentape.suppress():
            await rig.read(await rig.send())

    async def _expect_abandoned(self, rig: Rig, events: int) -> dict[str, Any]:
        call = rig.call()
        assert (call["status"], len(rig.tokens())) == ("abandoned", events)
        return call

    async def _failure(self, rig: Rig) -> BaseException:
        stream = await rig.send()
        with pytest.raises(Exception) as caught:
            await rig.read(stream)
        return caught.value

    async def _has_text(self, rig: Rig) -> bool:
        return bool(rig.tokens())

    def _expect_stall(self, rig: Rig, cause: str, gap_ms: float) -> dict[str, Any]:
        (stall,) = rig.rows("select * from llm_stalls where position != 'first'")
        assert stall["cause"] == cause
        assert stall["gap_us"] / 1000 == pytest.approx(gap_ms, abs=ROOM_MS)
        assert rig.call()["stall_count"] == 1
        return stall
