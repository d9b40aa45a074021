"""Streams of SDKs that have no adapter: fed by hand, or wrapped."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tape_reader import TapeReader
from tokentape.testing import FakeClock

WRAPPED = ["one ", "two ", "three "]


class Bench:
    """A tape whose clock the test moves."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.clock = FakeClock(monotonic_ns=1_000_000_000)
        self.tape = TapeReader(path)
        tokentape.enable(db=path, clock=self.clock.clock, flush_ms=20, **settings)

    def source(self, items: list[Any] = WRAPPED, wait_ms: float = 100) -> Iterator[Any]:
        """A stream that takes its time before each item, and before its end."""
        for item in items:
            self.clock.advance(ms=wait_ms)
            yield item
        self.clock.advance(ms=wait_ms)

    async def async_source(self, items: list[Any] = WRAPPED, wait_ms: float = 100) -> AsyncIterator[Any]:
        for item in items:
            await asyncio.sleep(0)
            self.clock.advance(ms=wait_ms)
            yield item
        self.clock.advance(ms=wait_ms)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "tape.db")


@pytest.mark.scenario("storage/Wall clock set back")
def test_a_wall_clock_that_is_set_back_moves_nothing(bench: Bench) -> None:
    stream = tokentape.record_stream(bench.source, model="m", text=str)
    for _ in stream:
        bench.clock.shift_wall(-3600)
    call = bench.tape.call()
    times = [datetime.fromisoformat(call[name]) for name in ("started_at", "last_event_at", "ended_at")]
    assert times == [times[0] + timedelta(milliseconds=ms) for ms in (0, 300, 400)]
    assert call["duration_ms"] == 400
    assert [row["offset_us"] for row in bench.tape.rows("select offset_us from llm_tokens order by token_index")] == [
        100_000,
        200_000,
        300_000,
    ]
    negative = {name: value for name, value in call.items() if name.endswith("_ms") and value is not None and value < 0}
    assert negative == {}


@pytest.mark.scenario("capture/Fed by hand")
def test_fed_by_hand(bench: Bench) -> None:
    with tokentape.start_llm_stream(model="m", provider="acme", name="mine") as stream:
        bench.clock.advance(ms=300)
        stream.add_token("Hel")
        bench.clock.advance(ms=1200)
        stream.add_token("lo", n_tokens=1)
        stream.usage(input_tokens=3, output_tokens=2)
        stream.request_id = "req-1"
        bench.clock.advance(ms=50)
        stream.finish("stop")
        bench.clock.advance(ms=5000)
    call = bench.tape.call()
    expected = {
        "uid": stream.uid,
        "name": "mine",
        "adapter": "python",
        "layer": "sdk",
        "operation": "chat",
        "provider": "acme",
        "request_model": "m",
        "provider_request_id": "req-1",
        "input_tokens": 3,
        "output_tokens": 2,
        "token_count": 2,
        "token_count_source": "usage",
        "finish_reason": "stop",
        "status": "completed",
        "error_type": None,
        "chunk_count": 2,
        "event_count": 2,
        "first_token_latency_ms": 300,
        "inter_chunk_max_ms": 1200,
        "duration_ms": 1550,
        "stall_count": 1,
        "streaming": 1,
    }
    assert {name: call[name] for name in expected} == expected
    rows = bench.tape.rows("select token_index, offset_us, part, token, n_tokens from llm_tokens")
    assert rows == [
        {"token_index": 0, "offset_us": 300_000, "part": 0, "token": "Hel", "n_tokens": None},
        {"token_index": 1, "offset_us": 1_500_000, "part": 0, "token": "lo", "n_tokens": 1},
    ]
    (stall,) = bench.tape.rows("select token_index, gap_us, cause from llm_stalls")
    assert stall == {"token_index": 1, "gap_us": 1_200_000, "cause": "unknown"}


def test_parts_choices_and_kinds_fed_by_hand(bench: Bench) -> None:
    with tokentape.start_llm_stream() as stream:
        stream.add_token("hm", kind="reasoning")
        stream.add_token('{"a":', kind="tool_args", part="call_1")
        stream.add_token('{"b":', kind="tool_args", part="call_2")
        stream.add_token("1}", kind="tool_args", part="call_1")
        stream.add_token("so", choice=1)
        stream.add_token("", kind="text")
    assert [(part["kind"], part["choice"], part["provider_index"], part["content"]) for part in bench.tape.parts()] == [
        ("reasoning", 0, None, "hm"),
        ("tool_args", 0, "call_1", '{"a":1}'),
        ("tool_args", 0, "call_2", '{"b":'),
        ("text", 1, None, "so"),
    ]
    call = bench.tape.call()
    assert (call["status"], call["event_count"], call["request_model"], call["provider"]) == (
        "completed",
        5,
        None,
        None,
    )


def test_an_unknown_kind_is_refused_also_while_off() -> None:
    with (
        tokentape.start_llm_stream() as stream,
        pytest.raises(ValueError, match="kind 'word': expected one of text, reasoning, tool_args"),
    ):
        stream.add_token("a", kind="word")  # type: ignore[arg-type]


def test_what_is_fed_after_the_end_is_not_part_of_the_call(bench: Bench) -> None:
    with tokentape.start_llm_stream() as stream:
        stream.add_token("a")
        stream.finish("stop")
        bench.clock.advance(ms=1)
        stream.add_token("b")
        stream.finish("length")
    call = bench.tape.call()
    assert (call["event_count"], call["finish_reason"], bench.tape.text()) == (1, "stop", "a")


@pytest.mark.parametrize("prompts", [True, False])
def test_the_prompt_is_kept_where_prompts_are(tmp_path: Path, prompts: bool) -> None:
    bench = Bench(tmp_path / "tape.db", prompts=prompts)
    with tokentape.start_llm_stream(prompt=[{"role": "user", "content": "hi"}]):
        pass
    kept = bench.tape.call()["prompt_json"]
    assert (json.loads(kept) if kept else None) == ([{"role": "user", "content": "hi"}] if prompts else None)


@pytest.mark.scenario("capture/Block left by an exception")
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_block_left_by_an_exception(bench: Bench, asynchronous: bool) -> None:
    mistake = ValueError("of the program")
    with pytest.raises(ValueError, match="^of the program$") as caught:
        if asynchronous:
            async with tokentape.start_llm_stream(model="m") as stream:
                stream.add_token("Hel")
                raise mistake
        with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("Hel")
            raise mistake
    assert caught.value is mistake
    assert (mistake.__context__, mistake.__cause__) == (None, None)
    call = bench.tape.call()
    assert (call["status"], call["error_type"], call["error_message"]) == ("error", "ValueError", "of the program")
    assert [row["token"] for row in bench.tape.tokens()] == ["Hel"]


@pytest.mark.scenario("capture/Block left by an exception")
async def test_block_left_by_a_cancellation(bench: Bench) -> None:
    async def program() -> None:
        async with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("Hel")
            await asyncio.sleep(30)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(program(), 0.05)
    assert (bench.tape.call()["status"], bench.tape.call()["event_count"]) == ("cancelled", 1)


@pytest.mark.scenario("capture/Wrapped iterator")
async def test_a_wrapped_generator_has_wait_and_hold(bench: Bench) -> None:
    def send() -> Iterator[str]:
        bench.clock.advance(ms=30)
        return bench.source()

    items = [object(), "two ", 3]
    received = []
    for item in tokentape.record_stream(lambda: bench.source(items), model="m", provider="acme", text=str):
        received.append(item)
    assert all(a is b for a, b in zip(received, items, strict=True))

    for _ in tokentape.record_stream(send, model="m", provider="acme", text=str):
        bench.clock.advance(ms=20)
    expect_waits_and_holds(bench, bench.tape.calls()[1])


@pytest.mark.scenario("capture/Wrapped iterator")
@pytest.mark.parametrize("awaited", [False, True], ids=["returned", "awaited"])
async def test_a_wrapped_async_generator_has_wait_and_hold(bench: Bench, awaited: bool) -> None:
    def send() -> Any:
        bench.clock.advance(ms=30)
        return bench.async_source()

    async def send_later() -> Any:
        await asyncio.sleep(0)
        return send()

    received = []
    async for item in tokentape.record_stream(send_later if awaited else send, model="m", provider="acme", text=str):
        received.append(item)
        bench.clock.advance(ms=20)
    assert received == WRAPPED
    expect_waits_and_holds(bench, bench.tape.call())


def expect_waits_and_holds(bench: Bench, call: dict[str, Any]) -> None:
    """30 ms to send, then each time 100 ms for the stream and 20 for the program."""
    expected = {
        "status": "completed",
        "provider": "acme",
        "request_model": "m",
        "chunk_count": 3,
        "first_chunk_latency_ms": 130,
        "first_token_latency_ms": 130,
        "last_token_latency_ms": 370,
        "inter_chunk_p50_ms": 120,
        "hold_ms": 40,
        "tail_gap_ms": 120,
        "duration_ms": 490,
        "stall_count": 0,
    }
    assert {name: call[name] for name in expected} == expected
    rows = bench.tape.rows("select offset_us, wait_us, token from llm_tokens where call_id = ?", call["id"])
    assert [(row["offset_us"], row["wait_us"], row["token"]) for row in rows] == [
        (130_000, 130_000, "one "),
        (250_000, 100_000, "two "),
        (370_000, 100_000, "three "),
    ]


@pytest.mark.scenario("capture/Wrapped iterator")
@pytest.mark.parametrize("how", ["wrapped", "record_stream"])
def test_causes_of_stalls_are_told_apart_as_for_an_sdk(bench: Bench, how: str) -> None:
    def program(stream: Any) -> None:
        assert next(stream) == "one "
        bench.clock.advance(ms=1500)
        assert list(stream) == ["two "]

    source = bench.source(["one ", "two "], wait_ms=1100)
    if how == "wrapped":
        with tokentape.start_llm_stream(model="m") as stream:
            program(stream.wrap(source, events=lambda item: [("text", item)]))
    else:
        program(tokentape.record_stream(lambda: source, events=lambda item: [("text", item)]))
    stalls = bench.tape.rows("select position, gap_us, wait_us, hold_us from llm_stalls order by token_index")
    assert stalls == [
        {"position": "first", "gap_us": 1_100_000, "wait_us": 1_100_000, "hold_us": 0},
        {"position": "middle", "gap_us": 2_600_000, "wait_us": 1_100_000, "hold_us": 1_500_000},
        {"position": "tail", "gap_us": 1_100_000, "wait_us": 1_100_000, "hold_us": 0},
    ]
    causes = bench.tape.rows("select cause from llm_stalls where position = 'middle'")
    assert causes == [{"cause": "own"}]


def end_by_break(stream: Any) -> None:
    for _ in stream:
        break
    del stream


def end_by_close(stream: Any) -> None:
    next(stream)
    stream.close()
    stream.close()


def end_by_with(stream: Any) -> None:
    with stream:
        next(stream)


@pytest.mark.parametrize("leave", [end_by_break, end_by_close, end_by_with])
def test_a_wrapped_stream_that_is_left_is_abandoned_and_closed(bench: Bench, leave: Callable[[Any], None]) -> None:
    closed = []

    def source() -> Iterator[str]:
        try:
            yield from WRAPPED
        finally:
            closed.append(True)

    leave(tokentape.record_stream(source, text=str))
    gc.collect()
    call = bench.tape.call()
    assert (call["status"], call["chunk_count"], closed) == ("abandoned", 1, [True])


async def test_an_async_wrapped_stream_that_is_closed(bench: Bench) -> None:
    async with tokentape.record_stream(bench.async_source, text=str) as stream:
        assert await anext(stream) == "one "
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert (bench.tape.call()["status"], bench.tape.call()["chunk_count"]) == ("abandoned", 1)


def test_a_wrapped_stream_that_fails(bench: Bench) -> None:
    mistake = ConnectionError("gone")

    def source() -> Iterator[str]:
        yield "one "
        raise mistake

    with pytest.raises(ConnectionError) as caught:
        list(tokentape.record_stream(source, text=str))
    assert caught.value is mistake
    assert mistake.__context__ is None
    call = bench.tape.call()
    assert (call["status"], call["error_type"], call["chunk_count"]) == ("error", "ConnectionError", 1)


@pytest.mark.parametrize("awaited", [False, True], ids=["returned", "awaited"])
async def test_a_request_that_cannot_be_sent(bench: Bench, awaited: bool) -> None:
    mistake = OSError("no route")

    def send() -> Any:
        raise mistake

    async def send_later() -> Any:
        send()

    with pytest.raises(OSError, match="no route") as caught:
        if awaited:
            await anext(tokentape.record_stream(send_later, text=str))
        tokentape.record_stream(send, text=str)
    assert caught.value is mistake
    assert (bench.tape.call()["status"], bench.tape.call()["error_type"]) == ("error", "OSError")


@pytest.mark.parametrize("what", [5, None])
def test_what_is_no_stream_fails_as_it_would_and_ends_its_call(bench: Bench, what: Any) -> None:
    with pytest.raises(TypeError, match="is not iterable") as caught:
        tokentape.record_stream(lambda: what, text=str)
    del caught
    gc.collect()
    assert (bench.tape.call()["status"], bench.tape.call()["error_type"]) == ("error", "TypeError")
    assert tokentape.status()["open_calls"] == 0


def test_text_and_events_exclude_each_other() -> None:
    with pytest.raises(TypeError, match=r"record_stream\(\) takes one of text= and events="):
        tokentape.record_stream(list)
    with pytest.raises(TypeError, match=r"record_stream\(\) takes one of text= and events="):
        tokentape.record_stream(list, text=str, events=lambda item: [])


def test_a_block_that_left_its_wrapped_stream_unread_is_abandoned(bench: Bench) -> None:
    with tokentape.start_llm_stream() as stream:
        next(stream.wrap(bench.source(), events=lambda item: [("text", item)]))
    assert bench.tape.call()["status"] == "abandoned"


@pytest.mark.parametrize("on", [True, False])
async def test_what_is_handed_out_can_do_the_same_while_off(tmp_path: Path, on: bool) -> None:
    if on:
        tokentape.enable(db=tmp_path / "tape.db")

    async def later() -> Any:
        return Items()

    for send in (Items, later):
        async with tokentape.record_stream(send, text=str) as stream:
            assert [item async for item in stream] == [1, 2]
    with tokentape.record_stream(range(3).__iter__, text=str) as stream:
        assert iter(stream) is stream
        assert list(stream) == [0, 1, 2]
    with tokentape.start_llm_stream(model="m") as call:
        with call.wrap(closing := Closing(), events=lambda item: []) as stream:
            assert next(stream) == "a"
            assert stream.response == "theirs"
        assert closing.closed == 1
        call.add_token("a")
        call.usage(output_tokens=1)
        call.request_id = "req-1"
        call.finish("stop")
        assert (call.uid is not None, call.request_id) == (on, "req-1" if on else None)


class Items:
    """An asynchronous stream."""

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 1
        yield 2


class Closing:
    """A stream of an SDK, with what SDKs add to one."""

    response = "theirs"
    closed = 0

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def close(self) -> None:
        self.closed += 1
