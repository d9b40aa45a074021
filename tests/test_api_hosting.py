"""Where the HTTP API runs: by itself, inside another app, below a path, over connections of others, beside a writer."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

import tokentape_api
from api_client import client, serving
from programs import read
from test_api_states import PATHS
from tokentape.tape import Tape
from tokentape_api import FileSource, app_from_environment, create_app, router

pytest_plugins = ("api_fixtures",)

# Records calls of 20 events until it is ended, and says how many.
RECORD = """
import sys, tokentape
tokentape.enable(db=sys.argv[1], flush_ms=20)
print("ready", flush=True)
import threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
count = 0
while not stop.is_set():
    with tokentape.start_llm_stream(model="m", provider="acme") as stream:
        for number in range(20):
            stream.add_token(f"t{number} ")
        stream.finish("stop")
    count += 1
    stop.wait(0.05)
tokentape.disable()
print(count, flush=True)
"""


@pytest.fixture
def made(made):
    made.run(ended_ms=10)
    made.call("DONE", (1, 0, "ok"))
    made.call("LEFT", (1, 0, "He"), (2, 0, "y"))
    return made


@pytest.mark.scenario("api/By itself")
def test_it_runs_by_itself(made):
    with serving(made.path) as server:
        assert [run["uid"] for run in httpx.get(f"{server.url}/v1/runs").json()["runs"]] == ["RUN"]
        assert "/v1/live" in httpx.get(f"{server.url}/v1/openapi.json").json()["paths"]
        assert httpx.get(f"{server.url}/v1/runs/x").headers["content-type"] == "application/problem+json"


def test_the_environment_names_the_tape(made, monkeypatch):
    monkeypatch.setenv("TOKENTAPE_DB", str(made.path))
    with TestClient(app_from_environment()) as api:
        assert len(api.get("/v1/llm-calls").json()["calls"]) == 2
    monkeypatch.delenv("TOKENTAPE_DB")
    with TestClient(app_from_environment()) as api:
        assert api.get("/v1/runs").json()["detail"].startswith("tape.db does not exist")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOKENTAPE_DB", "none", "the tape is set to none: nothing can be read; name one with TOKENTAPE_DB=PATH"),
        ("TOKENTAPE_FLUSH_MS", "x", "TOKENTAPE_FLUSH_MS=x: expected milliseconds, from 1 to 60000."),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_server_with_one_line(monkeypatch, name, value, said):
    command = [sys.executable, "-m", "uvicorn", "--factory", "tokentape_api:app_from_environment", "--port", "0"]
    monkeypatch.setenv(name, value)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, f"tokentape: {said}\n")


@pytest.mark.scenario("api/Part of another app")
def test_its_routes_are_part_of_another_app_with_answers_of_its_own(made):
    app = FastAPI()
    mine = APIRouter()

    @mine.get("/mine/{number}")
    async def number(number: int) -> int:
        raise HTTPException(418, "mine")

    @app.exception_handler(HTTPException)
    @app.exception_handler(RequestValidationError)
    async def own(request, error):
        return PlainTextResponse("own", 499)

    source = FileSource(made.path)
    app.include_router(mine)
    app.include_router(router(source), prefix="/tape")
    with TestClient(app) as api:
        for path in PATHS:
            assert api.get(f"/tape{path}").status_code == 200, path
        for path, status in (("runs/x", 404), ("runs?limit=0", 422), ("compare?calls=1", 422)):
            answer = api.get(f"/tape/v1/{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        for path in ("/mine/1", "/mine/x"):
            assert (api.get(path).status_code, api.get(path).text) == (499, "own")
        assert "/tape/v1/runs" in api.get("/openapi.json").json()["paths"]
    source.close()


@pytest.mark.scenario("api/Mounted")
def test_it_is_mounted_below_a_path(made):
    app = FastAPI()
    app.mount("/a/b", create_app(made.path))
    with TestClient(app) as api:
        for path in (*PATHS, "/v1/openapi.json"):
            assert api.get(f"/a/b{path}").status_code == 200, path
        assert api.get("/a/b/v1/nothing").json()["title"] == "Not Found"
        assert api.get("/v1/runs").json() == {"detail": "Not Found"}


class Borrowing:
    """A source that has one connection and one thread, as another application may have them."""

    def __init__(self, path):
        self._thread = ThreadPoolExecutor(1)
        self.connection = self._thread.submit(self._connect, path).result()

    def _connect(self, path):
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        return connection

    async def read(self, query):
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: query(Tape.over(self.connection)))

    def state(self):
        return self._thread.submit(
            lambda: (self.connection.row_factory, self.connection.in_transaction, self.connection.text_factory)
        ).result()

    def close(self):
        self._thread.submit(self.connection.close).result()
        self._thread.shutdown()


@pytest.mark.scenario("api/Somebody else's connection")
def test_it_reads_over_somebody_elses_connection(made):
    source = Borrowing(made.path)
    before = source.state()
    with client(source) as borrowed, client(made.path) as own:
        for path in [*PATHS, "/v1/runs/x", "/v1/llm-calls/RUN"]:
            assert borrowed.get(path).content == own.get(path).content, path
    assert source.state() == before
    source.close()


def test_a_borrowed_connection_to_something_else_is_a_problem_without_its_folder(tmp_path):
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE mine (id)")
    source = Borrowing(tmp_path / "other.db")
    with client(source) as api:
        told = api.get("/v1/runs").json()
    assert (told["status"], told["detail"]) == (
        503,
        "other.db is a database of another application; choose another file.",
    )
    source.close()


@pytest.mark.scenario("api/Many readers and a writer")
def test_many_read_while_another_process_records(tmp_path):
    tape = tmp_path / "tape.db"
    command = [sys.executable, "-c", RECORD, str(tape)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as records:
        assert records.stdout.readline() == "ready\n"
        with serving(tape) as server:
            failed, answered = [], []

            def reader(number):
                with httpx.Client(base_url=server.url, timeout=60) as api:
                    for _ in range(5):
                        calls = api.get("/v1/llm-calls", params={"limit": 5 + number}).json().get("calls")
                        if not calls:
                            continue
                        call = calls[-1]["uid"]
                        events = api.get(f"/v1/llm-calls/{call}/events").json()
                        detail = api.get(f"/v1/llm-calls/{call}").json()
                        stats = api.get(f"/v1/runs/{detail['run_uid']}/streaming-stats")
                        whole = [f"t{index} " for index in events["token_index"]]
                        if events["token"] != whole or stats.status_code != 200:
                            failed.append((events, stats.text))
                        if detail["status"] == "completed" and len(whole) != detail["event_count"]:
                            failed.append(detail)
                        answered.append(call)

            readers = [threading.Thread(target=reader, args=(number,)) for number in range(20)]
            for thread in readers:
                thread.start()
            for thread in readers:
                thread.join()
        said, _ = records.communicate("")
    assert failed == []
    assert len(answered) > 50
    count = int(said)
    assert read(tape, "SELECT count(*) AS n FROM llm_calls WHERE status = 'completed'") == [{"n": count}]
    assert read(
        tape, "SELECT count(*) AS n, sum(dropped_count) AS d FROM llm_calls JOIN llm_tokens ON id = call_id"
    ) == [{"n": 20 * count, "d": 0}]


def test_one_answer_is_one_moment(made):
    """A query that reads twice sees the same tape, though a call is recorded in between."""
    seen = []

    class Growing(FileSource):
        async def read(self, query):
            def grown(tape):
                original = tape.find_runs

                def find(ref):
                    found = original(ref)
                    made.call(f"NEW{len(seen)}", (1, 0, "x"))
                    return found

                tape.find_runs = find
                try:
                    return query(tape)
                finally:
                    del tape.find_runs

            return await super().read(grown)

    source = Growing(made.path)
    with client(source) as api:
        for _ in range(3):
            timeline = api.get("/v1/runs/RUN/timeline").json()
            seen.append((timeline["run"]["call_count"], len(timeline["calls"])))
    source.close()
    assert seen == [(2, 2), (3, 3), (4, 4)]


def test_a_source_that_was_closed_opens_again(made):
    source, before = FileSource(made.path), set(threading.enumerate())
    for _ in range(2):
        assert asyncio.run(source.read(lambda tape: len(tape.calls()))) == 2
        source.close()
    assert set(threading.enumerate()) == before


def test_nothing_that_is_answered_is_loaded_from_elsewhere():
    source = Path(tokentape_api.__file__).parent
    assert [path.name for path in source.rglob("*.py") if "//" in path.read_text("utf-8").replace(" // ", "")] == []
