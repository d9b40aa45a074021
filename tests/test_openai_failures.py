"""Requests and streams of the OpenAI SDK that fail: the program gets the SDK's own exception, the tape has the row."""

from __future__ import annotations

import json
import socket
from typing import Any

import openai
import pytest

from openai_surfaces import chat, client_for, completion, responses
from surfaces import drain, failure, opened, same_failure, use
from tape_reader import TapeReader
from tokentape.testing import ErrorEvent, Hang, HTTPError, ProviderServer, Raw, Script, Text
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
THREE = [Text("one "), Text("two "), Text("three")]


async def ask(client: Any) -> list[Any]:
    return await drain(await resolved(chat(client.chat.completions.create)))


async def ask_responses(client: Any) -> list[Any]:
    return await drain(await resolved(responses(client.responses.create)))


async def ask_completions(client: Any) -> list[Any]:
    return await drain(await resolved(completion(client.completions.create)))


async def ask_raw(client: Any) -> Any:
    return await resolved(chat(client.chat.completions.with_raw_response.create))


async def ask_streaming(client: Any) -> Any:
    async with opened(chat(client.chat.completions.with_streaming_response.create)) as response:
        return response


async def ask_whole(client: Any) -> Any:
    return await resolved(client.chat.completions.create(model="m", messages=[]))


@both
@pytest.mark.scenario("adapters/Wrong key")
@pytest.mark.parametrize("body", [ask, ask_responses, ask_completions, ask_raw, ask_streaming, ask_whole])
def test_a_wrong_key(body: Any, asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([HTTPError(401, "Incorrect API key provided")], repeat=True))
    kind = same_failure(lambda: client_for(server, asynchronous), body)
    call = tape.call()
    assert kind is openai.AuthenticationError
    assert {name: call[name] for name in ("status", "error_type", "http_status", "retries", "provider_request_id")} == {
        "status": "error",
        "error_type": "AuthenticationError",
        "http_status": 401,
        "retries": 0,
        "provider_request_id": "req_000001",
    }
    assert "Incorrect API key provided" in call["error_message"]
    assert (call["chunk_count"], call["event_count"], tape.tokens()) == (0, 0, [])
    assert call["duration_ms"] > 0
    assert (call["headers_latency_ms"], call["retry_ms"]) == (None, None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequestError"), (404, "NotFoundError"), (429, "RateLimitError"), (503, "InternalServerError")],
)
def test_other_refusals(status: int, kind: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add([HTTPError(status, headers={"x-ratelimit-remaining-requests": "0", "retry-after": "7"})])
    failure(client_for(server, False), ask)
    call = tape.call()
    assert (call["status"], call["http_status"], call["error_type"], call["retries"]) == ("error", status, kind, 0)
    meta = {"x-ratelimit-remaining-requests": "0", "retry-after": "7"}
    assert json.loads(call["response_meta_json"]) == meta


@both
@pytest.mark.scenario("adapters/Nobody listens")
def test_nobody_listens(asynchronous: bool, tape: TapeReader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    assert failure(kind(base_url=url, api_key="none", max_retries=2), ask)[0] is openai.APIConnectionError
    call = tape.call()
    assert (call["status"], call["error_type"], call["retries"]) == ("error", "APIConnectionError", 2)
    assert (call["http_status"], call["provider_request_id"], call["server_address"]) == (None, None, "127.0.0.1")
    assert (call["headers_latency_ms"], call["retry_ms"], call["first_chunk_latency_ms"]) == (None, None, None)
    # The SDK waited between its attempts.
    assert call["duration_ms"] > 300


@both
def test_no_answer_in_time(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([Text("late")], headers_delay=5.0))
    failure(client_for(server, asynchronous, timeout=0.2), ask)
    call = tape.call()
    assert (call["status"], call["error_type"], call["http_status"]) == ("error", "APITimeoutError", None)
    assert call["duration_ms"] >= 200


@both
@pytest.mark.scenario("adapters/Error inside the stream")
def test_an_error_inside_a_chat_stream(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([*THREE, ErrorEvent("server_error", "The server had an error")], repeat=True))
    assert same_failure(lambda: client_for(server, asynchronous), ask) is openai.APIError
    call = tape.call()
    assert (call["status"], call["error_type"], call["http_status"]) == ("error", "APIError", 200)
    assert call["error_message"] == "The server had an error"
    assert (call["event_count"], call["chunk_count"], tape.text()) == (3, 3, "one two three")


@both
@pytest.mark.scenario("adapters/Error inside the stream")
def test_an_error_inside_a_responses_stream(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    """The SDK hands it over as an event and then ends the stream as if nothing had happened."""
    server.add([*THREE, ErrorEvent("server_error", "The server had an error", "overloaded")])
    events = use(client_for(server, asynchronous), ask_responses)
    call = tape.call()
    assert events[-1].type == "error"
    assert (call["status"], call["error_type"]) == ("error", "overloaded")
    assert call["error_message"] == "The server had an error"
    assert (call["event_count"], tape.text()) == (3, "one two three")


@both
def test_a_line_that_is_no_json(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([*THREE, Raw(b"data: {broken\n\n"), Text("never read")], repeat=True))
    kind = same_failure(lambda: client_for(server, asynchronous), ask)
    call = tape.call()
    assert (call["status"], call["error_type"]) == ("error", kind.__qualname__)
    assert tape.text() == "one two three"


@both
def test_silence_longer_than_the_read_timeout(asynchronous: bool, server: ProviderServer, tape: TapeReader) -> None:
    server.add(Script([*THREE, Hang(5.0)], repeat=True))
    kind = same_failure(lambda: client_for(server, asynchronous, timeout=0.3), ask)
    call = tape.call()
    assert (call["status"], call["error_type"]) == ("error", kind.__qualname__)
    assert call["tail_gap_ms"] >= 290


@both
def test_a_helper_that_fails_by_itself_is_left_alone(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    """The SDK's own `stream()` cannot read a delta that is null; the exception is its own, the row keeps what came."""
    choice = {"index": 0, "delta": None, "finish_reason": None}
    broken = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    server.add(Script([Text("one"), Raw(broken), Text("never read")], repeat=True))

    async def read(client: Any) -> Any:
        async with opened(client.chat.completions.stream(model="m", messages=[])) as events:
            return await drain(events)

    kind = same_failure(lambda: client_for(server, asynchronous), read)
    call = tape.call()
    assert (call["status"], call["error_type"], tape.text()) == ("abandoned", kind.__qualname__, "one")
