"""The program sends, gets and sees what it would without recording."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

from ..events import Finish, Raw, Role, Text, Usage, WaitFor
from ..rig import END, Rig
from ..script import Script
from .suite import Suite, everything, scenario, words


class Fidelity(Suite):
    """What the program sees."""

    @pytest.mark.scenario("adapters/Same chunks")
    @scenario()
    async def test_the_program_sees_the_same_chunks(self, rig: Rig) -> None:
        seen = await self.same_unrecorded(rig, everything(self.driver), self.seen)
        assert len(seen.chunks) >= 4
        assert rig.call()["status"] == "completed"

    @pytest.mark.scenario("adapters/Same chunks")
    @scenario(options=("include_usage",))
    async def test_nothing_is_asked_for_that_the_program_does_not_ask(self, rig: Rig) -> None:
        async def use(rig: Rig) -> Any:
            return [await self.seen(rig, include_usage=told) for told in (True, False)]

        await self.same_unrecorded(rig, [Text("a"), Finish("stop")], use)
        assert len(rig.sent()) == 2

    @pytest.mark.scenario("adapters/Same attributes")
    @scenario()
    async def test_every_public_attribute_of_a_stream_is_the_same(self, rig: Rig) -> None:
        async def use(rig: Rig) -> Any:
            stream = await rig.send()
            before = type(stream).__mro__, public_face(stream)
            await rig.next(stream)
            half_way = public_face(stream)
            await rig.read(stream)
            return before, half_way, public_face(stream)

        _, face = (await self.same_unrecorded(rig, everything(self.driver), use))[0]
        assert face

    @pytest.mark.scenario("adapters/Same attributes")
    @scenario()
    async def test_a_stream_is_iterated_entered_and_closed_as_before(self, rig: Rig) -> None:
        value = rig.traits.value

        async def use(rig: Rig) -> Any:
            stream = await rig.send()
            iterator = aiter(stream) if rig.asynchronous else iter(stream)
            seen: list[Any] = [type(iterator), iterator is stream, value(await rig.next(stream))]
            async with rig.inside(stream) as entered:
                seen += [entered is stream, value(await rig.next(entered))]
                seen += map(value, await rig.read(stream))
            seen += [await rig.next(stream) is END, await rig.read(stream)]
            await rig.close(stream)
            return seen

        await self.same_unrecorded(rig, everything(self.driver), use)

    @pytest.mark.scenario("capture/No buffering")
    @scenario()
    async def test_a_chunk_is_handed_over_before_the_next_is_sent(self, rig: Rig) -> None:
        first, second = threading.Event(), threading.Event()
        rig.server.add([Text("one"), WaitFor(first), Text("two"), WaitFor(second), Text("three"), Finish("stop")])
        stream = await rig.send()
        for text, taken in (("one", first), ("two", second)):
            while rig.driver.text(await rig.next(stream)) != text:
                pass
            taken.set()
        await rig.read(stream)
        assert (rig.call()["status"], rig.text()) == ("completed", "onetwothree")

    @pytest.mark.scenario("capture/Nothing read ahead")
    @scenario()
    async def test_nothing_is_read_ahead(self, rig: Rig) -> None:
        rig.server.add([*words(10), Finish("stop")])
        stream = await rig.send()
        chunks = await rig.read(stream, 4)
        assert [row["token"] for row in rig.tokens()] == [f"word{i} " for i in range(4)]
        await rig.close(stream)
        assert rig.call()["chunk_count"] == len(chunks)

    @pytest.mark.scenario("adapters/Hostile chunks")
    @scenario(hostile=True)
    async def test_hostile_chunks_reach_the_program_and_cost_no_neighbour(self, rig: Rig) -> None:
        before: list[Any] = [Role(), Text("be"), Text("fore ")]
        after: list[Any] = [Text("af"), Text("ter"), Finish("stop"), Usage(3, 4)]
        frames = rig.traits.hostile

        async def use(rig: Rig) -> Any:
            rig.server.add(*(Script([*before, Raw(frame), *after]) for frame in frames))
            return [await self.seen(rig) for _ in frames]

        recorded = await use(rig)
        calls, texts = rig.calls(), rig.rows("select text from responses order by call_id")
        async with rig.unrecorded() as twin:
            plain = await use(twin)
        for frame, seen, reference, call, said in zip(frames, recorded, plain, calls, texts, strict=True):
            assert seen == reference, frame
            # What the SDK itself cannot read ends its stream, recorded or not.
            expected = ("error", "before ") if seen.failure else ("completed", "before after")
            assert (call["status"], said["text"]) == expected, frame


def public_face(value: Any) -> dict[str, Any]:
    """Every public attribute: whether it is there, can be called, and is a coroutine function."""
    return {name: _traits(value, name) for name in dir(value) if not name.startswith("_")}


def _traits(value: Any, name: str) -> Any:
    try:
        found = getattr(value, name)
    except Exception as missing:
        return type(missing)
    return type(found), callable(found), inspect.iscoroutinefunction(found), inspect.isasyncgenfunction(found)
