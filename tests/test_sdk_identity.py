"""What a program sends and gets through every surface of an SDK is what it would send and get without recording."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

import anthropic_surfaces
import openai_surfaces
import tokentape
from surfaces import Surface, drain, opened, use
from tape_reader import TapeReader
from tokentape.testing import (
    Drop,
    Finish,
    Logprob,
    Ping,
    ProviderServer,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
    WaitFor,
)
from tokentape.testing.conformance.fidelity import public_face
from tokentape.testing.log import Request
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])

PLAIN = [
    Role(),
    Ping(),
    Text("Hel"),
    Text("lo", logprobs=(Logprob("lo", -0.5),)),
    Text(""),
    Finish("stop"),
    Usage(3, 2),
]
TOOL = [ToolCall(0, "call_1", "look"), ToolArgs(0, '{"a":'), ToolArgs(0, "1}"), Finish("tool_calls")]
RICH = [
    Role(),
    Ping(),
    Reasoning("hm "),
    Text("Hel"),
    Text("lo", logprobs=(Logprob("lo", -0.5, top=(("la", -1.5),)),)),
    *TOOL,
    Usage(30, 12, cached=5, reasoning=1),
]
WITH_REFUSAL = [*RICH[:5], Refusal("no"), *RICH[5:]]

Body = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Api:
    """One API of an SDK.

    Attributes:
        sdk: the SDK's module.
        client_for: a client of a server, of one kind or the other.
        resource: where a client has the API.
        ask: asks with a form of the resource's `create`.
        steps: everything that the format can carry.
        helper: the SDK's own `stream()`; None where there is none.
        finals: what brings the whole answer once the helper was read.
    """

    name: str
    sdk: Any
    client_for: Callable[..., Any]
    resource: Callable[[Any], Any]
    ask: Callable[..., Any]
    steps: list[Any]
    helper: Callable[[Any], Any] | None = None
    finals: tuple[str, ...] = ()

    def send(self, client: Any, **more: Any) -> Any:
        create = self.resource(client).create
        return self.ask(lambda **asked: create(**asked, **more))


CHAT = Api(
    "chat",
    openai,
    openai_surfaces.client_for,
    lambda client: client.chat.completions,
    openai_surfaces.chat,
    WITH_REFUSAL,
    lambda client: client.chat.completions.stream(model="gpt-x", messages=openai_surfaces.MESSAGES),
    ("get_final_completion",),
)
APIS = [
    CHAT,
    Api(
        "completions",
        openai,
        openai_surfaces.client_for,
        lambda client: client.completions,
        openai_surfaces.completion,
        PLAIN,
    ),
    Api(
        "responses",
        openai,
        openai_surfaces.client_for,
        lambda client: client.responses,
        openai_surfaces.responses,
        WITH_REFUSAL,
        lambda client: client.responses.stream(model="gpt-x", input="hi"),
        ("get_final_response",),
    ),
    Api(
        "messages",
        anthropic,
        anthropic_surfaces.client_for,
        lambda client: client.messages,
        anthropic_surfaces.stream,
        RICH,
        lambda client: client.messages.stream(**anthropic_surfaces.ASKED),
        ("get_final_message", "get_final_text"),
    ),
    Api(
        "beta messages",
        anthropic,
        anthropic_surfaces.client_for,
        lambda client: client.beta.messages,
        anthropic_surfaces.stream,
        RICH,
        lambda client: client.beta.messages.stream(**anthropic_surfaces.ASKED),
        ("get_final_message", "get_final_text"),
    ),
]
MESSAGES = APIS[3]
every_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
every_sdk = pytest.mark.parametrize("api", [CHAT, MESSAGES], ids=lambda api: api.sdk.__name__)
every_helper = pytest.mark.parametrize("api", [api for api in APIS if api.helper], ids=lambda api: api.name)


def alone(make: Callable[[ProviderServer], Any], steps: list[Any], body: Body) -> tuple[Any, list[Request]]:
    """What a program gets from a server that nobody has asked before, and what that server received."""
    with ProviderServer() as server:
        server.add(steps)
        return use(make(server), body), server.requests


def with_and_without(make: Callable[[ProviderServer], Any], steps: list[Any], body: Body, tape: TapeReader) -> Any:
    """The same, recorded and not, and equal but for the server's port; the first of the two."""
    recorded, sent = alone(make, steps, body)
    assert len(tape.calls()) == 1
    tokentape.disable()
    reference, sent_unrecorded = alone(make, steps, body)
    assert recorded == reference
    assert [as_sent(request) for request in sent] == [as_sent(request) for request in sent_unrecorded]
    return recorded


def same(api: Api, asynchronous: bool, body: Body, tape: TapeReader) -> Any:
    """As `with_and_without`, for a client of one API."""
    return with_and_without(lambda server: api.client_for(server, asynchronous), api.steps, body, tape)


def as_sent(request: Request) -> Any:
    headers = {name: value for name, value in request.headers.items() if name != "host"}
    return request.method, request.path, request.query, headers, request.body


def dumped(chunks: list[Any]) -> list[Any]:
    return [(type(chunk), chunk.model_dump(warnings=False)) for chunk in chunks]


@both
@pytest.mark.scenario("adapters/Same chunks")
@pytest.mark.parametrize("surface", openai_surfaces.SURFACES, ids=lambda surface: surface.name)
def test_chunks_and_request_bytes_of_openai_are_the_same(
    surface: Surface, asynchronous: bool, tape: TapeReader
) -> None:
    async def read(client: Any) -> list[Any]:
        return dumped(await surface.read(client))

    steps = PLAIN if surface.operation == "text_completion" else WITH_REFUSAL
    make = openai_surfaces.client_for
    assert len(with_and_without(lambda server: make(server, asynchronous, surface.cloud), steps, read, tape)) >= 5


@both
@pytest.mark.scenario("adapters/Same chunks")
@pytest.mark.parametrize("surface", anthropic_surfaces.SURFACES, ids=lambda surface: surface.name)
def test_chunks_and_request_bytes_of_anthropic_are_the_same(
    surface: Surface, asynchronous: bool, tape: TapeReader
) -> None:
    if surface.cloud == "Bedrock":
        pytest.importorskip("botocore", reason="the SDK reads Bedrock's framing with botocore")

    async def read(client: Any) -> list[Any]:
        return dumped(await surface.read(client))

    make = anthropic_surfaces.client_for
    assert len(with_and_without(lambda server: make(server, asynchronous, surface.cloud), RICH, read, tape)) >= 5


@both
@pytest.mark.scenario("adapters/Same chunks")
@every_api
def test_what_a_program_adds_to_a_request_is_sent_and_nothing_else(
    api: Api, asynchronous: bool, tape: TapeReader
) -> None:
    async def ask(client: Any) -> None:
        await drain(await resolved(api.send(client, extra_body={"mine": 1}, extra_headers={"x-mine": "1"})))

    same(api, asynchronous, ask, tape)


@both
@pytest.mark.scenario("adapters/Same chunks")
@every_api
def test_a_stream_is_the_sdks_own_class(api: Api, asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(PLAIN)

    async def look(client: Any) -> None:
        stream = await resolved(api.send(client))
        assert type(stream) is (api.sdk.AsyncStream if asynchronous else api.sdk.Stream)
        await resolved(stream.close())

    use(api.client_for(server, asynchronous), look)


@both
@pytest.mark.scenario("adapters/Same attributes")
@every_api
def test_every_public_attribute_of_a_streams_response_is_the_same(
    api: Api, asynchronous: bool, tape: TapeReader
) -> None:
    async def look(client: Any) -> Any:
        stream = await resolved(api.send(client))
        seen: list[Any] = [type(stream.response), stream.response.is_closed]
        await drain(stream)
        face = public_face(stream.response)
        # What stands in for the bytes is of the same kind.
        del face["stream"]
        return [*seen, face, kind_of(stream.response.stream), stream.response.is_closed]

    same(api, asynchronous, look, tape)


def kind_of(stream: Any) -> set[type]:
    return {kind for kind in type(stream).__mro__ if kind.__name__.endswith("ByteStream")} - {type(stream)}


@both
@pytest.mark.scenario("adapters/Same attributes")
@every_helper
def test_every_public_attribute_of_a_helper_is_the_same(api: Api, asynchronous: bool, tape: TapeReader) -> None:
    async def look(client: Any) -> Any:
        manager = api.helper(client)  # type: ignore[misc]  # of these each has one
        async with opened(manager) as stream:
            before = public_face(manager), public_face(stream), type(stream).__mro__
            await drain(stream)
            return before, public_face(stream)

    faces = same(api, asynchronous, look, tape)
    assert set(api.finals) <= faces[1].keys()


@both
@pytest.mark.scenario("adapters/Same attributes")
@every_helper
@pytest.mark.parametrize("first", ["until_done", "get_final"])
def test_helpers_bring_the_whole_answer(api: Api, first: str, asynchronous: bool, tape: TapeReader) -> None:
    async def finish(client: Any) -> Any:
        async with opened(api.helper(client)) as stream:  # type: ignore[misc]  # of these each has one
            if first == "until_done":
                await resolved(stream.until_done())
            whole = [await resolved(getattr(stream, final)()) for final in api.finals]
            return [value if isinstance(value, str) else value.model_dump(warnings=False) for value in whole]

    whole = same(api, asynchronous, finish, tape)
    assert "Hello" in str(whole)
    assert (tape.call()["status"], tape.text()) == ("completed", "Hello")


@both
@pytest.mark.scenario("adapters/Same attributes")
@every_sdk
def test_the_callers_context_variables_are_not_touched_by_a_raw_stream(
    api: Api, asynchronous: bool, tape: TapeReader
) -> None:
    async def watch(client: Any) -> bool:
        before = dict(contextvars.copy_context())
        response = await resolved(api.ask(api.resource(client).with_raw_response.create))
        unchanged = dict(contextvars.copy_context()) == before
        await drain(await resolved(response.parse()))
        return unchanged and dict(contextvars.copy_context()) == before

    assert same(api, asynchronous, watch, tape)


class MyChunk(ChatCompletionChunk):
    """A type of the program's own to parse chunks into."""


class MyEvent(anthropic.BaseModel):
    """A type of the program's own to parse events into."""

    type: str


class MyStream(openai.Stream[ChatCompletionChunk]):
    """A class of the program's own for streams."""


class MyAsyncStream(openai.AsyncStream[ChatCompletionChunk]):
    """A class of the program's own for streams."""


class MyEvents(anthropic.Stream[MyEvent]):
    """A class of the program's own for streams."""


class MyAsyncEvents(anthropic.AsyncStream[MyEvent]):
    """A class of the program's own for streams."""


def target(api: Api, name: str, asynchronous: bool) -> Any:
    """What to parse into; None for what the SDK would choose."""
    chunk, classes = (MyChunk, (MyStream, MyAsyncStream)) if api.sdk is openai else (MyEvent, (MyEvents, MyAsyncEvents))
    kind = api.sdk.AsyncStream if asynchronous else api.sdk.Stream
    return {"default": None, "chunk": kind[chunk], "stream": classes[asynchronous]}[name]


@both
@pytest.mark.scenario("adapters/Raw responses")
@every_sdk
@pytest.mark.parametrize("parsed_into", ["default", "chunk", "stream"])
@pytest.mark.parametrize("form", ["raw", "streaming"])
def test_raw_responses_parse_into_what_they_did_and_are_recorded(
    form: str, parsed_into: str, api: Api, asynchronous: bool, tape: TapeReader
) -> None:
    to = target(api, parsed_into, asynchronous)

    async def parse(response: Any) -> list[Any]:
        seen = [type(response), public_face(response), unread(response)]
        stream = await resolved(response.parse() if to is None else response.parse(to=to))
        seen += [type(stream), public_face(stream), unread(response)]
        return seen + dumped(await drain(stream))

    async def ask(client: Any) -> list[Any]:
        resource = api.resource(client)
        if form == "raw":
            return await parse(await resolved(api.ask(resource.with_raw_response.create)))
        async with opened(api.ask(resource.with_streaming_response.create)) as response:
            return await parse(response)

    seen = same(api, asynchronous, ask, tape)
    assert seen[2] == seen[5] == (0, False)
    assert (tape.call()["status"], tape.text(), tape.text("tool_args")) == ("completed", "Hello", '{"a":1}')


def unread(response: Any) -> tuple[int, bool]:
    """Bytes of the body that were read, and whether anybody began to."""
    return response.http_response.num_bytes_downloaded, response.http_response.is_stream_consumed


@both
@pytest.mark.scenario("adapters/Raw responses")
@every_sdk
def test_the_body_is_not_awaited_before_it_is_read(
    api: Api, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    parsed = threading.Event()
    server.add([WaitFor(parsed), *PLAIN])

    async def ask(client: Any) -> list[Any]:
        response = await resolved(api.ask(api.resource(client).with_raw_response.create))
        stream = await resolved(response.parse())
        parsed.set()
        return await drain(stream)

    assert len(use(api.client_for(server, asynchronous), ask)) >= 5
    assert (tape.call()["status"], tape.text()) == ("completed", "Hello")


@both
@every_sdk
def test_a_failure_is_the_same_exception_from_the_same_place(api: Api, asynchronous: bool, tmp_path: Path) -> None:
    """Its type, its words, what it came from, and the SDK's line that raised it."""

    async def fail(client: Any) -> Any:
        with pytest.raises(Exception) as caught:
            await drain(await resolved(api.send(client)))
        error = caught.value
        return type(error), str(error), type(error.__cause__), type(error.__context__), caught.traceback[-1].name

    def once() -> Any:
        return alone(lambda server: api.client_for(server, asynchronous), [Text("a"), (0.05, Drop())], fail)[0]

    reference = once()
    tokentape.enable(db=tmp_path / "tape.db")
    assert once() == reference
