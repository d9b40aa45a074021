"""The numbers of whole calls as they stand on the tape: SDK streams at a true pace, and iterators on a slow clock."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tokentape
from openai_surfaces import client_for
from surfaces import drain, use
from tape_reader import TapeReader
from tokentape.models import Metrics
from tokentape.testing import (
    FakeClock,
    Finish,
    Hang,
    HTTPError,
    Logprob,
    ProviderServer,
    Role,
    Script,
    Text,
    Usage,
    WaitFor,
)
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
METRICS = [field.name for field in fields(Metrics)]


def present(call: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a call that are not NULL."""
    return {name: call[name] for name in METRICS if call[name] is not None}


async def ask(client: Any, model: str = "gpt-x") -> Any:
    return await resolved(client.chat.completions.create(model=model, messages=[], stream=True))


async def read(client: Any) -> list[Any]:
    return await drain(await ask(client))


def warm_up(server: ProviderServer, asynchronous: bool) -> None:
    """The SDK loads what reads a chunk with the first of its kind; no test should measure that."""
    server.add([Role(), Text("a"), Finish("stop")])
    with tokentape.suppress():
        use(client_for(server, asynchronous), read)


class Slow:
    """A clock that stands still but where a script says that time passes; what is recorded goes to a tape."""

    def __init__(self, folder: Path) -> None:
        self.time = FakeClock()
        self.tape = TapeReader(folder / "tape.db")
        tokentape.enable(db=self.tape.path, clock=self.time.clock)

    def record(self, steps: list[tuple[float, str]], end_ms: float = 0.0) -> Any:
        """A stream whose chunks take these times (ms) inside `next()`; an empty one adds nothing."""

        def chunks() -> Iterator[str]:
            for passed, text in steps:
                self.time.advance(ms=passed)
                yield text
            self.time.advance(ms=end_ms)

        return tokentape.record_stream(chunks, model="m", text=lambda chunk: chunk)


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


@pytest.mark.scenario("metrics/Slow reader")
def test_time_between_chunks_that_are_ready_at_once_is_the_programs(slow: Slow) -> None:
    for _ in slow.record([(0, "a")] * 5):
        slow.time.advance(ms=100)
    call = slow.tape.call()
    assert call["hold_ms"] == 400
    assert [row["delta_ms"] for row in slow.tape.tokens()] == [0, 100, 100, 100, 100]
    assert [row["wait_ms"] for row in slow.tape.tokens()] == [0] * 5
    assert [call[f"inter_chunk_{name}_ms"] for name in ("p50", "p95", "p99", "max", "mean", "stdev")] == [100] * 5 + [0]
    # After the last chunk it went on for 100 ms before it asked again and was told that there was no more.
    assert (call["tail_gap_ms"], call["duration_ms"], call["status"]) == (100, 500, "completed")


@pytest.mark.scenario("metrics/Frames without content")
def test_waiting_for_a_frame_without_content_is_part_of_the_next_wait(slow: Slow) -> None:
    stream = slow.record([(10, "a"), (50, ""), (30, "b")])
    assert next(stream) == "a"
    slow.time.advance(ms=5)
    assert next(stream) == ""
    slow.time.advance(ms=2)
    assert list(stream) == ["b"]
    rows = slow.tape.rows("select offset_us, wait_us from llm_tokens order by token_index")
    assert [tuple(row.values()) for row in rows] == [(10_000, 10_000), (97_000, 80_000)]
    assert (slow.tape.call()["hold_ms"], slow.tape.call()["chunk_count"]) == (7, 3)


@pytest.mark.scenario("metrics/Late end")
def test_an_end_later_than_the_last_content(slow: Slow) -> None:
    for _ in slow.record([(100, "a"), (400, "b")], end_ms=300):
        pass
    call = slow.tape.call()
    names = ("first_token_latency_ms", "last_token_latency_ms", "tail_gap_ms", "duration_ms")
    assert [call[name] for name in names] == [100, 500, 300, 800]


@pytest.mark.scenario("metrics/Still running")
def test_a_call_that_has_not_ended_has_no_numbers(slow: Slow) -> None:
    stream = slow.record([(100, "a"), (100, "b")], end_ms=100)
    assert [next(stream), next(stream)] == ["a", "b"]
    call = slow.tape.call()
    assert (call["status"], len(slow.tape.tokens()), present(call)) == ("running", 2, {})
    assert list(stream) == []
    assert slow.tape.call()["duration_ms"] == 300


@pytest.mark.scenario("metrics/Silence at the start")
def test_a_stall_of_exactly_the_threshold_before_the_first_event(slow: Slow) -> None:
    for _ in slow.record([(0, ""), (1000, "a"), (999, "b")]):
        pass
    (stall,) = slow.tape.rows("select * from llm_stalls")
    assert (stall["position"], stall["token_index"], stall["gap_us"], stall["wait_us"]) == (
        "first",
        0,
        1_000_000,
        1_000_000,
    )
    assert slow.tape.call()["stall_count"] == 0


@both
@pytest.mark.scenario("metrics/Paced by a server")
def test_times_are_those_that_the_program_measures(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    warm_up(server, asynchronous)
    taken = threading.Event()
    # Deltas are scripted against the third chunk being taken: the wire would not wait for a program that sleeps.
    begin, rest = [(0.3, Text("a")), (0.02, Text("b")), (0.02, Text("c"))], [(0.5, Text("d")), (0.02, Text("e"))]
    server.add([*begin, WaitFor(taken), *rest, Finish("stop")])
    seen: list[float] = []

    async def note(chunk: Any) -> None:
        seen.append(time.perf_counter() * 1000)
        if chunk.choices[0].delta.content == "c":
            taken.set()
        await asyncio.sleep(0.1) if asynchronous else time.sleep(0.1)  # noqa: ASYNC251

    async def measure(client: Any) -> None:
        seen.append(time.perf_counter() * 1000)
        stream = await ask(client)
        if asynchronous:
            async for chunk in stream:
                await note(chunk)
        else:
            for chunk in stream:
                await note(chunk)

    use(client_for(server, asynchronous), measure)
    call = tape.call()
    arrivals = [at - seen[0] for at in seen[1:6]]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert call["first_token_latency_ms"] >= 300
    assert call["inter_chunk_max_ms"] >= 490
    assert call["hold_ms"] >= 400
    assert call["first_token_latency_ms"] == pytest.approx(arrivals[0], abs=50)
    assert call["inter_chunk_max_ms"] == pytest.approx(max(gaps), abs=50)
    assert call["last_token_latency_ms"] == pytest.approx(arrivals[-1], abs=50)
    assert [row["timestamp_ms"] for row in tape.tokens()] == pytest.approx(arrivals, abs=50)
    # 400 ms of sleep, and what a busy machine adds to four of them.
    assert call["hold_ms"] == pytest.approx(400, abs=100)


@pytest.mark.parametrize("operation", ["chat", "responses"])
@pytest.mark.scenario("metrics/Count from log-probabilities")
def test_without_usage_log_probabilities_are_counted(operation: str, server: ProviderServer, tape: TapeReader) -> None:
    def piece(*tokens: str) -> Text:
        return Text("".join(tokens), logprobs=tuple(Logprob(token, -0.5) for token in tokens))

    server.add([Role(), piece("a", "b"), piece("c"), piece("d", "e", "f"), Finish("stop")])

    async def stream(client: Any) -> None:
        if operation == "chat":
            await read(client)
        else:
            await drain(client.responses.create(model="gpt-x", input="hi", stream=True))

    use(client_for(server, False), stream)
    call = tape.call()
    assert (call["token_count"], call["token_count_source"], call["output_tokens"]) == (6, "logprobs", None)
    assert [row["n_tokens"] for row in tape.rows("select n_tokens from llm_tokens order by token_index")] == [2, 1, 3]
    assert call["tokens_per_second"] == pytest.approx(6000 / call["last_token_latency_ms"])
    span = call["last_token_latency_ms"] - call["first_token_latency_ms"]
    # The two tokens of the first event were there when the span began.
    assert call["inter_token_latency_ms"] == pytest.approx(span / 4)


def test_usage_counts_more_than_log_probabilities(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("ab", logprobs=(Logprob("a", -0.5), Logprob("b", -0.5))), Finish("stop"), Usage(3, 9)])
    use(client_for(server, False), read)
    assert (tape.call()["token_count"], tape.call()["token_count_source"]) == (9, "usage")


@both
@pytest.mark.scenario("metrics/First attempt succeeds")
def test_slow_headers_are_no_retry(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    warm_up(server, asynchronous)
    server.add(Script([Text("a"), Finish("stop")], headers_delay=0.2))
    use(client_for(server, asynchronous), read)
    call = tape.call()
    assert (call["retries"], call["status"]) == (0, "completed")
    assert call["headers_latency_ms"] >= 200
    assert 0 <= call["retry_ms"] < call["headers_latency_ms"] / 2
    assert call["first_chunk_latency_ms"] >= call["headers_latency_ms"]


@both
@pytest.mark.scenario("metrics/Two server errors")
def test_two_server_errors_before_a_stream(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    # The SDK obeys this header, whatever its own way of waiting.
    refused = [HTTPError(500, headers={"retry-after-ms": "60"})]
    server.add(refused, refused, [Text("a"), Finish("stop")])
    use(client_for(server, asynchronous, max_retries=2), read)
    call = tape.call()
    assert len(server.requests) == 3
    assert (call["retries"], call["status"], call["http_status"]) == (2, "completed", 200)
    assert call["retry_ms"] >= 120
    assert call["headers_latency_ms"] >= call["retry_ms"]
    assert call["provider_request_id"] == "req_000003"


@both
@pytest.mark.scenario("metrics/Rate limited first")
def test_a_refused_attempt_is_told_from_a_slow_model(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    warm_up(server, asynchronous)
    server.add([HTTPError(429, headers={"retry-after": "1"})], [(0.2, Text("a")), Finish("stop")])
    use(client_for(server, asynchronous, max_retries=2), read)
    call = tape.call()
    assert (call["retries"], call["status"]) == (1, "completed")
    assert call["retry_ms"] >= 1000
    assert call["headers_latency_ms"] >= call["retry_ms"]
    # The server's 200 ms begin when it sends the headers, ours when the SDK has read them.
    assert call["first_token_latency_ms"] - call["headers_latency_ms"] >= 190


@both
@pytest.mark.scenario("metrics/Call without a stream")
def test_a_call_that_is_not_streamed_has_few_numbers(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script([Text("ab"), Finish("stop"), Usage(3, 40)], headers_delay=0.2))

    async def whole(client: Any) -> None:
        await resolved(client.chat.completions.create(model="gpt-x", messages=[]))

    use(client_for(server, asynchronous), whole)
    call = tape.call()
    assert present(call).keys() == {"duration_ms", "headers_latency_ms", "retry_ms", "tokens_per_second"}
    assert (call["token_count"], call["token_count_source"]) == (40, "usage")
    assert call["tokens_per_second"] == pytest.approx(40_000 / call["duration_ms"])
    assert call["duration_ms"] >= call["headers_latency_ms"] >= 200


SILENT = {
    "first": [Role(), (3.0, Text("late")), Finish("stop")],
    "after three": [Text("a"), Text("b"), Text("c"), Hang(20)],
    "from the start": [Role(), Hang(20)],
}


@pytest.mark.scenario("metrics/Silence at the start", "metrics/Silence before a timeout")
def test_silence_at_either_end_is_a_stall(server: ProviderServer, tape: TapeReader) -> None:
    """Six calls at once: three kinds of silence, each with both clients."""
    for name, steps in SILENT.items():
        for mode in ("sync", "async"):
            server.add(steps, model=f"{name}, {mode}")

    async def listen(name: str, asynchronous: bool) -> None:
        # The first kind is waited for, the others are given up after three seconds.
        client = client_for(server, asynchronous, timeout=10.0 if name == "first" else 3.0)
        try:
            stream = await ask(client, f"{name}, {'async' if asynchronous else 'sync'}")
            if asynchronous:
                await drain(stream)
            else:
                await asyncio.to_thread(list, stream)
        except Exception as timeout:
            assert name != "first", timeout
        finally:
            await resolved(client.close())

    async def all_at_once() -> None:
        await asyncio.gather(*(listen(name, asynchronous) for name in SILENT for asynchronous in (False, True)))

    asyncio.run(all_at_once())
    stalls = {row["model"]: row for row in tape.rows("select s.*, c.request_model as model from llm_stalls s "
                                                     "join llm_calls c on c.id = s.call_id")}  # fmt: skip
    assert {name: (row["position"], row["token_index"], row["cause"]) for name, row in stalls.items()} == {
        f"{name}, {mode}": expected
        for mode in ("sync", "async")
        for name, expected in {
            "first": ("first", 0, "upstream"),
            "after three": ("tail", 3, "upstream"),
            "from the start": ("tail", 0, "upstream"),
        }.items()
    }
    for call in tape.calls():
        if call["request_model"].startswith("first"):
            assert (call["status"], call["stall_count"]) == ("completed", 0)
            assert call["first_token_latency_ms"] >= 3000
        else:
            assert (call["status"], call["stall_count"]) == ("error", 1)
            assert call["tail_gap_ms"] >= 3000
            assert call["error_type"] in {"APITimeoutError", "ReadTimeout", "APIConnectionError"}
