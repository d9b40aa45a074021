"""Queue, pace, faults, log and closing of the provider server, seen by the real OpenAI SDK and a plain client."""

from __future__ import annotations

import asyncio
import http.client
import json
import textwrap
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import openai
import pytest

import tokentape.testing
from tokentape.testing import (
    WIRES,
    Drop,
    ErrorEvent,
    Finish,
    Hang,
    HTTPError,
    NoDone,
    Ping,
    ProviderServer,
    Raw,
    Script,
    Summary,
    Text,
    WaitFor,
    Wire,
)

HELLO = [Text("Hel"), Text("lo"), Finish()]
DROPPED = {"APIConnectionError", "RemoteProtocolError"}  # openai 3 wraps what httpx raises, openai 2 does not


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def client(server: ProviderServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=20) as client:
        yield client


def chat(client, model="m", **more):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], **more)


def text_of(chunks) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def open_stream(server: ProviderServer) -> http.client.HTTPResponse:
    """A streamed answer as a client without an SDK sees it."""
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "stream": True}))
    return connection.getresponse()


def arrivals(response: http.client.HTTPResponse) -> Iterator[tuple[bytes, int]]:
    """Each server-sent event with the time at which its last byte came."""
    lines = b""
    while line := response.readline():
        lines += line
        if line == b"\n":
            yield lines, time.perf_counter_ns()
            lines = b""


def test_example_in_the_documentation_runs():
    lines = tokentape.testing.__doc__.splitlines()

    exec(textwrap.dedent("\n".join(line for line in lines if line.startswith("    "))), {})


def test_request_log_holds_what_the_sdk_sent(server, client):
    server.add(HELLO)

    assert text_of(chat(client, stream=True)) == "Hello"

    (request,) = server.requests
    assert (request.number, request.method, request.path, request.query) == (1, "POST", "/v1/chat/completions", {})
    assert request.json == {"messages": [{"role": "user", "content": "Hi"}], "model": "m", "stream": True}
    assert len(request.body) == int(request.headers["content-length"])
    assert (request.headers["authorization"], request.model) == ("Bearer none", "m")
    assert request.outcome() == "answered"


def test_scripts_are_used_in_turn_and_repeating_ones_stay(server, client):
    server.add([Text("one")], [Text("two")], Script([Text("again")], repeat=True))

    assert [text_of(chat(client, stream=True)) for _ in range(4)] == ["one", "two", "again", "again"]


def test_scripts_for_a_model_make_parallel_calls_deterministic(server):
    async def ask(model: str) -> str:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            return text_of([chunk async for chunk in await chat(client, model, stream=True)])

    async def ask_both() -> list[str]:
        return await asyncio.gather(ask("slow"), ask("fast"))

    server.add([Text("f"), (0.02, Text("ast"))], model="fast")
    server.add([(0.05, Text("slow"))], model="slow")

    assert asyncio.run(ask_both()) == ["slow", "fast"]


def test_request_without_a_script_is_told_what_to_do(client):
    with pytest.raises(openai.NotFoundError, match=r"POST /v1/chat/completions, model m: queue one with"):
        chat(client)


def test_script_that_the_format_cannot_carry_is_refused(server, client):
    server.add([Summary(0, "because")])

    with pytest.raises(openai.UnprocessableEntityError, match=r"/chat/completions cannot carry Summary"):
        chat(client, stream=True)


def test_other_endpoints_are_answered_only_by_scripts_that_name_them(server, client):
    server.add([Text("for a model")])
    server.add([Raw({"object": "list", "data": [{"id": "m", "object": "model"}]})], path="/models")

    assert [model.id for model in client.models.list()] == ["m"]
    with pytest.raises(openai.NotFoundError):
        client.models.list()


def test_azure_paths_are_chat_completions_of_the_deployment(server):
    server.add(HELLO, model="my-deployment")
    server.add(HELLO, path="/chat/completions")
    azure = openai.AzureOpenAI(azure_endpoint=server.origin, api_key="none", api_version="2024-10-21")
    v1 = openai.OpenAI(base_url=f"{server.origin}/openai/v1", api_key="none")

    assert text_of(chat(azure, "my-deployment", stream=True)) == "Hello"
    assert text_of(chat(v1, stream=True)) == "Hello"
    assert [(request.path, request.query) for request in server.requests] == [
        ("/openai/deployments/my-deployment/chat/completions", {"api-version": "2024-10-21"}),
        ("/openai/v1/chat/completions", {}),
    ]


def test_deployment_in_the_path_names_the_model_where_the_body_does_not(server):
    server.add([Text("Hi")], model="my-deployment")
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
    connection.request("POST", "/openai/deployments/my-deployment/chat/completions", "{}")

    assert json.loads(connection.getresponse().read())["model"] == "my-deployment"


@pytest.mark.scenario("adapters/Paced server")
def test_each_event_arrives_by_itself_and_not_before_its_time(server):
    server.add([(0.1, Text("a")), (0.02, Text("b")), (0.3, Text("c"))])

    *texts, done = arrivals(open_stream(server))

    stamps = [server.requests[0].at_ns, *(at_ns for _, at_ns in texts)]
    waits = [(later - earlier) / 1e6 for earlier, later in pairwise(stamps)]
    assert [json.loads(data[6:])["choices"][0]["delta"]["content"] for data, _ in texts] == ["a", "b", "c"]
    assert done[0] == b"data: [DONE]\n\n"
    # Against the schedule, not the event before: an event that is late does not delay the next one.
    assert waits[0] >= 100
    assert sum(waits[:2]) >= 120
    assert 420 <= sum(waits) < 2_000


def test_sent_events_are_logged_before_they_arrive_and_say_where_they_come_from(server):
    server.add([Text("a"), (0.01, Text("b")), Ping()])

    received = list(arrivals(open_stream(server)))

    assert [sent.data for sent in server.sent] == [data for data, _ in received]
    assert [sent.event for sent in server.sent] == [Text("a"), Text("b"), Ping(), None]
    assert all(sent.at_ns <= at_ns for sent, (_, at_ns) in zip(server.sent, received, strict=True))


def test_headers_come_at_once_or_after_their_delay(server, client):
    server.add([(0.2, Text("late"))], Script(HELLO, headers_delay=0.2, headers={"openai-processing-ms": "17"}))

    start = time.perf_counter()
    with chat(client, stream=True) as stream:
        at_once = time.perf_counter() - start
        assert text_of(stream) == "late"
    body_after = time.perf_counter() - start
    start = time.perf_counter()
    response = chat(client, stream=True).response
    delayed = time.perf_counter() - start

    assert at_once < body_after - 0.1
    assert delayed >= 0.2
    assert response.headers["openai-processing-ms"] == "17"
    assert response.headers["x-request-id"] == "req_000002"


def test_429_and_500_are_retried_by_the_sdk_until_success(server, client):
    server.add([HTTPError(429, headers={"retry-after-ms": "20"})], [HTTPError(500, "oops")], HELLO)

    assert text_of(chat(client.with_options(max_retries=2), stream=True)) == "Hello"

    first, second, third = server.requests
    assert first.body == second.body == third.body
    assert second.at_ns - first.at_ns >= 20_000_000
    assert [request.headers["x-stainless-retry-count"] for request in server.requests] == ["0", "1", "2"]


def test_error_status_carries_its_message_or_its_body(server, client):
    server.add([HTTPError(401, "wrong key")], [HTTPError(529, body={"odd": [1]})])

    with pytest.raises(openai.AuthenticationError) as unauthorized:
        chat(client)
    with pytest.raises(openai.InternalServerError) as overloaded:
        chat(client, stream=True)

    assert unauthorized.value.body == {"message": "wrong key", "type": "unauthorized", "param": None, "code": None}
    assert (overloaded.value.status_code, overloaded.value.body) == (529, {"odd": [1]})


def test_drop_in_mid_stream_raises_after_the_chunks_that_came(server, client):
    server.add([Text("Hel"), (0.02, Drop()), Text("never")], [Drop()])
    chunks = []

    with pytest.raises(Exception) as dropped:
        chunks.extend(chat(client, stream=True))
    with pytest.raises(openai.APIConnectionError):
        chat(client, stream=True)

    assert text_of(chunks) == "Hel"
    assert type(dropped.value).__name__ in DROPPED
    assert [request.outcome() for request in server.requests] == ["dropped", "dropped"]


def test_error_event_is_an_api_error_after_the_chunks_that_came(server, client):
    server.add([Text("Hel"), ErrorEvent("server_error", "overloaded", "e17")])
    stream = chat(client, stream=True)

    assert text_of([next(stream)]) == "Hel"
    with pytest.raises(openai.APIError, match="overloaded") as failed:
        next(stream)
    assert (failed.value.type, failed.value.code) == ("server_error", "e17")


def test_server_can_wait_for_the_reader_without_a_deadlock(server, client):
    received = threading.Event()
    server.add([Text("one"), WaitFor(received), Text("two")])
    stream = chat(client, stream=True)

    first = text_of([next(stream)])
    assert len(server.sent) == 1
    received.set()

    assert (first, text_of(stream)) == ("one", "two")


def test_waiting_for_the_reader_is_bounded(server, client):
    server.add([Text("one"), WaitFor(threading.Event(), timeout=0.1), Text("two")])

    with pytest.raises(Exception) as dropped:
        list(chat(client, stream=True))

    assert type(dropped.value).__name__ in DROPPED
    assert server.requests[0].outcome() == "dropped"


def test_silence_leads_to_the_clients_own_timeout(server, client):
    server.add([Text("one"), Hang(30)])
    stream = chat(client.with_options(timeout=0.2), stream=True)
    next(stream)

    with pytest.raises(Exception) as failed:
        next(stream)

    assert "Timeout" in type(failed.value).__name__


def test_server_notices_at_once_that_the_client_left(server, client):
    server.add([Text("one"), Hang(30)])
    with chat(client, stream=True) as stream:
        next(stream)

    assert server.requests[0].outcome(timeout=5) == "left"


def test_closing_with_open_streams_and_idle_connections_takes_less_than_two_seconds():
    before = threading.active_count()
    with ProviderServer() as server, openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        server.add(HELLO, [Text("one"), Hang(60)], [Text("one"), WaitFor(threading.Event(), timeout=60)])
        chat(client, stream=False)
        streams = [chat(client, stream=True) for _ in range(2)]
        assert [text_of([next(stream)]) for stream in streams] == ["one", "one"]
        start = time.perf_counter()
        server.close()
        took = time.perf_counter() - start

    assert took < 2
    assert [request.outcome() for request in server.requests] == ["answered", "left", "left"]
    assert threading.active_count() == before


def test_raw_bytes_pings_and_a_missing_end_mark_go_out_as_written(server):
    server.add([Raw(b"data: {half"), Raw(b" of it}\n\n"), Ping("OPENROUTER PROCESSING"), Raw({"odd": "é"}), NoDone()])

    sent = open_stream(server).read()

    assert sent == b'data: {half of it}\n\n: OPENROUTER PROCESSING\n\ndata: {"odd":"\\u00e9"}\n\n'


def test_steps_that_cannot_be_played_are_refused_when_the_script_is_written(server):
    with pytest.raises(TypeError, match=r"'Hel' is not an event"):
        server.add(["Hel"])
    with pytest.raises(ValueError, match=r"HTTPError must be the first step"):
        Script([Text("Hel"), HTTPError(500)])


class Shouting(Wire):
    """A format of an outside author."""

    path = "/shout"
    carries = (Text,)

    def frames(self, event):
        yield self.frame({"shout": event.text.upper()})

    def end(self):
        return ()

    def body(self):
        return {"shout": "".join(event.text.upper() for event in self.script.events)}

    @classmethod
    def error(cls, type_, message, code=None):
        return {"no": message}


def test_wire_format_of_an_outside_author_is_one_class():
    with ProviderServer(wires=(*WIRES, Shouting)) as server:
        server.add([Text("a"), Text("b")], [Text("a"), Text("b")], [HTTPError(400, "quiet")])
        client = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=20)
        answers = []
        for asked in ({"stream": True}, {}, {}):
            client.request("POST", "/v1/shout", json.dumps(asked))
            answers.append(client.getresponse().read())

    assert answers == [b'data: {"shout":"A"}\n\ndata: {"shout":"B"}\n\n', b'{"shout":"AB"}', b'{"no":"quiet"}']
