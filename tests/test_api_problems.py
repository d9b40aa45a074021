"""What cannot be answered over HTTP is said in one sentence, with the status that fits."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from api_client import client
from handmade import Handmade
from programs import read

pytest_plugins = ("api_fixtures",)

TOKENS = "/v1/runs/RUN/llm-calls/CALL/tokens"
INJECTED = ("'; DROP TABLE llm_tokens; --", "%", "' OR '1'='1", "\0", "(SELECT 1)")


@pytest.fixture
def made(made):
    made.run()
    made.run("OTHER")
    made.call("CALL", (1, 0, "a"))
    made.call("MORE", (1, 0, "a"), call={"run_uid": "OTHER"})
    return made


def problem(answer, status):
    """The sentence of a problem, whose form is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    titles = {404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
    assert (told["type"], told["status"]) == ("about:blank", status)
    assert told["title"] == titles.get(status, told["title"])
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["detail"].endswith(".")
    return told["detail"]


@pytest.mark.scenario("api/Unknown")
@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/runs/x", "No run 'x' is on this tape."),
        ("/v1/runs/x/timeline", "No run 'x' is on this tape."),
        ("/v1/runs/x/streaming-stats", "No run 'x' is on this tape."),
        ("/v1/runs/x/tokens/timeseries", "No run 'x' is on this tape."),
        ("/v1/runs/9", "No run '9' is on this tape."),
        ("/v1/runs/99999999999999999999999", "No run '99999999999999999999999' is on this tape."),
        ("/v1/llm-calls/x", "No call 'x' is on this tape."),
        ("/v1/llm-calls/-1", "No call '-1' is on this tape."),
        ("/v1/llm-calls/x/events", "No call 'x' is on this tape."),
        ("/v1/llm-calls?run=x", "No run 'x' is on this tape."),
        ("/v1/compare?calls=CALL,x", "No call 'x' is on this tape."),
        ("/v1/runs/RUN/llm-calls/x/tokens", "No call 'x' is on this tape."),
        ("/v1/runs/x/llm-calls/CALL/tokens", "No run 'x' is on this tape."),
        ("/v1/runs/OTHER/llm-calls/CALL/tokens", "Call CALL is not in run OTHER."),
        ("/v1/nothing", "Nothing is at this path; openapi.json names those there are."),
        ("/docs", "Nothing is at this path; openapi.json names those there are."),
    ],
)
def test_what_is_not_there_is_named(made, api, path, detail):
    assert problem(api.get(path), 404) == detail


@pytest.mark.scenario("api/Invalid values")
@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/runs?limit=0", "limit: input should be greater than or equal to 1, not '0'."),
        ("/v1/llm-calls?limit=1000000", "limit: input should be less than or equal to 1000, not '1000000'."),
        (
            f"{TOKENS}?limit=x",
            "limit: input should be a valid integer, unable to parse string as an integer, not 'x'.",
        ),
        (f"{TOKENS}?limit=1000000", "limit: input should be less than or equal to 10000, not '1000000'."),
        ("/v1/llm-calls/CALL/events?limit=0", "limit: input should be greater than or equal to 1, not '0'."),
        (f"{TOKENS}?start=5&end=4", "end: the range ends before it starts."),
        ("/v1/runs/RUN/tokens/timeseries?start=5&end=4", "end: the range ends before it starts."),
        ("/v1/llm-calls?since=2026-01-02&until=2026-01-01", "until: the range ends before it starts."),
        (f"{TOKENS}?kind=words", None),
        ("/v1/runs?status=abandoned", None),
        ("/v1/llm-calls?status=done", None),
        ("/v1/llm-calls?label=env", "label: expected key:value, not 'env'."),
        ("/v1/llm-calls?label=:x", "label: expected key:value, not ':x'."),
        ("/v1/llm-calls?since=yesterday", None),
        ("/v1/llm-calls?stalled=maybe", None),
        (f"{TOKENS}?cursor=WyJ0b2tlbnMgQ0FMTCIsMF0&offset=1", "offset: give it or a cursor, not both."),
        (f"{TOKENS}?offset=-1", None),
        (f"{TOKENS}?start=inf", None),
        (f"{TOKENS}?end=nan", None),
        (f"{TOKENS}?format=xml", None),
        ("/v1/llm-calls/CALL/events?after=99999999999999999999", None),
        ("/v1/runs/RUN/timeline?bins=0", "bins: input should be greater than or equal to 1, not '0'."),
        ("/v1/runs/RUN/tokens/timeseries?buckets=1001", None),
        ("/v1/compare", "calls: field required."),
        ("/v1/compare?calls=CALL", "calls: name 2 to 6 calls, separated by commas, not 1."),
        ("/v1/compare?calls=1,2,3,4,5,6,7", "calls: name 2 to 6 calls, separated by commas, not 7."),
        ("/v1/compare?calls=CALL,1", "calls: name each call once."),
        ("/v1/live?after=x", "after: take it from the id of an event of this stream."),
        ("/v1/models?all=some", None),
    ],
)
def test_what_cannot_be_used_is_named(made, api, path, detail):
    told = problem(api.get(path), 422)
    name = path.rpartition("&")[2].rpartition("?")[2].partition("=")[0]
    assert told.startswith(f"{name}: ") or detail is not None
    assert detail in {None, told}


def test_several_values_that_cannot_be_used_are_one_sentence(made, api):
    assert problem(api.get("/v1/runs?limit=0&status=x"), 422) == (
        "limit: input should be greater than or equal to 1, not '0'; "
        "status: input should be 'running', 'completed', 'error' or 'lost', not 'x'."
    )


def test_a_long_value_is_not_sent_back(made, api):
    assert len(problem(api.get("/v1/runs?limit=" + "9" * 5000), 422)) < 300
    assert len(problem(api.get("/v1/runs/" + "x" * 5000), 404)) < 300
    assert len(problem(api.get("/v1/llm-calls?label=" + "x" * 5000), 422)) < 300


def test_another_method_is_refused(made, api):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = api.request(method, "/v1/runs")
        assert problem(answer, 405) == "Only GET is answered here."
        assert answer.headers["allow"] == "GET"


@pytest.mark.scenario("api/Text that is SQL")
@pytest.mark.parametrize("text", INJECTED)
def test_text_that_is_sql_is_text(made, api, text):
    before = read(made.path, "SELECT * FROM llm_tokens")
    empty = [
        ("/v1/runs", {"q": text}, "runs"),
        ("/v1/llm-calls", {"q": text}, "calls"),
        ("/v1/llm-calls", {"model": text}, "calls"),
        ("/v1/llm-calls", {"provider": text}, "calls"),
        ("/v1/llm-calls", {"adapter": text}, "calls"),
        ("/v1/llm-calls", {"label": f"{text}:{text}"}, "calls"),
        (TOKENS, {"q": text}, "tokens"),
    ]
    for path, params, name in empty:
        answer = api.get(path, params=params)
        assert (answer.status_code, answer.json()) == (200, {name: [], "next": None}), (path, params)
    for path, params in [("/v1/llm-calls", {"run": text}), ("/v1/compare", {"calls": f"CALL,{text}"})]:
        problem(api.get(path, params=params), 404)
    for path, params in [("/v1/runs", {"cursor": text}), ("/v1/live", {"after": text}), (TOKENS, {"kind": text})]:
        problem(api.get(path, params=params), 422)
    quoted = text.replace("%", "%25").replace("\0", "%00").replace("'", "%27")
    problem(api.get(f"/v1/runs/{quoted}"), 404)
    assert read(made.path, "SELECT * FROM llm_tokens") == before


@pytest.mark.scenario("api/No tape")
def test_a_file_that_is_no_tape_is_named_until_there_is_one(made, tmp_path):
    made.close()
    path = tmp_path / "secret folder" / "other.db"
    path.parent.mkdir()

    def other():
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE mine (id)")
        db.close()

    states = [
        (lambda: None, "other.db does not exist: nothing is recorded there yet; "),
        (lambda: path.write_bytes(b""), "other.db is empty: nothing is recorded there yet; "),
        (lambda: path.write_text("no database" * 500), "other.db is not an SQLite database; choose another file."),
        (path.mkdir, "other.db is a folder; name a file in it, such as other.db/tape.db."),
        (other, "other.db is a database of another application; choose another file."),
    ]
    with client(path) as api:
        for become, detail in states:
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            become()
            for where in ("/v1/runs", "/v1/llm-calls/x", "/v1/live"):
                answer = api.get(where)
                assert problem(answer, 503).startswith(detail), where
                assert answer.headers["retry-after"] == "1"
                assert "secret" not in answer.text
        path.unlink()
        shutil.copy(made.path, path)
        assert api.get("/v1/runs").status_code == 200


def test_a_tape_that_is_replaced_is_read_anew(made, api, tmp_path):
    assert len(api.get("/v1/llm-calls").json()["calls"]) == 2
    made.close()
    made.path.unlink()
    again = Handmade(made.path)
    again.run()
    again.call("ONLY", (1, 0, "a"))
    assert [call["uid"] for call in api.get("/v1/llm-calls").json()["calls"]] == ["ONLY"]
    again.close()


LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.scenario("api/Locked tape")
def test_a_locked_tape_is_named_and_read_when_it_is_free(made):
    made.close()
    with client(made.path) as api:
        command = [sys.executable, "-c", LOCK, str(made.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locks:
            try:
                assert locks.stdout.readline() == "locked\n"
                answer = api.get("/v1/runs")
            finally:
                locks.communicate("")
        assert problem(answer, 503) == "tape.db is locked by another program; try again when that has finished."
        assert api.get("/v1/runs").status_code == 200


def test_a_tape_is_read_as_it_was_while_events_are_taken_off_it(made, api):
    def texts():
        return [token["token"] for token in api.get(TOKENS).json()["tokens"]]

    assert texts() == ["a"]
    with closing(sqlite3.connect(made.path, isolation_level=None)) as compacts:
        compacts.execute("BEGIN IMMEDIATE")
        compacts.execute("DELETE FROM llm_tokens")
        assert texts() == ["a"]
        compacts.execute("COMMIT")
        assert texts() == []
        compacts.execute("VACUUM")
        assert texts() == []


def test_a_value_that_tokentape_does_not_write_is_named(made, api):
    with sqlite3.connect(made.path) as db:
        db.execute("UPDATE llm_calls SET duration_ms = 'long' WHERE id = 1")
    db.close()
    told = problem(api.get("/v1/llm-calls"), 503)
    assert told == "The tape holds a value that tokentape does not write, at calls.1.duration_ms."
