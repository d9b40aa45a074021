"""Whatever a program sends and gets through the OpenAI SDK is what it would send and get without recording."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

import tokentape
from openai_surfaces import MESSAGES, MODEL, SURFACES, chat, client_for, completion, responses
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
from tokentape.testing.log import Request
from tokentape.testing.rig import END, resolved

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
RICH = [
    Role(),
    Ping(),
    Reasoning("hm "),
    Text("Hel"),
    Text("lo", logprobs=(Logprob("lo", -0.5, top=(("la", -1.5),)),)),
    Refusal("no"),
    ToolCall(0, "call_1", "look"),
    ToolArgs(0, '{"a":'),
    ToolArgs(0, "1}"),
    Finish("tool_calls"),
    Usage(30, 12, cached=5, reasoning=1),
]
DIRECT = {"chat": chat, "text_completion": completion, "responses": responses}
END_OF = {"chat": "get_final_completion", "responses": "get_final_response"}

Body = Callable[[Any], Awaitable[Any]]


def script_for(operation: str) -> list[Any]:
    return PLAIN if operation == "text_completion" else RICH


def alone(operation: str, asynchronous: bool, body: Body, cloud: str = "") -> tuple[Any, list[Request]]:
    """What a program gets from a server that nobody has asked before, and what that server received."""
    with ProviderServer() as server:
        server.add(script_for(operation))
        return use(client_for(server, asynchronous, cloud), body), server.requests


def with_and_without(operation: str, asynchronous: bool, body: Body, tape: TapeReader, cloud: str = "") -> Any:
    """The same, recorded and not, and equal but for the server's port; the first of the two."""
    recorded, sent = alone(operation, asynchronous, body, cloud)
    assert len(tape.calls()) == 1
    tokentape.disable()
    reference, sent_unrecorded = alone(operation, asynchronous, body, cloud)
    assert recorded == reference
    assert [as_sent(request) for request in sent] == [as_sent(request) for request in sent_unrecorded]
    return recorded


def as_sent(request: Request) -> Any:
    headers = {name: value for name, value in request.headers.items() if name != "host"}
    return request.method, request.path, request.query, headers, request.body


@both
@pytest.mark.scenario("adapters/Same chunks")
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_chunks_and_request_bytes_are_the_same(surface: Surface, asynchronous: bool, tape: TapeReader) -> None:
    async def dumped(client: Any) -> list[Any]:
        return [(type(chunk), chunk.model_dump(warnings=False)) for chunk in await surface.read(client)]

    chunks = with_and_without(surface.operation, asynchronous, dumped, tape, surface.cloud)
    assert len(chunks) >= 5


@both
@pytest.mark.scenario("adapters/Same chunks")
@pytest.mark.parametrize("options", [None, {"include_usage": True}, {"include_usage": False}])
def test_nothing_is_asked_for_on_the_programs_behalf(
    options: dict[str, bool] | None, asynchronous: bool, tape: TapeReader
) -> None:
    async def ask(client: Any) -> Any:
        given = {} if options is None else {"stream_options": options}
        stream = await resolved(
            client.chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                stream=True,
                extra_body={"mine": 1},
                extra_headers={"x-mine": "1"},
                **given,
            )
        )
        return len(await drain(stream))

    with_and_without("chat", asynchronous, ask, tape)


@both
@pytest.mark.scenario("adapters/Same chunks")
@pytest.mark.parametrize("operation", DIRECT)
def test_a_stream_is_the_sdks_own_class(
    operation: str, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(PLAIN)
    kind = openai.AsyncStream if asynchronous else openai.Stream

    async def look(client: Any) -> None:
        stream = await resolved(send(operation, client))
        assert type(stream) is kind
        await resolved(stream.close())

    use(client_for(server, asynchronous), look)


def send(operation: str, client: Any) -> Any:
    resource = {"chat": client.chat.completions, "text_completion": client.completions, "responses": client.responses}
    return DIRECT[operation](resource[operation].create)


def public_face(value: Any) -> dict[str, Any]:
    """Every public attribute: whether it is there, can be called, and is a coroutine function."""
    return {name: _traits(value, name) for name in dir(value) if not name.startswith("_")}


def _traits(value: Any, name: str) -> Any:
    try:
        found = getattr(value, name)
    except Exception as missing:
        return type(missing)
    return type(found), callable(found), inspect.iscoroutinefunction(found), inspect.isasyncgenfunction(found)


@both
@pytest.mark.scenario("adapters/Same attributes")
@pytest.mark.parametrize("operation", DIRECT)
def test_every_public_attribute_of_a_stream_is_the_same(operation: str, asynchronous: bool, tape: TapeReader) -> None:
    async def look(client: Any) -> Any:
        stream = await resolved(send(operation, client))
        before = public_face(stream), type(stream).__mro__, isinstance(iter_of(stream), object)
        await drain(stream)
        response = public_face(stream.response)
        # What stands in for the bytes is of the same kind.
        del response["stream"]
        return before, public_face(stream), response, kind_of(stream.response.stream)

    faces = with_and_without(operation, asynchronous, look, tape)
    assert {"close", "response"} <= faces[0][0].keys()


def kind_of(stream: Any) -> set[type]:
    return {kind for kind in type(stream).__mro__ if kind.__name__.endswith("ByteStream")} - {type(stream)}


def iter_of(stream: Any) -> Any:
    return stream.__aiter__() if hasattr(stream, "__aiter__") else iter(stream)


@both
@pytest.mark.scenario("adapters/Same attributes")
@pytest.mark.parametrize("operation", END_OF)
def test_every_public_attribute_of_a_helper_is_the_same(operation: str, asynchronous: bool, tape: TapeReader) -> None:
    async def look(client: Any) -> Any:
        manager = helper(operation, client)
        async with opened(manager) as stream:
            before = public_face(manager), public_face(stream), type(stream).__mro__
            await drain(stream)
            return before, public_face(stream)

    faces = with_and_without(operation, asynchronous, look, tape)
    assert END_OF[operation] in faces[1]


def helper(operation: str, client: Any) -> Any:
    if operation == "chat":
        return client.chat.completions.stream(model=MODEL, messages=MESSAGES)
    return client.responses.stream(model=MODEL, input="hi")


@both
@pytest.mark.scenario("adapters/Same attributes")
@pytest.mark.parametrize("operation", DIRECT)
def test_a_stream_is_iterated_entered_and_closed_as_before(
    operation: str, asynchronous: bool, tape: TapeReader
) -> None:
    async def behave(client: Any) -> list[Any]:
        stream = await resolved(send(operation, client))
        seen: list[Any] = [
            type(iter_of(stream)),
            iter_of(stream) is stream,
            type(stream.response),
            stream.response.is_closed,
        ]
        seen.append((await next_of(stream)).model_dump(warnings=False))
        async with opened(stream) as entered:
            seen += [entered is stream, (await next_of(iter_of(stream))).model_dump(warnings=False)]
            seen += [chunk.model_dump(warnings=False) for chunk in await drain(stream)]
        seen += [await next_of(stream) is END, await drain(stream), stream.response.is_closed]
        seen.append(await resolved(stream.close()))
        return seen

    with_and_without(operation, asynchronous, behave, tape)


async def next_of(stream: Any) -> Any:
    return await anext(stream, END) if hasattr(stream, "__anext__") else next(stream, END)


@both
@pytest.mark.scenario("adapters/Same attributes")
@pytest.mark.parametrize("operation", END_OF)
@pytest.mark.parametrize("first", ["until_done", "get_final"])
def test_helpers_bring_the_whole_answer(operation: str, first: str, asynchronous: bool, tape: TapeReader) -> None:
    async def finish(client: Any) -> Any:
        async with opened(helper(operation, client)) as stream:
            if first == "until_done":
                await resolved(stream.until_done())
            return (await resolved(getattr(stream, END_OF[operation])())).model_dump(warnings=False)

    whole = with_and_without(operation, asynchronous, finish, tape)
    assert "Hello" in str(whole)
    assert tape.call()["status"] == "completed"
    assert tape.text() == "Hello"


@both
@pytest.mark.scenario("adapters/Same attributes")
def test_the_callers_context_variables_are_not_touched_by_a_raw_stream(asynchronous: bool, tape: TapeReader) -> None:
    async def watch(client: Any) -> bool:
        before = dict(contextvars.copy_context())
        response = await resolved(chat(client.chat.completions.with_raw_response.create))
        unchanged = dict(contextvars.copy_context()) == before
        await drain(await resolved(response.parse()))
        return unchanged and dict(contextvars.copy_context()) == before

    assert with_and_without("chat", asynchronous, watch, tape)


class MyChunk(ChatCompletionChunk):
    """A type of the program's own to parse chunks into."""


class MyStream(openai.Stream[ChatCompletionChunk]):
    """A class of the program's own for streams."""


class MyAsyncStream(openai.AsyncStream[ChatCompletionChunk]):
    """A class of the program's own for streams."""


def targets(asynchronous: bool) -> dict[str, Any]:
    """What to parse into."""
    return {
        "default": None,
        "chunk": openai.AsyncStream[MyChunk] if asynchronous else openai.Stream[MyChunk],
        "stream": MyAsyncStream if asynchronous else MyStream,
    }


@both
@pytest.mark.scenario("adapters/Raw responses")
@pytest.mark.parametrize("target", ["default", "chunk", "stream"])
@pytest.mark.parametrize("form", ["raw", "streaming"])
def test_raw_responses_parse_into_what_they_did_and_are_recorded(
    form: str, target: str, asynchronous: bool, tape: TapeReader
) -> None:
    to = targets(asynchronous)[target]

    async def parse(response: Any) -> list[Any]:
        seen = [type(response), public_face(response), unread(response)]
        stream = await resolved(response.parse() if to is None else response.parse(to=to))
        seen += [type(stream), public_face(stream), unread(response)]
        return seen + [(type(chunk), chunk.model_dump(warnings=False)) for chunk in await drain(stream)]

    async def ask(client: Any) -> list[Any]:
        completions = client.chat.completions
        if form == "raw":
            return await parse(await resolved(chat(completions.with_raw_response.create)))
        async with opened(chat(completions.with_streaming_response.create)) as response:
            return await parse(response)

    seen = with_and_without("chat", asynchronous, ask, tape)
    assert seen[2] == seen[5] == (0, False)
    assert (tape.call()["status"], tape.text(), tape.text("tool_args")) == ("completed", "Hello", '{"a":1}')


def unread(response: Any) -> tuple[int, bool]:
    """Bytes of the body that were read, and whether anybody began to."""
    return response.http_response.num_bytes_downloaded, response.http_response.is_stream_consumed


@both
@pytest.mark.scenario("adapters/Raw responses")
def test_the_body_is_not_awaited_before_it_is_read(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    parsed = threading.Event()
    server.add([WaitFor(parsed), *PLAIN])

    async def ask(client: Any) -> int:
        response = await resolved(chat(client.chat.completions.with_raw_response.create))
        stream = await resolved(response.parse())
        parsed.set()
        return len(await drain(stream))

    assert use(client_for(server, asynchronous), ask) == 6
    assert tape.call()["status"] == "completed"


@both
def test_a_failure_is_the_same_exception_from_the_same_place(asynchronous: bool, tmp_path: Path) -> None:
    """Its type, its words, what it came from, and the SDK's line that raised it."""

    async def fail(client: Any) -> Any:
        with pytest.raises(Exception) as caught:
            await drain(await resolved(send("chat", client)))
        error = caught.value
        return type(error), str(error), type(error.__cause__), type(error.__context__), caught.traceback[-1].name

    def once() -> Any:
        with ProviderServer() as server:
            server.add([Text("a"), (0.05, Drop())])
            return use(client_for(server, asynchronous), fail)

    reference = once()
    tokentape.enable(db=tmp_path / "tape.db")
    assert once() == reference
