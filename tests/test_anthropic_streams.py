"""Streams of the Anthropic SDK that fail, are dropped, or pass through its middleware and tracing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest

from anthropic_surfaces import ASKED, client_for, stream
from surfaces import direct, same_failure, use
from tape_reader import TapeReader
from tokentape.testing import (
    ErrorEvent,
    Finish,
    HTTPError,
    ProviderServer,
    Raw,
    Script,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
ANSWER = [Text("one "), Text("two "), Text("three"), Finish("stop"), Usage(3, 3)]


async def ask(client: Any) -> list[Any]:
    return await direct(stream(client.messages.create))


async def ask_whole(client: Any) -> Any:
    return await resolved(client.messages.create(**ASKED))


@both
@pytest.mark.scenario("adapters/Error inside the stream", "adapters/Overloaded half-way")
def test_an_error_inside_a_stream(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([*ANSWER[:3], ErrorEvent("overloaded_error", "Overloaded")], repeat=True))
    kind = same_failure(lambda: client_for(server, asynchronous), ask)
    call = tape.call()
    assert issubclass(kind, anthropic.APIStatusError)
    assert (call["status"], call["error_type"], call["http_status"]) == ("error", kind.__qualname__, 200)
    assert "Overloaded" in call["error_message"]
    assert (call["event_count"], tape.text()) == (3, "one two three")


@pytest.mark.scenario("adapters/Error inside the stream")
def test_an_error_inside_a_stream_of_bedrock(server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([*ANSWER[:3], ErrorEvent("modelStreamErrorException", "Overloaded")], repeat=True))
    kind = same_failure(lambda: client_for(server, False, "Bedrock"), ask)
    call = tape.call()
    assert (call["status"], call["error_type"], tape.text()) == ("error", kind.__qualname__, "one two three")


@pytest.mark.parametrize("body", [ask, ask_whole])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (404, "NotFoundError"), (529, "OverloadedError")],
)
def test_refusals(status: int, kind: str, body: Any, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([HTTPError(status, headers={"retry-after": "7"})], repeat=True))
    same_failure(lambda: client_for(server, False), body)
    call = tape.call()
    assert (call["status"], call["http_status"], call["error_type"], call["retries"]) == ("error", status, kind, 0)
    assert (call["provider_request_id"], call["response_meta_json"]) == ("req_000001", '{"retry-after": "7"}')


@both
def test_a_line_that_is_no_json(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    broken = Raw(b"event: content_block_delta\ndata: {broken\n\n")
    server.add(Script([*ANSWER[:3], broken, Text("never read")], repeat=True))
    kind = same_failure(lambda: client_for(server, asynchronous), ask)
    assert (tape.call()["status"], tape.call()["error_type"]) == ("error", kind.__qualname__)
    assert tape.text() == "one two three"


@contextmanager
def no_collector() -> Iterator[None]:
    """What is released in here is released by its last reference going away."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@both
def test_nothing_of_the_sdks_is_kept(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add([ToolCall(0, "call_1", "look"), ToolArgs(0, "{}"), *ANSWER])
    client = client_for(server, asynchronous)
    seen: list[weakref.ref[Any]] = []
    most = 0

    def alive() -> int:
        return sum(one() is not None for one in seen)

    async def read(client: Any) -> None:
        nonlocal most
        events = await resolved(stream(client.messages.create))
        seen.append(weakref.ref(events))
        while (event := await (anext(events, None) if asynchronous else resolved(next(events, None)))) is not None:
            seen.append(weakref.ref(event))
            most = max(most, alive())

    with no_collector():
        use(client, read)
    gc.collect()
    assert len(seen) > 6
    # While it is read: the stream, the event that came, and the one before it, which the SDK's own iterator still has.
    assert most <= 3
    assert alive() == 0
    assert tape.call()["status"] == "completed"


@both
def test_attempts_that_pass_through_middleware_are_one_call(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    """Beneath middleware the SDK makes a response object of a refused attempt too."""
    server.add([HTTPError(500, headers={"retry-after-ms": "1"})], ANSWER)
    seen = []

    def handle(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        seen.append(response.http_response.status_code)
        return response

    async def handle_async(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        seen.append(response.http_response.status_code)
        return response

    middleware = [handle_async if asynchronous else handle]
    use(client_for(server, asynchronous, max_retries=1, middleware=middleware), ask)
    call = tape.call()
    assert seen == [500, 200]
    assert (call["status"], call["http_status"], call["retries"], tape.text()) == (
        *("completed", 200, 1, "one two three"),
    )


@both
def test_a_response_that_middleware_puts_together_is_recorded_as_it_is_read(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    """The SDK's own middleware for refusals reads the response that came, and hands on one of its own making."""
    from anthropic.lib.middleware import BetaRefusalFallbackMiddleware

    server.add(Script(ANSWER, repeat=True))
    middleware = [BetaRefusalFallbackMiddleware([{"model": "claude-y"}])]

    async def leave(client: Any) -> None:
        events = await resolved(stream(client.beta.messages.create))
        for _ in range(3):
            await anext(events) if asynchronous else next(events)
        await resolved(events.close())

    use(client_for(server, asynchronous, middleware=middleware), lambda c: direct(stream(c.beta.messages.create)))
    use(client_for(server, asynchronous, middleware=middleware), leave)
    assert [(call["status"], call["event_count"], call["output_tokens"]) for call in tape.calls()] == [
        ("completed", 3, 3),
        ("abandoned", 1, None),
    ]


class Observer:
    """Stands for the SDK's own tracing, which watches a stream from its body."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def begin(self) -> None:
        self.seen.append("begin")

    def item(self, event: Any) -> None:
        self.seen.append(event.type)

    def end(self, how: str, error: BaseException | None = None) -> None:
        self.seen.append(how)


def test_the_look_for_an_observer_ends_at_the_stand_in(server: ProviderServer, tape: TapeReader) -> None:
    """The SDK looks for one at each chunk; where there is none, it is the stand-in that says so."""
    server.add(ANSWER)
    observer = Observer()

    def observed(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        assert vars(response.http_response.stream)["stream_observer"] is None
        response.http_response.stream.stream_observer = observer
        return response

    use(client_for(server, False, middleware=[observed]), ask)
    assert observer.seen[:2] == ["begin", "message_start"]
    assert observer.seen[-2:] == ["message_stop", "read"]
    assert (tape.call()["status"], tape.text()) == ("completed", "one two three")
