"""However a stream ends, its call ends once, as what it was, and the program notices nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import tokentape
from tokentape.recorder import active

from ..events import Drop, Finish, Hang, HTTPError, Role, Text
from ..rig import END, Rig
from ..script import Script
from .suite import Suite, scenario, words

# More than any scenario here reads, and then an open connection.
LONG = [*words(20, 0.005), Hang(10)]
NOT_SENT = {
    ("starts", "read"): "nothing is sent before the first read, and there is no row",
    ("starts", "announced"): "the row is there, although nothing is sent before the first read",
}
NOT_TOLD = "where it is asynchronous, `error_type` is NULL: Python does not tell a generator what it is closed for"


class Endings(Suite):
    """How reading ends."""

    @pytest.mark.scenario("capture/Reader breaks off")
    @scenario()
    async def test_left_by_break_inside_with(self, rig: Rig) -> None:
        await self._expect_left(rig, self._leave_inside_with)

    @pytest.mark.scenario("capture/Reader breaks off")
    @scenario()
    async def test_left_by_break_and_dropped(self, rig: Rig) -> None:
        await self._expect_left(rig, self._leave_dropped)

    @pytest.mark.scenario("capture/Reader breaks off")
    @scenario()
    async def test_closed_half_way_while_still_referenced(self, rig: Rig) -> None:
        held: list[Any] = []
        await self._expect_left(rig, lambda rig: self._leave_closed(rig, held))
        assert held

    @scenario()
    async def test_the_next_request_works_after_one_that_was_left(self, rig: Rig) -> None:
        for leave in (self._leave_inside_with, self._leave_dropped, self._leave_closed):
            rig.server.add(LONG, [Text("again"), Finish("stop")])
            await leave(rig)
            assert "".join(map(rig.driver.text, await rig.read(await rig.send()))) == "again"
        assert [call["status"] for call in rig.calls()][::2] == ["abandoned"] * 3

    @pytest.mark.scenario("capture/Never read")
    @scenario(differs=NOT_SENT)
    async def test_never_read_and_dropped(self, rig: Rig) -> None:
        rig.server.add(LONG)
        stream = await rig.send()
        del stream
        await rig.collect()
        self._expect_never_read(rig)

    @scenario(differs=NOT_SENT)
    async def test_never_read_and_closed(self, rig: Rig) -> None:
        rig.server.add(LONG)
        stream = await rig.send()
        await rig.close(stream)
        # A generator that was never started cannot tell anybody that it was closed, only that it is gone.
        del stream
        await rig.collect()
        self._expect_never_read(rig)

    @scenario(differs=NOT_SENT)
    async def test_never_read_when_recording_stops(self, rig: Rig) -> None:
        rig.server.add(words(3))
        stream = await rig.send()
        tokentape.disable()
        self._expect_never_read(rig)
        await rig.close(stream)

    @pytest.mark.scenario("capture/Exception in the loop body", "adapters/Closed in the middle of an exception")
    @scenario(differs={("is_generator", True): NOT_TOLD})
    async def test_exception_in_the_loop_body_inside_with(self, rig: Rig) -> None:
        rig.server.add(LONG)
        mistake = ValueError("of the program")
        stream = await rig.send()
        with pytest.raises(ValueError) as caught:
            async with rig.inside(stream):
                await rig.read(stream, 2)
                raise mistake
        assert caught.value is mistake
        assert (mistake.args, mistake.__context__, mistake.__cause__) == (("of the program",), None, None)
        # Python does not tell a bare asynchronous generator what it is closed for.
        is_told = not rig.asynchronous or not rig.traits.is_generator
        assert self._expect_abandoned(rig, 2)["error_type"] == ("ValueError" if is_told else None)

    @pytest.mark.scenario("capture/Exception in the loop body")
    @scenario()
    async def test_exception_in_the_loop_body_without_with(self, rig: Rig) -> None:
        rig.server.add(LONG)
        mistake = ValueError("of the program")

        async def program() -> None:
            await rig.read(await rig.send(), 2)
            raise mistake

        with pytest.raises(ValueError) as caught:
            await program()
        assert caught.value is mistake
        assert (mistake.args, mistake.__context__, mistake.__cause__) == (("of the program",), None, None)
        # The frames of the program, and with them its stream, live as long as the traceback.
        mistake.__traceback__ = None
        del caught
        await rig.collect()
        assert self._expect_abandoned(rig, 2)["error_type"] is None

    @scenario()
    async def test_an_exception_from_before_the_request_is_not_noted(self, rig: Rig) -> None:
        rig.server.add(LONG)
        known: dict[str, str] = {}
        try:
            known["what is not known, the model is asked"]
        except KeyError:
            async with rig.inside(await rig.send()) as stream:
                await rig.read(stream, 2)
        assert self._expect_abandoned(rig, 2)["error_type"] is None

    @pytest.mark.scenario("capture/Closed after the finish")
    @scenario()
    async def test_left_after_the_answer_was_complete(self, rig: Rig) -> None:
        rig.server.add([Text("one "), Text("two "), Finish("stop"), Hang(3)])
        stream = await rig.send()
        await rig.next(stream)
        recorder = active()
        assert recorder is not None
        (call,) = recorder.open
        while not call.terminal:
            assert await rig.next(stream) is not END
        await rig.close(stream)
        assert (rig.call()["status"], rig.text()) == ("completed", "one two ")
        assert rig.call()["finish_reason"]

    @scenario(options=("choices",))
    async def test_left_after_one_of_two_answers_was_complete(self, rig: Rig) -> None:
        rig.server.add([Text("a"), Text("b", choice=1), Finish("stop", choice=1), Hang(10)])
        stream = await rig.send(choices=2)
        for _ in range(3):
            await rig.next(stream)
        await rig.close(stream)
        assert (rig.call()["status"], rig.call()["finish_reason"]) == ("abandoned", "stop")

    @pytest.mark.scenario("capture/Connection drops")
    @scenario()
    async def test_connection_drops_half_way(self, rig: Rig) -> None:
        async def use(rig: Rig) -> Any:
            stream = await rig.send()
            seen = await self.seen(rig, stream)
            await rig.close(stream)
            await rig.close(stream)
            return seen

        seen = await self.same_unrecorded(rig, [*words(4), (0.1, Drop())], use)
        call = rig.call()
        assert (call["status"], call["event_count"], call["error_type"]) == ("error", 4, seen.failure[0].__qualname__)
        assert call["error_message"]

    @pytest.mark.scenario("capture/Task cancelled")
    @scenario("async")
    async def test_task_is_cancelled_while_waiting(self, rig: Rig) -> None:
        async def program() -> None:
            await rig.read(await rig.send())

        await self._cancelled(rig, Script([*words(2), Hang(30)]), program, 2)

    @pytest.mark.scenario("capture/Task cancelled", "adapters/Closed in the middle of an exception")
    @scenario("async")
    async def test_task_is_cancelled_in_the_loop_body(self, rig: Rig) -> None:
        async def program() -> None:
            async with rig.inside(await rig.send()) as stream:
                await rig.read(stream, 2)
                await asyncio.sleep(30)

        await self._cancelled(rig, Script([*words(2), Hang(30)]), program, 2)

    @pytest.mark.scenario("capture/Task cancelled")
    @scenario("async")
    async def test_task_is_cancelled_before_the_answer_begins(self, rig: Rig) -> None:
        async def program() -> None:
            await rig.read(await rig.send())

        await self._cancelled(rig, Script(words(2), headers_delay=30), program, 0)

    @pytest.mark.scenario("capture/Empty stream")
    @scenario()
    async def test_a_stream_without_content(self, rig: Rig) -> None:
        await self._expect_empty(rig, [Role(), Finish("content_filter")])

    @pytest.mark.scenario("capture/Empty stream")
    @scenario()
    async def test_a_stream_without_a_single_chunk(self, rig: Rig) -> None:
        await self._expect_empty(rig, [])
        assert rig.call()["chunk_count"] == 0

    @pytest.mark.scenario("capture/Resumed after a break")
    @scenario()
    async def test_reading_goes_on_after_a_break(self, rig: Rig) -> None:
        rig.server.add([*words(6), Finish("stop")])
        stream = await rig.send()
        first = [await rig.next(stream)]
        while sum(bool(rig.driver.text(chunk)) for chunk in first) < 2:
            first.append(await rig.next(stream))
        assert rig.call()["status"] == "running"
        second = await rig.read(stream)
        call = rig.call()
        assert (call["status"], call["event_count"]) == ("completed", 6)
        assert "".join(map(rig.driver.text, first + second)) == rig.text() == "".join(f"word{i} " for i in range(6))

    @scenario()
    async def test_reading_on_after_the_end_adds_nothing(self, rig: Rig) -> None:
        rig.server.add([*words(2), Finish("stop")])
        stream = await rig.send()
        await rig.read(stream)
        before = rig.call()
        assert [await rig.next(stream) for _ in range(3)] == [END] * 3
        await rig.close(stream)
        del stream
        await rig.collect()
        assert rig.call() == before

    @scenario()
    async def test_a_refused_request_is_a_row(self, rig: Rig) -> None:
        async def use(rig: Rig) -> Any:
            return await self.seen(rig)

        seen = await self.same_unrecorded(rig, [HTTPError(401, "no such key")], use)
        call = rig.call()
        assert (call["status"], call["http_status"], call["event_count"]) == ("error", 401, 0)
        assert (call["error_type"], call["error_message"]) == (seen.failure[0].__qualname__, seen.failure[1])

    async def _leave_inside_with(self, rig: Rig) -> list[Any]:
        async with rig.inside(await rig.send()) as stream:
            return await rig.read(stream, 3)

    async def _leave_dropped(self, rig: Rig) -> list[Any]:
        chunks = await rig.read(await rig.send(), 3)
        await rig.collect()
        return chunks

    async def _leave_closed(self, rig: Rig, held: list[Any] | None = None) -> list[Any]:
        stream = await rig.send()
        if held is not None:
            held.append(stream)
        chunks = await rig.read(stream, 3)
        await rig.close(stream)
        return chunks

    async def _expect_left(self, rig: Rig, leave: Callable[[Rig], Awaitable[list[Any]]]) -> None:
        rig.server.add(LONG)
        chunks = await leave(rig)
        call = self._expect_abandoned(rig, 3)
        assert (call["chunk_count"], call["error_type"]) == (len(chunks), None)
        assert rig.text() == "word0 word1 word2 "
        # An asynchronous generator around the SDK's stream leaves the connection to the event loop.
        await rig.collect()
        assert rig.server.requests[0].outcome() == "left"

    def _expect_abandoned(self, rig: Rig, events: int) -> dict[str, Any]:
        call = rig.call()
        assert (call["status"], len(rig.tokens())) == ("abandoned", events)
        return call

    def _expect_never_read(self, rig: Rig) -> None:
        """Its row is there all the same, where the adapter has heard of it at all."""
        assert len(rig.server.requests) == (rig.traits.starts == "sent")
        if rig.traits.starts == "read":
            assert rig.calls() == []
            return
        call = self._expect_abandoned(rig, 0)
        assert (call["chunk_count"], call["first_token_latency_ms"]) == (0, None)

    async def _expect_empty(self, rig: Rig, steps: list[Any]) -> None:
        async def use(rig: Rig) -> Any:
            return await self.seen(rig)

        seen = await self.same_unrecorded(rig, steps, use)
        call = rig.call()
        # Some make an exception of it.
        error = seen.failure[0].__qualname__ if seen.failure else None
        assert (call["status"], call["error_type"]) == ("error" if error else "completed", error)
        assert (call["event_count"], call["first_token_latency_ms"], rig.tokens()) == (0, None, [])

    async def _cancelled(self, rig: Rig, script: Script, program: Callable[[], Awaitable[None]], events: int) -> None:
        """By a timeout and by hand; the call keeps what had come, and nobody complains of what nobody awaited."""
        rig.server.add(script, script)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_coroutine(program), 0.5)
        task = asyncio.create_task(_coroutine(program))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await rig.collect()
        ended = [(call["status"], call["event_count"]) for call in rig.calls()]
        assert ended == [("cancelled", events)] * 2


async def _coroutine(program: Callable[[], Awaitable[None]]) -> None:
    await program()
