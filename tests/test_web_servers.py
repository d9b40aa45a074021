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
select r.name, parent.name as parent, parent.parent_id as above, c.status, c.event_count, l.value as request_id,
  json_extract(r.metadata_json, '$.request_id') as of_run, r.status as run_status, r.process_id = c.process_id as at_home
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
