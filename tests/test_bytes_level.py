"""A program that reads the bytes of an answer itself gets each of them, and its call is recorded as any other."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import anthropic_surfaces
import openai_surfaces
import tokentape
from same_streams import ONLY, SAME, WORDS
from surfaces import drain, opened, use
from tape_reader import TapeReader
from tokentape import raw_reads
from tokentape.call import Request
from tokentape.clock import Clock
from tokentape.recorder import active
from tokentape.testing import (
    ErrorEvent,
    Finish,
    NoDone,
    Ping,
    ProviderServer,
    Raw,
    Reasoning,
    Role,
    Script,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
    WaitFor,
)
from tokentape.testing.rig import resolved
from tokentape_openai.chat import ChatReader

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])

Read = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Api:
    """One wire format.

    Attributes:
        resource: what has `create`, on a client.
        send: a streamed request by this form of `create`.
        script: an answer with all that the format has.
    """

    name: str
    client: Callable[..., Any]
    resource: Callable[[Any], Any]
    send: Callable[[Any], Any]
    script: tuple[Any, ...]


def _openai(name: str, resource: Callable[[Any], Any], send: Callable[[Any], Any], *script: Any) -> Api:
    return Api(name, openai_surfaces.client_for, resource, send, script)


CHAT = _openai("chat", lambda c: c.chat.completions, openai_surfaces.chat, *ONLY["chat"]["rich"])
CHOICES = _openai("choices", lambda c: c.chat.completions, openai_surfaces.chat, *ONLY["chat"]["choices"])
COMPLETION = _openai(
    "completion", lambda c: c.completions, openai_surfaces.completion, *WORDS, Finish("stop"), Usage(12, 6)
)
RESPONSES = _openai("responses", lambda c: c.responses, openai_surfaces.responses, *ONLY["responses"]["rich"])
FAILED = _openai("failed", lambda c: c.responses, openai_surfaces.responses, *ONLY["responses"]["failed"])
MESSAGES = Api(
    "messages",
    anthropic_surfaces.client_for,
    lambda c: c.messages,
    anthropic_surfaces.stream,
    (
        *(*WORDS[:2], Reasoning("hm "), Reasoning("ah"), Text("so"), ToolCall(0, "call_1", "look")),
        *(ToolArgs(0, '{"a":'), ToolArgs(0, "1}"), Finish("tool_calls"), Usage(30, 12, reasoning=4, cached=3)),
    ),
)
APIS = (CHAT, CHOICES, COMPLETION, RESPONSES, FAILED, MESSAGES)
apis = pytest.mark.parametrize("api", [CHAT, MESSAGES], ids=lambda api: api.name)
every_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)


def http(response: Any) -> Any:
    return response.http_response


def by(name: str, of: Callable[[Any], Any] = lambda response: response) -> Callable[[Api], Read]:
    """Reads with a method of a streaming response, or of what that has; pieces of text or bytes are put together."""

    def make(api: Api) -> Read:
        async def read(client: Any) -> Any:
            async with opened(api.send(api.resource(client).with_streaming_response.create)) as response:
                target = of(response)
                method = getattr(target, f"a{name}" if of is http and hasattr(client, "__aenter__") else name)
                if "iter" not in name:
                    return await resolved(method())
                pieces = await drain(method())
                return pieces if "lines" in name else type(pieces[0])().join(pieces)

        return read

    return make


def stream(api: Api) -> Read:
    """Reads with the SDK's stream."""

    async def read(client: Any) -> Any:
        return len(await drain(await resolved(api.send(api.resource(client).create))))

    return read


def lines_of_raw(api: Api) -> Read:
    """Reads the lines of the response that a raw response has."""

    async def read(client: Any) -> Any:
        response = (await resolved(api.send(api.resource(client).with_raw_response.create))).http_response
        return await drain(response.aiter_lines() if hasattr(client, "__aenter__") else response.iter_lines())

    return read


def lines_of_stream(api: Api) -> Read:
    """Reads the lines of the response that the SDK's stream has, past the stream."""

    async def read(client: Any) -> Any:
        response = (await resolved(api.send(api.resource(client).create))).response
        return await drain(response.aiter_lines() if hasattr(client, "__aenter__") else response.iter_lines())

    return read


def http_of(sdk: Any) -> Any:
    """The HTTP library of an SDK, which is another one in older versions."""
    return sys.modules[sdk.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]


WAYS: dict[str, Callable[[Api], Read]] = {
    **{name: by(name) for name in ("iter_lines", "iter_bytes", "iter_text", "read", "text")},
    "iter_raw": by("iter_raw", http),
    "raw response": lines_of_raw,
    "stream.response": lines_of_stream,
}


def answered(api: Api, way: Callable[[Api], Read], asynchronous: bool, *scripts: Script) -> Any:
    """What the program gets from a server of its own, so that ids count alike."""
    with ProviderServer() as server:
        server.add(*(scripts or (Script(api.script),)))
        return use(api.client(server, asynchronous), way(api))


def frames(api: Api) -> list[bytes]:
    """What goes over the wire for the answer with everything."""
    with ProviderServer() as server, tokentape.suppress():
        server.add(api.script)
        use(api.client(server, False), stream(api))
        return [sent.data for sent in server.requests[-1].sent]


def packed(pieces: list[bytes], encoding: str) -> Script:
    """These pieces of a body, compressed so that each can be read when it comes."""
    deflate = zlib.compressobj(wbits={"gzip": 31, "deflate": 15}[encoding])
    body = [deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return Script([*map(Raw, [*body, deflate.flush()]), NoDone()], headers={"content-encoding": encoding})


def on_tape(tape: TapeReader) -> list[dict[str, Any]]:
    """All that the tape says of each call, but the times."""
    of_call = {
        "parts": "select * from llm_parts where call_id = ? order by part",
        "tokens": "select token_index, part, token, n_tokens from llm_tokens where call_id = ? order by token_index",
        "logprobs": "select token_index, logprobs_json from llm_token_logprobs where call_id = ? order by token_index",
    }
    calls = tape.rows(f"select id, {SAME}, error_type, error_message from llm_calls order by id")
    found = [call | {name: tape.rows(sql, call["id"]) for name, sql in of_call.items()} for call in calls]
    for call in found:
        # The SDK's objects have their fields in another order than the wire.
        call["logprobs"] = [(row["token_index"], json.loads(row["logprobs_json"])) for row in call["logprobs"]]
        call["parts"] = [{**part, "call_id": None} for part in call["parts"]]
    return [{**call, "id": None} for call in found]


@pytest.fixture
def full(tmp_path: Path) -> TapeReader:
    """Recording is on, and nothing is left out."""
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20, content="full")
    return TapeReader(tmp_path / "tape.db")


@both
@every_api
@pytest.mark.scenario("adapters/Read as bytes")
def test_every_way_of_reading_leaves_the_rows_that_the_sdks_stream_leaves(
    api: Api, asynchronous: bool, full: TapeReader
) -> None:
    answered(api, stream, asynchronous)
    recorded = {name: answered(api, way, asynchronous) for name, way in WAYS.items()}
    (expected, *others) = on_tape(full)
    assert len(others) == len(WAYS)
    assert expected["event_count"] > 1
    for name, found in zip(WAYS, others, strict=True):
        assert found == expected, name

    tokentape.disable()
    assert recorded == {name: answered(api, way, asynchronous) for name, way in WAYS.items()}


@both
@apis
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.scenario("adapters/Compressed bytes")
def test_a_compressed_answer_is_recorded_and_handed_over_as_it_came(
    encoding: str, api: Api, asynchronous: bool, full: TapeReader
) -> None:
    answered(api, stream, asynchronous)
    pieces = frames(api)
    for name in ("iter_bytes", "iter_lines", "iter_raw"):
        read = answered(api, WAYS[name], asynchronous, packed(pieces, encoding))
        if name == "iter_bytes":
            assert read == b"".join(pieces)
        if name == "iter_raw":
            assert zlib.decompress(read, 47) == b"".join(pieces)
    expected, *others = on_tape(full)
    assert others == [expected] * 3


@both
@apis
def test_a_body_in_one_read_is_one_arrival(api: Api, asynchronous: bool, full: TapeReader) -> None:
    answered(api, WAYS["iter_bytes"], asynchronous, Script([Raw(b"".join(frames(api))), NoDone()]))
    rows = full.rows("select * from llm_tokens order by token_index")
    assert len(rows) == full.call()["event_count"] > 3
    assert len({row["offset_us"] for row in rows}) == 1
    assert [bool(row["wait_us"]) for row in rows] == [True] + [False] * (len(rows) - 1)
    # What was waited for is all the time there was: for the request, and then for the bytes.
    assert rows[0]["wait_us"] == pytest.approx(rows[0]["offset_us"], abs=20_000)


@both
@pytest.mark.scenario("adapters/Arrival of bytes")
def test_an_event_cut_in_two_arrives_with_its_end_and_waits_for_both(asynchronous: bool, full: TapeReader) -> None:
    begin, word, *rest = frames(MESSAGES)[:8]
    steps = [(0.0, begin), (0.1, word[:20]), (0.3, word[20:]), *((0.0, piece) for piece in rest)]
    script = Script([*((delay, Raw(piece)) for delay, piece in steps), NoDone()])
    answered(MESSAGES, WAYS["iter_bytes"], asynchronous, script)
    call, (first, *_) = full.call(), full.rows("select * from llm_tokens order by token_index")
    assert first["offset_us"] >= 400_000
    assert first["wait_us"] >= 400_000
    assert call["first_chunk_latency_ms"] < first["offset_us"] / 1000 - 300


@both
@pytest.mark.parametrize("way", ["stream", "iter_lines"])
@pytest.mark.scenario("metrics/Late end")
def test_what_comes_after_the_last_word_is_waited_for_at_the_end(
    way: str, asynchronous: bool, server: ProviderServer, tmp_path: Path
) -> None:
    tokentape.enable(db=tmp_path / "tape.db", stall_ms=50)
    server.add([Text("one"), (0.3, Finish("stop")), (0.9, Ping())])
    use(CHAT.client(server, asynchronous), (stream if way == "stream" else WAYS[way])(CHAT))
    (tail,) = TapeReader(tmp_path / "tape.db").rows("select * from llm_stalls where position = 'tail'")
    # Whatever the machine does meanwhile, the program holds nothing that long.
    assert tail["wait_us"] > tail["hold_us"]


@both
@pytest.mark.parametrize("way", ["iter_lines", "iter_bytes", "iter_text", "iter_raw"])
@apis
def test_nothing_is_read_ahead(
    api: Api, way: str, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    read = threading.Event()
    server.add([Role(), Text("one "), WaitFor(read), Text("two"), Finish("stop")])

    async def body(client: Any) -> None:
        async with opened(api.send(api.resource(client).with_streaming_response.create)) as response:
            target = response.http_response if way == "iter_raw" else response
            pieces = getattr(target, f"a{way}" if asynchronous and way == "iter_raw" else way)
            seen = b""
            if asynchronous:
                async for piece in pieces():
                    seen += piece if isinstance(piece, bytes) else piece.encode()
                    if b"one " in seen and not read.is_set():
                        read.set()
            else:
                for piece in pieces():
                    seen += piece if isinstance(piece, bytes) else piece.encode()
                    if b"one " in seen and not read.is_set():
                        # On the tape before the program asks for more.
                        assert (tape.call()["status"], tape.text()) == ("running", "one ")
                        read.set()

    use(api.client(server, asynchronous), body)
    assert (tape.call()["status"], tape.text(), server.requests[0].outcome()) == ("completed", "one two", "answered")


async def read_until(api: Api, client: Any, word: bytes) -> None:
    """Read lines until one of them has this word, and leave."""
    async with opened(api.send(api.resource(client).with_streaming_response.create)) as response:
        lines = response.iter_lines()
        while word not in (await anext(lines) if hasattr(lines, "__anext__") else next(lines)).encode():
            pass


@both
@apis
@pytest.mark.scenario("adapters/Bytes left half-way")
def test_left_half_way_it_is_abandoned_with_what_had_come(
    api: Api, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add([Role(), Text("one "), Text("two"), (5.0, Text("late")), Finish("stop")])
    use(api.client(server, asynchronous), lambda client: read_until(api, client, b"two"))
    call = tape.call()
    assert (call["status"], tape.text(), call["error_type"]) == ("abandoned", "one two", None)
    assert server.requests[0].outcome() == "left"


@both
@pytest.mark.parametrize(("api", "last"), [(CHAT, b'"stop"'), (MESSAGES, b"message_stop")], ids=["chat", "messages"])
@pytest.mark.scenario("adapters/Bytes left half-way")
def test_left_after_the_finish_it_is_completed(
    api: Api, last: bytes, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add([Text("one "), Text("two"), Finish("stop"), (5.0, Raw(b": still here\n\n"))])
    use(api.client(server, asynchronous), lambda client: read_until(api, client, last))
    call = tape.call()
    assert (call["status"], tape.text(), call["error_type"]) == ("completed", "one two", None)
    assert call["finish_reason"] == {"chat": "stop", "messages": "end_turn"}[api.name]


def test_the_last_word_of_the_provider_counts_though_it_is_decoded_after_the_end(tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=60_000)
    http = http_of(anthropic)

    class Body(http.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for state in ("idle", "running", "idle"):
                yield b'event: session\ndata: {"type": "session.status_%b", "id": "e"}\n\n' % state.encode()

    transport = http.MockTransport(lambda request: http.Response(200, stream=Body()))
    client = anthropic.Anthropic(api_key="none", http_client=http.Client(transport=transport))
    with client, client.beta.sessions.events.with_streaming_response.stream("sesn_1") as response:
        pieces = response.iter_bytes()
        assert b"idle" in next(pieces)
        assert tokentape.flush(10)
        assert b"running" in next(pieces)
    # It was at rest when the writer looked last, and is not any more.
    assert TapeReader(tmp_path / "tape.db").call()["status"] == "abandoned"


@both
@apis
@pytest.mark.scenario("adapters/Error among the bytes")
def test_an_error_among_the_events_makes_the_call_an_error(
    api: Api, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add([Text("one "), Text("two"), ErrorEvent("overloaded_error", "Overloaded"), Text(" never"), Finish()])
    seen = use(api.client(server, asynchronous), WAYS["text"](api))
    assert "never" in seen
    call = tape.call()
    assert (call["status"], tape.text()) == ("error", "one two")
    assert (call["error_type"], call["error_message"]) == ("overloaded_error", "Overloaded")
    assert (call["http_status"], call["finish_reason"]) == (200, None)


@both
def test_an_error_after_the_finish_is_noted_only(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("one"), Finish("stop"), Raw({"error": {"message": "too late", "type": None, "code": 500}})])
    use(CHAT.client(server, asynchronous), WAYS["text"](CHAT))
    call = tape.call()
    assert (call["status"], call["error_type"], call["error_message"]) == ("completed", "500", "too late")


@pytest.mark.parametrize(("data", "said"), [(b"it broke", "it broke"), (b'"it broke"', "it broke"), (b"5", "5")])
def test_an_error_event_in_plain_words(data: bytes, said: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("one"), Raw(b"event: error\ndata: %b\n\n" % data), Text("never"), Finish("stop")])
    use(MESSAGES.client(server, False), WAYS["text"](MESSAGES))
    call = tape.call()
    assert (call["status"], call["error_type"], call["error_message"], tape.text()) == ("error", "error", said, "one")


@pytest.mark.parametrize("error", ["it broke", ["it", "broke"], {"n": 1}])
def test_an_error_of_any_shape(error: Any, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("one"), Raw({"error": error})])
    use(CHAT.client(server, False), WAYS["text"](CHAT))
    call = tape.call()
    assert (call["status"], call["error_type"], bool(call["error_message"])) == ("error", "error", True)


@both
@pytest.mark.scenario("adapters/Bytes that are no events")
@pytest.mark.parametrize(
    ("broken", "left"),
    [
        (b"data: {broken\n\n", "one two"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "one two"),
        (b"\xff\xfe\x00binary\x00\r\n\r\n", "one two"),
        (b"data: 5\n\ndata: [1]\n\ndata: null\n\ndata:\n\nevent: x\n\n", "one two"),
    ],
)
def test_what_is_no_event_is_passed_over(
    broken: bytes, left: str, asynchronous: bool, server: ProviderServer, tape: TapeReader, caplog: Any
) -> None:
    server.add([Text("one "), Raw(broken), Text("two"), Finish("stop"), Usage(3, 2)])
    read = use(CHAT.client(server, asynchronous), WAYS["iter_bytes"](CHAT))
    call = tape.call()
    assert (call["status"], tape.text(), call["output_tokens"]) == ("completed", left, 2)
    assert read == b"".join(sent.data for sent in server.requests[0].sent)
    assert len([record for record in caplog.records if record.name == "tokentape"]) <= 1


@both
@pytest.mark.scenario("adapters/Bytes that are no events")
@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_what_cannot_be_decompressed_is_named_once_and_handed_over(
    encoding: str, asynchronous: bool, server: ProviderServer, tape: TapeReader, caplog: Any
) -> None:
    server.add(Script([Text("one"), Finish("stop")], headers={"content-encoding": encoding}, repeat=True))
    # Where nobody could read it, the program takes it as it comes.
    for _ in range(3):
        assert b"one" in use(CHAT.client(server, asynchronous), by("iter_raw", http)(CHAT))
    assert [(call["status"], call["event_count"], call["http_status"]) for call in tape.calls()] == [
        ("completed", 0, 200)
    ] * 3
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tokentape"]
    assert line.startswith(f"openai adapter, bytes that the program reads itself: content-encoding '{encoding}'")
    assert tokentape.status()["faults"]["openai adapter, bytes that the program reads itself"]["count"] == 3


@both
@pytest.mark.parametrize("level", ["timings", "redacted"])
def test_content_levels_hold_for_bytes_too(
    level: str, asynchronous: bool, server: ProviderServer, tmp_path: Path
) -> None:
    key = "sk-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"
    tokentape.enable(db=tmp_path / "tape.db", content=level)
    server.add([Text("key: "), Text(key[:12]), Text(key[12:]), Text(" ok"), Finish("stop"), Usage(3, 4)])
    assert key[12:] in use(MESSAGES.client(server, asynchronous), WAYS["text"](MESSAGES))
    tape = TapeReader(tmp_path / "tape.db")
    texts = [row["token"] for row in tape.tokens()]
    assert (tape.call()["event_count"], tape.call()["output_tokens"], len(texts)) == (4, 4, 4)
    assert set(texts) == {None} if level == "timings" else ("ok" in texts[-1] and key[:12] not in "".join(texts))
    tokentape.disable()
    assert key[:12].encode() not in (tmp_path / "tape.db").read_bytes()


def test_a_call_that_is_sampled_out_has_its_numbers(server: ProviderServer, tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db", sample_rate=0.0)
    server.add(CHAT.script)
    use(CHAT.client(server, False), WAYS["iter_lines"](CHAT))
    tape = TapeReader(tmp_path / "tape.db")
    call = tape.call()
    assert (call["status"], call["events_kept"], tape.tokens()) == ("completed", "sampled_out", [])
    assert call["event_count"] > 5
    assert call["first_token_latency_ms"] > 0


@both
def test_what_is_read_again_is_recorded_once(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(CHAT.script)

    async def body(client: Any) -> int:
        response = await resolved(CHAT.send(client.chat.completions.with_raw_response.create))
        await resolved(response.http_response.aread() if asynchronous else response.http_response.read())
        return len(await drain(await resolved(response.parse())))

    chunks = use(CHAT.client(server, asynchronous), body)
    call = tape.call()
    assert (call["status"], call["chunk_count"]) == ("completed", chunks)
    assert [part["content"] for part in tape.parts()][:2] == ["hm ah", "so"]


@both
@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.skipif(anthropic.__version__.startswith("0."), reason="has no middleware")
def test_what_middleware_reads_before_the_program_is_recorded_once(
    answers: int, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script([Text("one "), (0.1, Text("two")), Finish("stop"), Usage(3, 2)], repeat=True))

    def handle(request: Any, call_next: Any) -> Any:
        for _ in range(answers):
            response = call_next(request)
            response.http_response.read()
        return response

    async def handle_async(request: Any, call_next: Any) -> Any:
        for _ in range(answers):
            response = await call_next(request)
            await response.http_response.aread()
        return response

    middleware = [handle_async if asynchronous else handle]
    use(MESSAGES.client(server, asynchronous, middleware=middleware), stream(MESSAGES))
    assert (tape.call()["status"], tape.text(), tape.call()["output_tokens"]) == ("completed", "one two", 2)
    assert all(row["wait_us"] <= row["offset_us"] for row in tape.rows("select * from llm_tokens"))


@pytest.mark.usefixtures("lenient")
def test_a_stream_whose_first_question_has_no_time_is_not_taken_for_bytes(
    server: ProviderServer, tmp_path: Path
) -> None:
    fails = False

    def now() -> int:
        nonlocal fails
        if fails and threading.current_thread() is threading.main_thread():
            fails = False
            raise RuntimeError("of ours")
        return time.perf_counter_ns()

    tokentape.enable(db=tmp_path / "tape.db", clock=Clock(monotonic_ns=now, unix_ns=time.time_ns))
    server.add([Text("one "), Text("two"), Finish("stop")])
    with openai_surfaces.client_for(server, False) as client, CHAT.send(client.chat.completions.create) as chunks:
        fails = True
        list(chunks)
    tape = TapeReader(tmp_path / "tape.db")
    assert (tape.call()["status"], tape.text()) == ("completed", "two")


@both
def test_messages_of_bedrock(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    client = anthropic_surfaces.client_for(server, asynchronous, "Bedrock")
    server.add([*WORDS, Finish("stop"), Usage(12, 6)], [Text("one"), ErrorEvent("modelStreamErrorException", "broke")])
    assert use(client, WAYS["iter_bytes"](MESSAGES)) == b"".join(sent.data for sent in server.requests[0].sent)
    client = anthropic_surfaces.client_for(server, asynchronous, "Bedrock")
    use(client, WAYS["iter_bytes"](MESSAGES))
    whole, failed = tape.calls()
    assert (whole["status"], whole["finish_reason"], whole["output_tokens"]) == ("completed", "end_turn", 6)
    assert (failed["status"], failed["error_type"], failed["error_message"]) == (
        "error",
        "modelStreamErrorException",
        "broke",
    )
    assert tape.text() == "Hello, wörld 👋one"


@both
@apis
@pytest.mark.scenario("adapters/Nothing decoded on the reader")
def test_bytes_are_decoded_on_the_writers_thread(
    api: Api, asynchronous: bool, server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    parse, feed = raw_reads._parse, raw_reads.EventStream.feed

    def witness(function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any) -> Any:
            threads.append(threading.current_thread().name)
            return function(*args)

        return noting

    monkeypatch.setattr(raw_reads, "_parse", witness(parse))
    monkeypatch.setattr(raw_reads.EventStream, "feed", witness(feed))
    server.add(api.script)
    use(api.client(server, asynchronous), WAYS["iter_lines"](api))
    assert tape.call()["event_count"] > 3
    assert set(threads) == {"tokentape-writer"}


def test_what_has_gathered_is_decoded_in_slices_and_no_more_than_that(tape: TapeReader) -> None:
    recorder = active()
    assert recorder is not None
    call = recorder.start(Request("openai", "chat"))
    assert call is not None
    seen: list[Any] = []
    reads = raw_reads.RawReads(call, lambda chunk, *_: seen.append(chunk), lambda *_: "chunk", None, None)
    assert not reads.decode()
    for _ in range(3):
        reads.add(b"data: 1\n\n" * 20, 1, 2)
    slices = [0]
    while reads.decode():
        slices.append(len(seen))
        reads.add(b"data: 2\n\n", 1, 2)
    assert seen == [1] * 60
    assert max(after - before for before, after in pairwise(slices)) == raw_reads.SLICE_EVENTS
    while reads.decode():
        pass
    assert len(seen) == 60 + len(slices) - 1
    call.end("completed")


@both
@pytest.mark.parametrize("place", ["gathering", "keeping", "decoding", "reading", "finishing"])
@pytest.mark.usefixtures("lenient")
def test_a_fault_of_ours_takes_no_byte_from_the_program(
    place: str, asynchronous: bool, server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("of ours")

    owner, name = {
        "gathering": (raw_reads.RawReads, "__init__"),
        "keeping": (raw_reads.RawReads, "add"),
        "decoding": (raw_reads.EventStream, "feed"),
        "reading": (ChatReader, "read"),
        "finishing": (raw_reads.RawReads, "finish"),
    }[place]
    monkeypatch.setattr(owner, name, broken)
    server.add(Script(WORDS, repeat=True))
    read = use(CHAT.client(server, asynchronous), WAYS["iter_bytes"](CHAT))
    assert read == b"".join(sent.data for sent in server.requests[0].sent)
    assert (tape.call()["status"], tape.text()) == ("completed", "" if place != "finishing" else "Hello, wörld 👋")
    monkeypatch.undo()

    use(CHAT.client(server, asynchronous), WAYS["iter_bytes"](CHAT))
    assert [call["status"] for call in tape.calls()] == ["completed"] * 2
    assert tape.text().endswith("Hello, wörld 👋")


def test_an_asynchronous_body_that_is_left_is_closed_when_it_is_without_recording(tape: TapeReader) -> None:
    http = http_of(openai)

    class Body(http.AsyncByteStream):
        def __init__(self) -> None:
            self.closed: list[str] = []

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b'data: {"id": "c"}\n\n'
            finally:
                self.closed.append("generator")

        async def aclose(self) -> None:
            self.closed.append("stream")

    async def closed() -> list[str]:
        body = Body()
        transport = http.MockTransport(lambda request: http.Response(200, stream=body))
        async with openai.AsyncOpenAI(api_key="none", http_client=http.AsyncClient(transport=transport)) as client:
            raw = await CHAT.send(client.chat.completions.with_raw_response.create)
            pieces = raw.http_response.aiter_raw()
            await anext(pieces)
            await pieces.aclose()
            return list(body.closed)

    recorded = asyncio.run(closed())
    assert (tape.call()["status"], tape.call()["chunk_count"]) == ("abandoned", 1)
    tokentape.disable()
    assert recorded == asyncio.run(closed())


@both
def test_streams_read_as_bytes_leave_nothing_behind(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script(CHAT.script, repeat=True))

    async def body(client: Any) -> int:
        for _ in range(20):
            async with opened(CHAT.send(client.chat.completions.with_streaming_response.create)) as response:
                await drain(response.iter_lines())
        assert tokentape.flush(10)
        del response
        return sum(isinstance(one, raw_reads.RawReads) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        assert use(CHAT.client(server, asynchronous), body) == 0
    finally:
        gc.enable()


def test_a_stream_that_goes_on_when_recording_stops_keeps_no_bytes(server: ProviderServer, tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db")
    go_on = threading.Event()
    server.add([Text("one"), WaitFor(go_on), Text("two"), Finish("stop")])

    async def body(client: Any) -> tuple[str, str]:
        async with opened(CHAT.send(client.chat.completions.with_streaming_response.create)) as response:
            pieces = response.iter_text()
            first = next(pieces)
            call = tokentape.last_call()
            assert call is not None
            reads = call.raw
            tokentape.disable()
            go_on.set()
            rest = "".join(pieces)
            assert reads is not None
            assert (call.raw, len(reads._reads)) == (None, 0)
            return first, rest

    first, rest = use(CHAT.client(server, False), body)
    assert "one" in first
    assert "two" in rest
    tape = TapeReader(tmp_path / "tape.db")
    assert (tape.call()["status"], json.dumps(tape.text())) == ("abandoned", '"one"')
