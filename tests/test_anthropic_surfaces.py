"""Each surface of the Anthropic SDK that reaches a model makes one row of its calls, and no other request makes any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anthropic_surfaces import ASKED, LINES, MODEL, SURFACES, client_for, stream
from surfaces import Surface, drain, opened, use
from tape_reader import TapeReader
from tokentape.testing import Finish, ProviderServer, Raw, Role, Script, Text, ToolArgs, ToolCall, Usage
from tokentape.testing.rig import resolved

ANSWER = [Role(), *(Text(f"word{i} ") for i in range(6)), Finish("stop"), Usage(12, 6, cached=4, cache_write=3)]
TEXT = "".join(f"word{i} " for i in range(6))
ARGUMENTS = (ToolArgs(0, '{"city": '), ToolArgs(0, '"Oslo"}'))
# What the SDK hands over of it: beginnings and ends of message and block, the words, and the message's delta.
CHUNKS = 1 + 1 + 6 + 1 + 1 + 1

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
streaming_surfaces = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
with_lines = pytest.mark.parametrize("surface", SURFACES + LINES, ids=lambda surface: surface.name)


@both
@pytest.mark.scenario("adapters/Every streaming surface", "adapters/Every Anthropic surface")
@with_lines
def test_every_streaming_surface_is_one_row_with_each_chunk_once(
    surface: Surface, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(ANSWER)
    seen = use(client_for(server, asynchronous, surface.cloud), surface.read)

    call = tape.call()
    assert seen
    assert {
        name: call[name]
        for name in (
            *("status", "streaming", "operation", "server_address", "adapter", "layer", "provider", "request_model"),
            *("response_id", "provider_request_id", "http_status", "retries", "finish_reason"),
        )
    } == {
        "status": "completed",
        "streaming": 1,
        "operation": "messages",
        "server_address": "127.0.0.1",
        "adapter": "anthropic",
        "layer": "sdk",
        "provider": surface.provider,
        "request_model": MODEL,
        "response_id": "msg_000001",
        "provider_request_id": "req_000001",
        "http_status": 200,
        "retries": 0,
        "finish_reason": "end_turn",
    }
    assert (call["chunk_count"], call["event_count"], tape.text()) == (CHUNKS, 6, TEXT)
    assert [row["token_index"] for row in tape.tokens()] == list(range(6))
    assert [call[name] for name in ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")] == [
        *(12, 4, 3, 6)
    ]


@both
@pytest.mark.parametrize("method", ["until_done", "get_final_message", "get_final_text", "text_stream"])
@pytest.mark.parametrize("beta", [False, True], ids=["stable", "beta"])
def test_every_helper_of_a_stream_reads_it_to_its_end(
    method: str, beta: bool, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(ANSWER)

    async def read(client: Any) -> Any:
        async with opened((client.beta if beta else client).messages.stream(**ASKED)) as events:
            if method == "text_stream":
                return "".join(await drain(events.text_stream))
            return await resolved(getattr(events, method)())

    result = use(client_for(server, asynchronous), read)
    texts = {"until_done": None, "get_final_message": TEXT, "get_final_text": TEXT, "text_stream": TEXT}
    assert (result.content[0].text if method == "get_final_message" else result) == texts[method]
    assert (tape.call()["status"], tape.call()["event_count"], tape.text()) == ("completed", 6, TEXT)


@both
def test_a_helper_left_half_way_is_an_abandoned_row(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add([Text("one "), Text("two"), (5.0, Text("late"))])

    async def read(client: Any) -> None:
        async with opened(client.messages.stream(**ASKED)) as events:
            texts = events.text_stream
            for _ in range(2):
                await anext(texts) if asynchronous else next(texts)

    use(client_for(server, asynchronous), read)
    call = tape.call()
    assert (call["status"], tape.text(), server.requests[0].outcome()) == ("abandoned", "one two", "left")


@both
def test_each_turn_of_the_tool_runner_is_a_row(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    from anthropic import beta_async_tool, beta_tool

    server.add(
        [ToolCall(0, "toolu_1", "weather"), *ARGUMENTS, Finish("tool_calls"), Usage(20, 9)],
        [Text("Rain."), Finish("stop"), Usage(30, 2)],
    )

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"

    async def weather_async(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}"

    tool = beta_async_tool(name="weather")(weather_async) if asynchronous else beta_tool(weather)

    async def read_turn_by_turn(client: Any) -> None:
        runner = client.beta.messages.tool_runner(**ASKED, tools=[tool], stream=True)
        if asynchronous:
            async for turn in runner:
                await drain(turn)
        else:
            for turn in runner:
                await drain(turn)

    use(client_for(server, asynchronous), read_turn_by_turn)
    assert [(call["status"], call["finish_reason"], call["output_tokens"]) for call in tape.calls()] == [
        ("completed", "tool_use", 9),
        ("completed", "end_turn", 2),
    ]
    assert [(part["kind"], part["name"], part["external_id"], part["content"]) for part in tape.parts()] == [
        ("tool_args", "weather", "toolu_1", '{"city": "Oslo"}'),
        ("text", None, None, "Rain."),
    ]
    assert b"rain in Oslo" in server.requests[1].body


@both
@pytest.mark.scenario("adapters/Not streamed")
@pytest.mark.parametrize("form", ["direct", "raw", "streaming", "beta", "Foundry", "Vertex", "Bedrock"])
def test_an_answer_in_one_piece_is_one_row_without_token_rows(
    form: str, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script(ANSWER, headers_delay=0.05))

    async def ask(client: Any) -> Any:
        if form == "streaming":
            async with opened(client.messages.with_streaming_response.create(**ASKED)) as response:
                return await resolved(response.parse())
        if form == "raw":
            return await resolved((await resolved(client.messages.with_raw_response.create(**ASKED))).parse())
        return await resolved((client.beta if form == "beta" else client).messages.create(**ASKED))

    answer = use(client_for(server, asynchronous, form if form.istitle() else ""), ask)

    call = tape.call()
    assert answer.content[0].text == TEXT
    assert {name: call[name] for name in ("status", "streaming", "operation", "response_id", "finish_reason")} == {
        "status": "completed",
        "streaming": 0,
        "operation": "messages",
        "response_id": answer.id,
        "finish_reason": "end_turn",
    }
    assert (call["input_tokens"], call["cached_input_tokens"], call["token_count"]) == (12, 4, 6)
    assert call["duration_ms"] >= call["headers_latency_ms"] >= 50
    assert (call["chunk_count"], call["event_count"], tape.tokens(), tape.parts()) == (0, 0, [], [])


@both
@pytest.mark.scenario("adapters/Other requests")
def test_requests_that_reach_no_model_make_no_row(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Raw({"data": [], "has_more": False})], path="/models")
    server.add([Raw({"input_tokens": 3})], path="/messages/count_tokens")

    async def ask(client: Any) -> None:
        await resolved(client.models.list())
        await resolved(client.messages.count_tokens(model=MODEL, messages=ASKED["messages"]))

    use(client_for(server, asynchronous), ask)
    assert [request.path for request in server.requests] == ["/v1/models", "/v1/messages/count_tokens"]
    assert tape.calls() == []


@both
@pytest.mark.scenario("adapters/Headers only")
def test_reading_headers_only_leaves_one_row_without_token_rows(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(ANSWER)

    async def look(client: Any) -> Any:
        async with opened(stream(client.messages.with_streaming_response.create)) as response:
            return response.headers["request-id"]

    assert use(client_for(server, asynchronous), look) == "req_000001"
    assert (tape.call()["status"], tape.call()["event_count"]) == ("abandoned", 0)


@both
def test_request_and_response_parameters_are_kept_by_allow_list(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    headers = {
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-organization-id": "org-of-somebody",
    }
    server.add(Script(ANSWER, headers=headers))
    asked = {
        "metadata": {"user_id": "somebody"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "extra_body": {"temperature": 0.5, "output_config": {"effort": "low"}, "mine": "hidden"},
    }

    async def ask(client: Any) -> None:
        await drain(await resolved(stream(client.messages.create, **asked)))

    use(client_for(server, asynchronous), ask)
    call = tape.call()
    assert json.loads(call["request_json"]) == {
        "model": MODEL,
        "max_tokens": 50,
        "stream": True,
        "temperature": 0.5,
        "effort": "low",
        "thinking_budget_tokens": 1024,
    }
    assert json.loads(call["response_meta_json"]) == {
        "anthropic-ratelimit-requests-remaining": "49",
        "service_tier": "standard",
    }
    assert call["prompt_json"] is None
