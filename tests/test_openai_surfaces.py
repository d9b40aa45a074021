"""Each surface of the OpenAI SDK that reaches a model makes one row of its calls, and no other request makes any."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tokentape
from openai_surfaces import LINES, MESSAGES, MODEL, SURFACES, chat, client_for, completion, responses
from surfaces import Surface, drain, opened, use
from tape_reader import TapeReader
from tokentape.testing import Finish, ProviderServer, Raw, Role, Script, Text, Usage
from tokentape.testing.rig import resolved

ANSWER = [Role(), *(Text(f"word{i} ") for i in range(6)), Finish("stop"), Usage(12, 6)]
TEXT = "".join(f"word{i} " for i in range(6))
NO_STREAM = {"chat": "chat.completion", "text_completion": "text_completion", "responses": "response"}

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def frames(server: ProviderServer) -> list[dict[str, Any]]:
    """The JSON of everything the server streamed in answer to the last request."""
    payloads = [sent.data.partition(b"data: ")[2].strip() for sent in server.requests[-1].sent]
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def response_id(frame: dict[str, Any]) -> str:
    return frame.get("response", frame)["id"]


@both
@pytest.mark.scenario("adapters/Every streaming surface")
@pytest.mark.parametrize("surface", SURFACES + LINES, ids=lambda surface: surface.name)
def test_every_streaming_surface_is_one_row_with_each_chunk_once(
    surface: Surface, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    # A response that is resumed after its first events still says all of its ids at its end.
    server.add(ANSWER)
    seen = use(client_for(server, asynchronous, surface.cloud), surface.read)

    call, sent = tape.call(), frames(server)
    assert seen
    assert {
        name: call[name] for name in ("status", "streaming", "operation", "server_address", "adapter", "layer")
    } == {
        "status": "completed",
        "streaming": 1,
        "operation": surface.operation,
        "server_address": "127.0.0.1",
        "adapter": "openai",
        "layer": "sdk",
    }
    assert call["provider"] == surface.provider
    # Fetching a response names no model: there it is the answer that does.
    assert call["request_model"] == (MODEL if server.requests[-1].method == "POST" else None)
    assert call["response_model"] == sent[-1].get("response", sent[-1])["model"]
    assert call["response_id"] == response_id(sent[-1])
    assert call["provider_request_id"] == "req_000001"
    assert (call["http_status"], call["retries"], call["finish_reason"]) == (
        200,
        0,
        "completed" if surface.operation == "responses" else "stop",
    )
    assert (call["chunk_count"], call["event_count"], tape.text()) == (len(sent), 6, TEXT)
    assert [row["token_index"] for row in tape.tokens()] == list(range(6))
    assert (call["input_tokens"], call["output_tokens"]) == (12, 6)


@both
@pytest.mark.scenario("adapters/Not streamed")
@pytest.mark.parametrize("operation", ["chat", "text_completion", "responses"])
@pytest.mark.parametrize("form", ["direct", "raw", "streaming"])
def test_an_answer_in_one_piece_is_one_row_without_token_rows(
    operation: str, form: str, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script(ANSWER, headers_delay=0.05))

    async def ask(client: Any) -> Any:
        resource = {
            "chat": client.chat.completions,
            "text_completion": client.completions,
            "responses": client.responses,
        }[operation]
        if form == "streaming":
            async with opened(plain(operation, resource.with_streaming_response.create)) as response:
                return await resolved(response.parse())
        if form == "raw":
            return (await resolved(plain(operation, resource.with_raw_response.create))).parse()
        return await resolved(plain(operation, resource.create))

    answer = use(client_for(server, asynchronous), ask)

    call = tape.call()
    assert answer.object == NO_STREAM[operation]
    assert {name: call[name] for name in ("status", "streaming", "operation", "response_id", "response_model")} == {
        "status": "completed",
        "streaming": 0,
        "operation": operation,
        "response_id": answer.id,
        "response_model": answer.model,
    }
    assert (call["input_tokens"], call["output_tokens"], call["token_count"]) == (12, 6, 6)
    assert call["finish_reason"] == ("completed" if operation == "responses" else "stop")
    assert (call["http_status"], call["provider_request_id"]) == (200, "req_000001")
    assert call["duration_ms"] >= call["headers_latency_ms"] >= 50
    assert (call["chunk_count"], call["event_count"]) == (0, 0)
    assert tape.tokens() == []
    assert tape.parts() == []


def plain(operation: str, create: Any) -> Any:
    asked = {"responses": {"input": "hi"}, "chat": {"messages": MESSAGES}, "text_completion": {"prompt": "hi"}}
    return create(model=MODEL, **asked[operation])


@both
def test_a_chat_completion_parsed_into_a_type_is_one_row(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add([Text("{}"), Finish("stop"), Usage(1, 1)])

    async def ask(client: Any) -> Any:
        return await resolved(client.chat.completions.parse(model=MODEL, messages=MESSAGES))

    assert use(client_for(server, asynchronous), ask).choices[0].message.content == "{}"
    assert (tape.call()["status"], tape.call()["streaming"]) == ("completed", 0)


@both
@pytest.mark.scenario("adapters/Other requests")
def test_requests_that_reach_no_model_make_no_row(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add([Raw({"object": "list", "data": []})], path="/models")
    server.add([Raw({"object": "list", "data": [], "model": "m", "usage": {}})], path="/embeddings")
    server.add(Script(ANSWER), Script([Raw({"id": "resp_1", "object": "response.deleted", "deleted": True})]))

    async def ask(client: Any) -> None:
        await resolved(client.models.list())
        await resolved(client.embeddings.create(model="m", input="hi", encoding_format="float"))
        # A stored response: fetched whole it was made by an earlier request, and deleting it asks no model.
        await resolved(client.responses.retrieve("resp_1"))
        await resolved(client.responses.delete("resp_1"))

    use(client_for(server, asynchronous), ask)
    assert [request.path for request in server.requests] == [
        "/v1/models",
        "/v1/embeddings",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1",
    ]
    assert tape.calls() == []


def raw_forms(operation: str, client: Any) -> tuple[Any, Any]:
    """The request by `with_raw_response`, and the context manager by `with_streaming_response`."""
    resource, ask = {
        "chat": (client.chat.completions, chat),
        "text_completion": (client.completions, completion),
        "responses": (client.responses, responses),
    }[operation]
    return lambda: ask(resource.with_raw_response.create), lambda: ask(resource.with_streaming_response.create)


@both
@pytest.mark.scenario("adapters/Headers only")
@pytest.mark.parametrize("operation", ["chat", "text_completion", "responses"])
def test_reading_headers_only_leaves_one_row_without_token_rows(
    operation: str, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(Script([*ANSWER, (5.0, Text("late"))], headers={"x-shown": "yes"}, repeat=True))

    async def look(client: Any) -> list[str]:
        raw, streaming = raw_forms(operation, client)
        response = await resolved(raw())
        shown = [response.headers["x-shown"]]
        await resolved(response.http_response.aclose() if asynchronous else response.http_response.close())
        async with opened(streaming()) as response:
            shown.append(response.headers["x-shown"])
        return shown

    assert use(client_for(server, asynchronous), look) == ["yes", "yes"]
    assert [call["status"] for call in tape.calls()] == ["abandoned", "abandoned"]
    assert [call["provider_request_id"] for call in tape.calls()] == ["req_000001", "req_000002"]
    assert tape.tokens() == []


@both
def test_a_raw_response_made_before_recording_began_is_recorded(
    asynchronous: bool, server: ProviderServer, tmp_path: Any
) -> None:
    # The SDK keeps the bound method it found at the first access.
    client = client_for(server, asynchronous)
    create = client.chat.completions.with_raw_response.create
    server.add(ANSWER)
    tokentape.enable(db=tmp_path / "tape.db")

    async def read(_: Any) -> list[Any]:
        response = await resolved(chat(create))
        return await drain(await resolved(response.parse()))

    use(client, read)
    tape = TapeReader(tmp_path / "tape.db")
    assert (tape.call()["status"], tape.text()) == ("completed", TEXT)


@both
def test_parsing_a_raw_response_twice_gives_the_same_stream_recorded_once(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    server.add(ANSWER)

    async def read(client: Any) -> bool:
        response = await resolved(chat(client.chat.completions.with_raw_response.create))
        first, second = await resolved(response.parse()), await resolved(response.parse())
        await drain(first)
        return first is second

    assert use(client_for(server, asynchronous), read)
    assert (tape.call()["event_count"], tape.text()) == (6, TEXT)


@both
def test_request_and_response_parameters_are_kept_by_allow_list(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    headers = {
        "openai-processing-ms": "41",
        "x-ratelimit-remaining-tokens": "9000",
        "openai-organization": "org-of-somebody",
        "set-cookie": "session=secret",
    }
    server.add(Script(ANSWER, headers=headers))

    async def ask(client: Any) -> None:
        await drain(
            await resolved(
                client.chat.completions.create(
                    model=MODEL,
                    messages=MESSAGES,
                    stream=True,
                    temperature=0.5,
                    max_tokens=9,
                    seed=7,
                    user="somebody",
                    extra_body={"top_p": 0.25, "mine": "hidden"},
                )
            )
        )

    use(client_for(server, asynchronous), ask)
    call = tape.call()
    assert json.loads(call["request_json"]) == {
        "model": MODEL,
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 7,
        "top_p": 0.25,
    }
    assert json.loads(call["response_meta_json"]) == {
        "openai-processing-ms": "41",
        "x-ratelimit-remaining-tokens": "9000",
    }
    assert call["prompt_json"] is None
