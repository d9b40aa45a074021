"""A stream may change hands: tasks, threads, contexts. None of them notices, and the call stays where it began."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tokentape

from ..events import Finish
from ..rig import Rig
from .suite import Suite, scenario, words

BEGUN_LATER = {("starts", "read"): "the call begins with the first read, and is of the run in which that is made"}


class Contexts(Suite):
    """Streams that change hands."""

    @pytest.mark.scenario("capture/Context variables untouched")
    @scenario()
    async def test_context_variables_stay_as_they_were(self, rig: Rig) -> None:
        rig.server.add([*words(5), Finish("stop")], words(5))
        before = context()
        stream = await rig.send()
        assert context() == before
        for _ in range(3):
            await rig.next(stream)
            assert context() == before
        await rig.read(stream)
        assert context() == before
        stream = await rig.send()
        await rig.read(stream, 2)
        await rig.close(stream)
        assert context() == before

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario("async", differs=BEGUN_LATER)
    async def test_made_in_one_task_read_in_another_left_in_a_third(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        held: list[Any] = []

        async def make() -> None:
            with tokentape.run("first"):
                held.append(await rig.send())

        async def read() -> None:
            with tokentape.run("second"):
                await rig.read(held[0], 3)

        async def leave() -> None:
            with tokentape.run("third"):
                await rig.next(held.pop())

        for step in (make, read, leave):
            await asyncio.create_task(step())
        await rig.collect()
        self._expect(rig, "abandoned", 4)

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario("async", differs=BEGUN_LATER)
    async def test_made_in_one_task_read_in_another_closed_in_a_third(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))

        async def make() -> Any:
            with tokentape.run("first"):
                return await rig.send()

        async def read(stream: Any) -> None:
            with tokentape.run("second"):
                await rig.read(stream, 3)

        stream = await asyncio.create_task(make())
        await asyncio.create_task(read(stream))
        await asyncio.create_task(rig.close(stream))
        self._expect(rig, "abandoned", 3)

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario("sync", differs=BEGUN_LATER)
    async def test_made_in_one_thread_read_in_another_left_in_a_third(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        held: list[Any] = []
        self._in_turn(rig, held, in_a_thread)
        await rig.collect()
        self._expect(rig, "abandoned", 4)

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario("sync", differs=BEGUN_LATER)
    async def test_made_in_one_context_read_in_another_left_in_a_third(self, rig: Rig) -> None:
        rig.server.add(words(20, 0.01))
        self._in_turn(rig, [], lambda step: contextvars.copy_context().run(step))
        await rig.collect()
        self._expect(rig, "abandoned", 4)

    @pytest.mark.scenario("capture/Stream changes hands")
    @scenario("async", differs=BEGUN_LATER)
    async def test_a_synchronous_stream_is_read_in_threads_of_an_event_loop(self, rig: Rig) -> None:
        rig.server.add([*words(5), Finish("stop")])
        blocking = Rig(self.driver, rig.db, asynchronous=False)
        client = self.driver.client(rig.server.url, False)

        def make() -> Any:
            with tokentape.run("first"):
                return self.driver.send(client)

        def read(stream: Any) -> None:
            with tokentape.run("second"):
                blocking.run(blocking.read(stream))

        before = context()
        await asyncio.to_thread(read, await asyncio.to_thread(make))
        await asyncio.to_thread(self.driver.close_client, client)
        assert context() == before
        self._expect(rig, "completed", 5)

    def _in_turn(self, rig: Rig, held: list[Any], run: Callable[[Callable[[], None]], None]) -> None:
        """Make a stream, read three words of it, and leave it after a fourth, each in a place of its own."""

        def make() -> None:
            with tokentape.run("first"):
                held.append(self.driver.send(rig.client()))

        def read() -> None:
            with tokentape.run("second"):
                rig.run(rig.read(held[0], 3))

        def leave() -> None:
            with tokentape.run("third"):
                next(held.pop())

        for step in (make, read, leave):
            run(step)

    def _expect(self, rig: Rig, status: str, events: int) -> None:
        """One call, of the run in which the request was made."""
        assert (rig.call()["status"], rig.call()["event_count"]) == (status, events)
        (run,) = rig.rows("select r.name from llm_calls c join runs r on r.id = c.run_id")
        assert run["name"] == ("second" if rig.traits.starts == "read" else "first")


def context() -> dict[Any, Any]:
    """Every context variable with its value."""
    return dict(contextvars.copy_context().items())


def in_a_thread(step: Callable[[], None]) -> None:
    """Run a step in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(step).result()
