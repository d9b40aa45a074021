"""The middlewares that give each web request a run: names, labels, failures, and what they leave alone."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import flask
import httpx
import pytest

import tokentape
from tape_reader import TapeReader
from tokentape import asgi, context, faults, recorder, wsgi
from tokentape.testing import Finish, ProviderServer, Script, Text
from tokentape.web import pattern
from web_apps import FASTAPI, FLASK

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(starlette|fastapi)")

RUNS = "select name, status, metadata_json from runs where parent_id is not null order by id"


def call(model: str = "gpt-x", *words: str) -> None:
    with tokentape.start_llm_stream(model=model) as stream:
        for word in words or ("Hel",):
            stream.add_token(word)


# --- names


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/chat", "/chat"),
        ("/", "/"),
        ("/v1/chat/gpt-4o", "/v1/chat/gpt-4o"),
        ("/items/17", "/items/{id}"),
        ("/items/17/", "/items/{id}/"),
        ("/users/3fa85f64-5717-4562-b3fc-2c963f66afa6/chat", "/users/{id}/chat"),
        ("/threads/thread_abc123", "/threads/{id}"),
        ("/t/01JDQ8Z5KX3N7V2M9W4R6T8Y0B", "/t/{id}"),
        ("/of/someone@example.com", "/of/{id}"),
        ("/" + "x" * 41, "/{id}"),
    ],
)
def test_what_looks_like_an_id_is_replaced_in_a_path(path: str, named: str) -> None:
    assert pattern(path) == named


@pytest.mark.parametrize(
    ("path", "route", "parameters", "named"),
    [
        ("/items/17", "/items/{item}", {"item": 17}, "/items/{item}"),
        ("/v1/items/17", "/items/{item}", {"item": 17}, "/v1/items/{item}"),
        ("/tenants/acme/items/017", "/items/{item}", {"tenant": "acme", "item": 17}, "/tenants/{tenant}/items/{item}"),
        ("/files/a/b.txt", "/files/{path}", {"path": "a/b.txt"}, "/files/{path}"),
        ("/v1/", "/", {}, "/v1/"),
        ("/v1.0/a+b", "/a+b", {}, "/v1.0/a+b"),
        ("/elsewhere/1234", "/items/{item}", {}, "/elsewhere/{id}"),
    ],
)
def test_the_route_of_a_framework_names_the_end_of_a_path(
    path: str, route: str, parameters: dict[str, Any], named: str
) -> None:
    assert pattern(path, route, parameters) == named


# --- frameworks


def application(code: str, monkeypatch: pytest.MonkeyPatch, provider: ProviderServer) -> Any:
    monkeypatch.setenv("SERVER", provider.url)
    names: dict[str, Any] = {"__name__": "app"}
    exec(code, names)
    return names["app"]


async def answer_of(app: Any, method: str, path: str) -> httpx.Response:
    """What FastAPI or Flask answers, after all that the request has started."""
    if hasattr(app, "test_client"):
        return await asyncio.to_thread(lambda: app.test_client().open(path, method=method, buffered=True))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.request(method, path)


@pytest.mark.scenario("capture/Run through background tasks")
@pytest.mark.parametrize(
    ("code", "rule"), [(FASTAPI, "{thread_id}"), (FLASK, "<int:thread_id>")], ids=["FastAPI", "Flask"]
)
async def test_a_run_lasts_through_background_tasks(
    tape: TapeReader, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, code: str, rule: str
) -> None:
    server.add(Script([Text("Hi"), Finish("stop")], model="gpt-x"))
    server.add(Script([(0.1, Text("later"))] * 3 + [Finish("stop")], model="gpt-background"))
    app = application(code, monkeypatch, server)
    assert (await answer_of(app, "GET", "/v1/threads/17/title?q=x")).status_code == 200
    assert tape.rows(
        "select r.name, r.status, count(*) as calls, group_concat(c.request_model) as models, "
        "r.ended_at >= max(c.ended_at) as lasts, r.started_at <= min(c.started_at) as begins "
        "from runs r join llm_calls c on c.run_id = r.id group by r.id"
    ) == [
        {
            "name": f"GET /v1/threads/{rule}/title",
            "status": "completed",
            "calls": 2,
            "models": "gpt-x,gpt-background",
            "lasts": 1,
            "begins": 1,
        }
    ]


def test_the_route_of_a_streamed_answer_is_known_although_flask_forgets_it(tape: TapeReader) -> None:
    def stream() -> Iterator[bytes]:
        call()
        yield b"Hi"

    app = flask.Flask("app")
    app.wsgi_app = wsgi.RunPerRequest(app.wsgi_app)
    app.add_url_rule("/threads/<name>/stream", view_func=lambda name: flask.Response(stream()))
    assert app.test_client().get("/threads/mine/stream").data == b"Hi"
    assert [row["name"] for row in tape.rows(RUNS)] == ["GET /threads/<name>/stream"]


@pytest.mark.scenario("capture/Failed request")
@pytest.mark.parametrize(
    # Starlette answers for an application that has failed outside of all middleware.
    ("code", "metadata"),
    [(FASTAPI, None), (FLASK, '{"http_status": 500}')],
    ids=["FastAPI", "Flask"],
)
async def test_a_request_that_fails(
    tape: TapeReader, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, code: str, metadata: str | None
) -> None:
    server.add([Text("Hi"), Finish("stop")])
    app = application(code, monkeypatch, server)
    assert (await answer_of(app, "POST", "/fails")).status_code == 500
    assert tape.rows(RUNS) == [{"name": "POST /fails", "status": "error", "metadata_json": metadata}]
    assert tape.call()["status"] == "completed"


@pytest.mark.parametrize("code", [FASTAPI, FLASK], ids=["FastAPI", "Flask"])
async def test_a_request_in_which_nothing_is_recorded_leaves_no_run(
    tape: TapeReader, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    app = application(code, monkeypatch, server)
    assert (await answer_of(app, "GET", "/health")).status_code == 200
    assert tape.rows("select * from runs") == []


# --- the protocols themselves


def http(path: str = "/chat", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"token=s3cret", "headers": named}


async def nothing_more() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def environ(path: str = "/chat", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": "token=s3cret", **more}
    setup_testing_defaults(made)
    return made


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
    """Take the head of an answer."""


class Sent(list[dict[str, Any]]):
    """What an application has sent; fails from the message of this number on, as if the client had gone."""

    def __init__(self, gone_at: int | None = None) -> None:
        super().__init__()
        self.gone_at = gone_at

    async def __call__(self, message: dict[str, Any]) -> None:
        if len(self) == self.gone_at:
            raise OSError("nobody is there")
        self.append(message)


@pytest.mark.scenario("capture/Middleware while off", "capture/Websockets and start-up pass")
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_what_is_not_recorded_passes_untouched(kind: str, tmp_path: Path) -> None:
    given = []

    async def app(*arguments: Any) -> None:
        given.append(arguments)

    if kind == "websocket":
        tokentape.enable(db=tmp_path / "tape.db")
    scope = http() | {"type": kind}
    before = dict(scope)
    sent = Sent()
    await asgi.RunPerRequest(app)(scope, nothing_more, sent)
    assert given == [(scope, nothing_more, sent)]
    assert scope == before
    assert context.RUN.get() is None


@pytest.mark.scenario("capture/Middleware while off")
def test_a_wsgi_request_that_is_not_recorded_passes_untouched() -> None:
    body = iter([b"Hi"])
    given = []

    def app(*arguments: Any) -> Iterator[bytes]:
        given.append(arguments)
        return body

    request = environ()
    assert wsgi.RunPerRequest(app)(request, start_response) is body
    assert given == [(request, start_response)]


async def test_what_was_recorded_is_written_before_the_server_may_stop(tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=60_000)
    statuses = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: dict[str, Any]) -> None:
        with sqlite3.connect(tmp_path / "tape.db") as db:
            found = db.execute("select c.status, r.status from llm_calls c join runs r on r.id = c.run_id").fetchall()
            statuses.append((message["type"], found))

    await asgi.RunPerRequest(app)({"type": "lifespan"}, nothing_more, send)
    assert statuses == [
        ("lifespan.startup.complete", []),
        ("lifespan.shutdown.complete", [("completed", "completed")]),
    ]
    # A program may go on after its server.
    call("later")
    assert tokentape.flush()
    assert TapeReader(tmp_path / "tape.db").rows("select name, status from runs order by id")[1]["status"] == "running"


@pytest.mark.scenario("capture/Run per request")
@pytest.mark.parametrize(("header", "request_id"), [("x-request-id", "r-1"), ("X-Correlation-ID", "c-1")])
async def test_the_request_id_is_on_every_call(tape: TapeReader, header: str, request_id: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.gather(*(asyncio.to_thread(call) for _ in range(3)))
        with tokentape.run("inner"):
            call()

    def threadless(environ: Any, start_response: Any) -> list[bytes]:
        call()
        return []

    request = http(x_request_id="r-1", x_correlation_id="c-1")
    await asgi.RunPerRequest(app, request_id_header=header)(request, nothing_more, Sent())
    wsgi.RunPerRequest(threadless, request_id_header=header)(
        environ(HTTP_X_REQUEST_ID="r-1", HTTP_X_CORRELATION_ID="c-1"), start_response
    )
    assert tape.rows("select distinct key, value, count(*) as calls from call_labels") == [
        {"key": "request_id", "value": request_id, "calls": 5}
    ]
    assert tape.rows(RUNS) == [
        {"name": "POST /chat", "status": "completed", "metadata_json": f'{{"request_id": "{request_id}"}}'},
        {"name": "inner", "status": "completed", "metadata_json": None},
        {"name": "POST /chat", "status": "completed", "metadata_json": f'{{"request_id": "{request_id}"}}'},
    ]
    call()
    assert tape.calls()[-1]["labels_json"] is None


async def test_a_route_that_is_found_after_the_first_call_names_the_run_at_its_end(tape: TapeReader) -> None:
    class Route:
        endpoint = None
        path_format = "/items/{item}"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()
        tokentape.flush()
        names.extend(row["name"] for row in tape.rows(RUNS))
        scope |= {"route": Route(), "path_params": {"item": "a"}}

    names: list[str] = []
    await asgi.RunPerRequest(app)(http("/items/a"), nothing_more, Sent())
    assert (names, [row["name"] for row in tape.rows(RUNS)]) == (["POST /items/a"], ["POST /items/{item}"])


@pytest.mark.parametrize("length", [0, 5000])
async def test_a_request_id_of_any_length(tape: TapeReader, length: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()

    await asgi.RunPerRequest(app)(http(x_request_id="x" * length), nothing_more, Sent())
    labels = tape.rows("select value from call_labels")
    assert labels == ([{"value": "x" * 200}] if length else [])


@pytest.mark.scenario("capture/Client that leaves")
@pytest.mark.parametrize("seen", ["received", "send fails"])
async def test_a_client_that_leaves_is_noted_on_the_calls_of_its_request(tape: TapeReader, seen: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call("before")
        with (
            tokentape.run("inner"),
            tokentape.start_llm_stream(model="inside") as stream,
        ):
            stream.add_token("Hel")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if seen == "received":
                assert await receive() == {"type": "http.disconnect"}
            else:
                await send({"type": "http.response.body", "body": b"Hel", "more_body": True})

    expected = pytest.raises(OSError) if seen == "send fails" else None
    with tokentape.start_llm_stream(model="of somebody else"):
        if expected is None:
            await asgi.RunPerRequest(app)(http(), nothing_more, Sent())
        else:
            with expected:
                await asgi.RunPerRequest(app)(http(), nothing_more, Sent(gone_at=1))
    calls = tape.rows("select request_model, labels_json from llm_calls order by id")
    assert [(row["request_model"], row["labels_json"]) for row in calls] == [
        ("of somebody else", None),
        ("before", None),
        ("inside", '{"client": "disconnected"}'),
    ]
    (request, _) = tape.rows(RUNS)
    assert request == {
        "name": "POST /chat",
        "status": "completed",
        "metadata_json": '{"http_status": 200, "client": "disconnected"}',
    }


async def test_nobody_has_left_who_has_the_whole_answer(tape: TapeReader) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hi"})
        with tokentape.start_llm_stream(model="in the background"):
            await receive()

    await asgi.RunPerRequest(app)(http(), nothing_more, Sent())
    assert tape.call()["labels_json"] is None


@pytest.mark.scenario("capture/Client that leaves")
@pytest.mark.parametrize(
    ("in_flight", "labels"),
    [(OSError("gone"), '{"client": "disconnected"}'), (None, '{"client": "disconnected"}'), (SystemExit(1), None)],
    ids=["write failed", "closed", "server stops"],
)
def test_a_wsgi_answer_that_is_closed_early(
    tape: TapeReader, in_flight: BaseException | None, labels: str | None
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        with tokentape.start_llm_stream(model="gpt-x") as stream:
            for word in ("Hel", "lo"):
                stream.add_token(word)
                yield word.encode()

    body: Any = wsgi.RunPerRequest(app)(environ(), start_response)
    assert next(body) == b"Hel"
    if in_flight is None:
        body.close()
    else:
        with pytest.raises(type(in_flight)):
            try:
                raise in_flight
            finally:
                body.close()
    assert (tape.call()["labels_json"], tape.call()["event_count"]) == (labels, 1)


def test_what_a_generator_leaves_open_is_open_at_its_next_step(tape: TapeReader) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        with tokentape.run("inner"), tokentape.label(user="17"):
            call("first")
            yield b"1"
            call("second")
        yield b"2"
        call("third")

    before = contextvars.copy_context()
    body: Any = wsgi.RunPerRequest(app)(environ(HTTP_X_REQUEST_ID="r-1"), start_response)
    for _ in body:
        assert context.RUN.get() is None
        assert dict(context.LABELS.get()) == {}
    body.close()
    assert all(before.get(variable, variable) is value for variable, value in before.items())
    rows = tape.rows("select r.name, c.labels_json from llm_calls c join runs r on r.id = c.run_id order by c.id")
    assert [tuple(row.values()) for row in rows] == [
        ("inner", '{"request_id": "r-1", "user": "17"}'),
        ("inner", '{"request_id": "r-1", "user": "17"}'),
        ("POST /chat", '{"request_id": "r-1"}'),
    ]


@pytest.mark.parametrize("kind", ["list", "file"])
def test_servers_get_whole_answers_as_they_are(tape: TapeReader, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"Hi")
    with (tmp_path / "file").open("rb") as file:
        body = [b"Hi"] if kind == "list" else FileWrapper(file)

        def app(environ: Any, start_response: Any) -> Any:
            call()
            return body

        answer = wsgi.RunPerRequest(app)(environ(**{"wsgi.file_wrapper": FileWrapper}), start_response)
    assert answer is body
    assert [row["status"] for row in tape.rows(RUNS)] == ["completed"]


@pytest.mark.scenario("capture/Failed request")
@pytest.mark.parametrize("where", ["asgi", "wsgi", "wsgi, streaming", "wsgi, closing"])
async def test_an_error_of_the_application_passes_unchanged(tape: TapeReader, where: str) -> None:
    error = ValueError("of the program")

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"Hi"

        def close(self) -> None:
            raise error

    async def app(*_: Any) -> None:
        call()
        raise error

    def wsgi_app(*_: Any) -> Any:
        call()
        if where == "wsgi":
            raise error
        return Body() if where == "wsgi, closing" else streaming()

    def streaming() -> Iterator[bytes]:
        yield b"Hi"
        raise error

    with pytest.raises(ValueError) as raised:
        if where == "asgi":
            await asgi.RunPerRequest(app)(http(), nothing_more, Sent())
        else:
            body: Any = wsgi.RunPerRequest(wsgi_app)(environ(), start_response)
            try:
                assert list(body) == [b"Hi"]
            finally:
                body.close()
    assert raised.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert tape.rows(RUNS) == [{"name": "POST /chat", "status": "error", "metadata_json": None}]
    assert tape.call()["labels_json"] is None


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("broken", ["clock", "queue", "route", "headers"])
async def test_a_fault_of_the_recording_does_not_reach_the_application(
    tape: TapeReader, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("of the recording")

    class Route:
        endpoint = None
        path_format = property(fail)

    current = recorder.active()
    assert current is not None
    scope = (
        http() | ({"route": Route()} if broken == "route" else {}) | ({"headers": None} if broken == "headers" else {})
    )
    if broken == "clock":
        monkeypatch.setattr(current, "clock", property(fail))
    if broken == "queue":
        monkeypatch.setattr(current, "queue", None)
    served = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if broken in {"route", "headers"}:
            call()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        served.append("asgi")

    def wsgi_app(environ: Any, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("no number", [])
        served.append("wsgi")
        yield b"Hi"

    sent = Sent()
    await asgi.RunPerRequest(app)(scope, nothing_more, sent)
    body: Any = wsgi.RunPerRequest(wsgi_app)(environ(), start_response)
    assert list(body) == [b"Hi"]
    body.close()
    assert served == ["asgi", "wsgi"]
    assert [message["type"] for message in sent] == ["http.response.start"]
    monkeypatch.undo()
    assert faults.summary() != {}
