"""A call ends once, however its reading ends, and the program notices nothing of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import tokentape
from tokentape.testing import Drop, Finish, Hang, HTTPError, Script, Text
from tokentape.testing.rig import END, Rig

WORDS = [(0.005, Text(f"word{i} ")) for i in range(30)]


async def leave_with(rig: Rig, taken: int) -> None:
    stream = await rig.send()
    await enter(rig, stream, rig.read(stream, taken))


async def leave_dropped(rig: Rig, taken: int) -> None:
    stream = await rig.send()
    await rig.read(stream, taken)
    del stream
    await rig.collect()


async def leave_closed(rig: Rig, taken: int) -> None:
    stream = await rig.send()
    await rig.read(stream, taken)
    await rig.close(stream)


async def enter(rig: Rig, stream: Any, body: Coroutine[Any, Any, Any]) -> None:
    if rig.asynchronous:
        async with stream:
            await body
    else:
        with stream:
            await body


WAYS_TO_LEAVE = pytest.mark.parametrize("leave", [leave_with, leave_dropped, leave_closed])


@pytest.mark.scenario("capture/Reader breaks off")
@WAYS_TO_LEAVE
@pytest.mark.parametrize("taken", [1, 3])
async def test_reader_breaks_off(
    rig: Rig, leave: Callable[..., Any], taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rig.server.add(Script([*WORDS, Hang(10)], repeat=True))
    await leave(rig, taken)
    call = rig.call()
    assert (call["status"], call["chunk_count"], call["error_type"]) == ("abandoned", taken, None)
    assert "".join(row["token"] for row in rig.tokens()) == "".join(f"word{i} " for i in range(taken))
    assert rig.server.requests[0].outcome() == "left"
    recorded = said(caplog)

    tokentape.disable()
    caplog.clear()
    await leave(rig, taken)
    assert recorded == said(caplog)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """What anybody logged above DEBUG."""
    return [(record.name, record.levelno) for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.mark.scenario("capture/Reader breaks off")
@WAYS_TO_LEAVE
async def test_a_connection_that_was_left_is_not_used_again_and_the_next_call_works(
    rig: Rig, leave: Callable[..., Any]
) -> None:
    rig.server.add([*WORDS, Hang(10)], [Text("again"), Finish("stop")])
    await leave(rig, 2)
    await rig.read(await rig.send())
    assert [call["status"] for call in rig.calls()] == ["abandoned", "completed"]


@pytest.mark.scenario("capture/Never read")
@WAYS_TO_LEAVE
async def test_never_read(rig: Rig, leave: Callable[..., Any]) -> None:
    rig.server.add(WORDS)
    await leave(rig, 0)
    call = rig.call()
    assert (call["status"], call["chunk_count"], call["first_token_latency_ms"]) == ("abandoned", 0, None)
    assert rig.tokens() == []


@pytest.mark.scenario("capture/Exception in the loop body")
@pytest.mark.parametrize("inside_with", [True, False])
async def test_exception_in_the_loop_body(rig: Rig, inside_with: bool) -> None:
    rig.server.add(WORDS)
    mistake = ValueError("of the program")

    async def program() -> None:
        stream = await rig.send()
        if inside_with:
            await enter(rig, stream, fail_after(2, stream))
        else:
            await fail_after(2, stream)

    async def fail_after(taken: int, stream: Any) -> None:
        await rig.read(stream, taken)
        raise mistake

    try:
        await program()
    except ValueError as caught:
        assert caught is mistake
        assert (caught.args, caught.__context__, caught.__cause__) == (("of the program",), None, None)
        # The frames of the program, and with them its stream, live as long as the traceback.
        caught.__traceback__ = None
    await rig.collect()
    call = rig.call()
    assert (call["status"], call["chunk_count"]) == ("abandoned", 2)
    assert call["error_type"] == ("ValueError" if inside_with else None)


@pytest.mark.scenario("capture/Exception in the loop body")
async def test_an_exception_that_was_there_before_the_call_is_not_the_loops(rig: Rig) -> None:
    rig.server.add(WORDS)
    try:
        raise KeyError("handled by asking the model")
    except KeyError:
        stream = await rig.send()
        await enter(rig, stream, rig.read(stream, 2))
    assert (rig.call()["status"], rig.call()["error_type"]) == ("abandoned", None)


@pytest.mark.scenario("capture/Closed after the finish")
@WAYS_TO_LEAVE
async def test_left_after_the_finish_reason(rig: Rig, leave: Callable[..., Any]) -> None:
    rig.server.add([Text("one "), Text("two "), Finish("stop"), Hang(10)])

    async def read_to_the_finish(stream: Any, limit: int) -> list[Any]:
        return [await rig.next(stream) for _ in range(limit)]

    rig.read = read_to_the_finish  # type: ignore[method-assign]
    await leave(rig, 3)
    call = rig.call()
    assert (call["status"], call["finish_reason"], call["chunk_count"]) == ("completed", "stop", 3)


async def test_left_after_the_first_of_two_finish_reasons(rig: Rig) -> None:
    def two_answers(client: Any) -> Any:
        return client.chat.completions.create(model="gpt-x", messages=[], stream=True, n=2)

    rig.driver.send = two_answers  # type: ignore[method-assign]
    rig.server.add([Text("a"), Text("b", choice=1), Finish("stop", choice=1), Hang(10)])
    stream = await rig.send()
    for _ in range(3):
        await rig.next(stream)
    await rig.close(stream)
    assert (rig.call()["status"], rig.call()["finish_reason"]) == ("abandoned", "stop")


@pytest.mark.scenario("capture/Connection drops")
async def test_connection_drops_and_the_stream_is_closed_after(rig: Rig) -> None:
    rig.server.add(Script([*WORDS[:4], (0.05, Drop())], repeat=True))

    async def failure() -> BaseException:
        stream = await rig.send()
        with pytest.raises(Exception) as caught:
            await rig.read(stream)
        await rig.close(stream)
        await rig.close(stream)
        return caught.value

    recorded = await failure()
    call = rig.call()
    assert (call["status"], call["chunk_count"], call["event_count"]) == ("error", 4, 4)
    assert call["error_type"] == type(recorded).__qualname__
    assert call["error_message"]
    tokentape.disable()
    plain = await failure()
    assert (type(recorded), recorded.args) == (type(plain), plain.args)
    assert type(recorded.__cause__) is type(plain.__cause__)
    assert type(recorded.__context__) is type(plain.__context__)


@pytest.mark.scenario("capture/Task cancelled")
@pytest.mark.parametrize("rig", ["async"], indirect=True)
@pytest.mark.parametrize("where", ["waiting for a chunk", "in the loop body", "before the headers"])
@pytest.mark.parametrize("how", ["wait_for", "cancel"])
async def test_task_is_cancelled(rig: Rig, where: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    rig.server.add(Script([*WORDS[:2], Hang(30)], headers_delay=30 if where == "before the headers" else 0))
    there = asyncio.Event()

    async def program() -> None:
        asyncio.get_running_loop().call_later(0.2, there.set)
        async with await rig.send() as stream:
            await rig.read(stream, 2)
            if where == "in the loop body":
                await asyncio.sleep(30)
            await anext(stream)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(program(), 0.5)
        else:
            task = asyncio.create_task(program())
            await there.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        await rig.collect()
    call = rig.call()
    assert (call["status"], call["error_type"]) == ("cancelled", "CancelledError")
    assert call["event_count"] == (0 if where == "before the headers" else 2)
    complaints = [str(warning.message) for warning in warned] + [record.getMessage() for record in caplog.records]
    assert [line for line in complaints if "never" in line] == []


@pytest.mark.scenario("capture/Resumed after a break")
async def test_resumed_after_a_break(rig: Rig) -> None:
    rig.server.add([*WORDS[:6], Finish("stop")])
    stream = await rig.send()
    first = await rig.read(stream, 2)
    assert rig.call()["status"] == "running"
    second = await rig.read(stream)
    assert (len(first), len(second)) == (2, 5)
    call = rig.call()
    assert (call["status"], call["chunk_count"], call["event_count"]) == ("completed", 7, 6)
    assert rig.text() == "".join(f"word{i} " for i in range(6))


async def test_reading_on_after_the_end_adds_nothing(rig: Rig) -> None:
    rig.server.add([*WORDS[:2], Finish("stop")])
    stream = await rig.send()
    await rig.read(stream)
    before = rig.call()
    assert [await rig.next(stream) for _ in range(3)] == [END] * 3
    await rig.close(stream)
    del stream
    await rig.collect()
    assert rig.call() == before


async def test_a_refused_request_keeps_what_the_provider_said(rig: Rig) -> None:
    rig.server.add([HTTPError(404, "no such model")])
    with pytest.raises(Exception, match="no such model") as caught:
        await rig.send()
    call = rig.call()
    assert (call["status"], call["http_status"], call["error_type"]) == ("error", 404, type(caught.value).__name__)
    assert "no such model" in call["error_message"]
    assert call["provider_request_id"] == "req_000001"


async def test_every_ending_frees_its_call(rig: Rig) -> None:
    rig.server.add(*[WORDS] * 3)
    for leave in (leave_with, leave_dropped, leave_closed):
        await leave(rig, 1)
    gc.collect()
    assert tokentape.status()["open_calls"] == 0
