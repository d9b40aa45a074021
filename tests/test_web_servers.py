"""Applications under real servers: a run for each request, whatever becomes of it, of its client and of its worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import web_apps
from tokentape.testing import Finish, ProviderServer, Script, Text, WaitFor
from web_apps import FASTAPI, FLASK, Served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gunicorn needs POSIX")

WORDS = [Text(f"word{i} ") for i in range(5)]
ANSWER = "word0 word1 word2 word3 word4 "
REQUESTS = """
select r.name, parent.name as parent, parent.status as of_process, parent.parent_id as above, c.status, c.event_count,
  l.value as request_id, json_extract(r.metadata_json, '$.request_id') as of_run, r.status as run_status,
  r.process_id = c.process_id as at_home
from llm_calls c join runs r on r.id = c.run_id join runs parent on parent.id = r.parent_id
  left join call_labels l on l.call_id = c.id and l.key = 'request_id'
order by l.value
"""

EVERY_SERVER = pytest.mark.parametrize(
    ("code", "command"),
    [
        pytest.param(FASTAPI, web_apps.UVICORN, id="FastAPI, uvicorn"),
        pytest.param(FASTAPI, web_apps.PRELOADED_UVICORN, id="FastAPI, gunicorn with uvicorn workers"),
        pytest.param(FASTAPI, web_apps.PRELOADED_ASGI, id="FastAPI, gunicorn's own workers"),
        pytest.param(FLASK, web_apps.PRELOADED_SYNC, id="Flask, gunicorn"),
        pytest.param(FLASK, web_apps.PRELOADED_THREADS, id="Flask, gunicorn with threads"),
    ],
)
EACH_KIND = pytest.mark.parametrize(
    ("code", "command"),
    [
        pytest.param(FASTAPI, web_apps.PRELOADED_UVICORN, id="FastAPI"),
        pytest.param(FLASK, web_apps.PRELOADED_SYNC, id="Flask"),
    ],
)


@EVERY_SERVER
@pytest.mark.scenario("capture/Run per request", "capture/Preforking server")
def test_each_request_has_a_run(server: ProviderServer, tmp_path: Path, code: str, command: tuple[str, ...]) -> None:
    server.add(Script([*WORDS, Finish("stop")], repeat=True))

    def ask(number: int) -> str:
        with served.client() as client:
            return client.post("/chat?token=s3cret", headers={"X-Request-ID": f"request-{number}"}).text

    # Nothing is flushed by the clock: what is on the tape was written when the workers ended.
    with Served(tmp_path, code, command, server.url, {"TOKENTAPE_FLUSH_MS": "60000"}) as served:
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(ask, range(6)))
        with served.client() as client:
            assert client.get("/health").status_code == 200
        served.stop()

    assert answers == [ANSWER] * 6
    assert served.rows(REQUESTS) == [
        {
            "name": "POST /chat",
            "parent": served.rows("select name from processes")[0]["name"],
            "of_process": "completed",
            "above": None,
            "status": "completed",
            "event_count": 5,
            "request_id": f"request-{number}",
            "of_run": f"request-{number}",
            "run_status": "completed",
            "at_home": 1,
        }
        for number in range(6)
    ]
    assert served.rows("select count(*) as n, count(distinct run_id) as runs from llm_calls") == [{"n": 6, "runs": 6}]
    assert served.rows("select count(*) as n from runs where parent_id is not null") == [{"n": 6}]
    assert served.rows("pragma integrity_check") == [{"integrity_check": "ok"}]
    assert b"s3cret" not in b"".join(path.read_bytes() for path in tmp_path.glob("tape.db*"))


@contextmanager
def streaming(client: httpx.Client, path: str, words: int) -> Iterator[httpx.Response]:
    """An answer of which so many words have arrived; it is left in the middle."""
    with client.stream("POST", path) as response:
        seen = ""
        pieces = response.iter_text()
        while seen.count(" ") < words:
            seen += next(pieces)
        yield response


@pytest.mark.scenario("capture/Client that leaves")
@pytest.mark.parametrize(
    ("code", "command", "path"),
    [
        pytest.param(FASTAPI, web_apps.UVICORN, "/chat", id="FastAPI, asynchronous"),
        pytest.param(FASTAPI, web_apps.PRELOADED_UVICORN, "/chat", id="FastAPI, gunicorn with uvicorn workers"),
        pytest.param(FLASK, web_apps.PRELOADED_SYNC, "/chat", id="Flask, gunicorn"),
    ],
)
def test_a_client_that_leaves_is_noted_on_its_call(
    server: ProviderServer, tmp_path: Path, code: str, command: tuple[str, ...], path: str
) -> None:
    many = [(0.02, Text(f"word{i} ")) for i in range(500)]
    server.add([*many, Finish("stop")], [*WORDS, Finish("stop")])
    with Served(tmp_path, code, command, server.url, {"TOKENTAPE_FLUSH_MS": "20"}) as served:
        with served.client() as client, streaming(client, path, words=3):
            pass
        calls = "select count(*) as n from llm_calls where status not in ('running', 'lost')"
        served.eventually(calls, [{"n": 1}])
        with served.client() as client:
            assert client.post("/chat").text == ANSWER
        served.stop()

    left, stayed = served.rows("select id, status, event_count, error_message, labels_json from llm_calls order by id")
    assert left["status"] in {"cancelled", "abandoned"}
    # What cancels it tells of objects and paths of the server: no message.
    assert left["error_message"] is None
    assert 3 <= left["event_count"] < 500
    assert left["labels_json"] == '{"client": "disconnected"}'
    assert (stayed["status"], stayed["labels_json"]) == ("completed", None)
    assert served.rows("select call_id, key, value from call_labels") == [
        {"call_id": left["id"], "key": "client", "value": "disconnected"}
    ]
    runs = served.rows(
        "select r.status, json_extract(r.metadata_json, '$.client') as client from runs r "
        "join llm_calls c on c.run_id = r.id order by c.id"
    )
    assert runs == [{"status": "completed", "client": "disconnected"}, {"status": "completed", "client": None}]


def test_a_client_that_leaves_is_noted_while_its_call_is_still_open(server: ProviderServer, tmp_path: Path) -> None:
    """A generator that runs in a thread is not closed when the client goes: its stream ends when it is collected."""
    many = [(0.02, Text(f"word{i} ")) for i in range(500)]
    server.add([*many, Finish("stop")])
    with Served(tmp_path, FASTAPI, web_apps.UVICORN, server.url, {"TOKENTAPE_FLUSH_MS": "20"}) as served:
        with served.client() as client, streaming(client, "/chat-in-threads", words=3):
            pass
        served.eventually("select key, value from call_labels", [{"key": "client", "value": "disconnected"}])
        served.stop()
    (call,) = served.rows("select event_count, labels_json from llm_calls")
    assert 3 <= call["event_count"] < 500
    assert call["labels_json"] == '{"client": "disconnected"}'


@EACH_KIND
@pytest.mark.scenario("capture/Killed worker")
def test_a_killed_worker_loses_no_more_than_the_flush_interval(
    server: ProviderServer, tmp_path: Path, code: str, command: tuple[str, ...]
) -> None:
    never = threading.Event()
    server.add([*WORDS, WaitFor(never, timeout=60)], [*WORDS, Finish("stop")])
    running = "select c.status, c.event_count from llm_calls c order by c.id"
    with Served(tmp_path, code, command, server.url, {"TOKENTAPE_FLUSH_MS": "50"}) as served:
        with served.client() as client, streaming(client, "/chat", words=4):
            served.eventually(running, [{"status": "running", "event_count": 5}])
            worker = served.rows("select p.pid from llm_calls c join processes p on p.id = c.process_id")[0]["pid"]
            assert worker != served.process.pid
            os.kill(worker, signal.SIGKILL)
        with served.client() as client:
            assert client.post("/chat").text == ANSWER
        served.stop()

    # The process that recorded next has found what the killed one left.
    lost, next_one = served.rows(
        "select c.status, c.event_count, c.inter_chunk_max_ms is not null as measured, p.content, r.name, "
        "r.status as run from llm_calls c join llm_parts p on p.call_id = c.id join runs r on r.id = c.run_id "
        "order by c.id"
    )
    assert lost == {
        "status": "lost",
        "event_count": 5,
        "measured": 1,
        "content": ANSWER,
        "name": "POST /chat",
        "run": "lost",
    }
    assert next_one["status"] == "completed"
    assert served.rows("pragma integrity_check") == [{"integrity_check": "ok"}]
