"""Token events over HTTP: pages, filters, hostile text, spreadsheets, and answers that need not be sent again."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing

import pytest

from handmade import TEXT
from tokentape.models import Part
from values import call_value

pytest_plugins = ("api_fixtures",)

PATH = "/v1/runs/RUN/llm-calls/CALL/tokens"
KINDS = (TEXT, Part(1, "reasoning"), Part(2, "tool_args", 1, "1/0", "search"))
HOSTILE = (
    "<script>alert(1)</script>",
    "</scr",
    "ipt>",
    "nul\0nul",
    "\x1b[31m\x07\x08\u2028\u2029\ufeff",
    "\U0001f600",
    "'; DROP TABLE llm_tokens; --",
    '"\\\n\r\t',
    "",
)


@pytest.fixture
def made(made):
    made.run()
    return made


@pytest.fixture
def get(get):
    return lambda path=PATH, **params: get(path, **params)


def indexes(answer):
    return [token["token_index"] for token in answer["tokens"]]


@pytest.mark.scenario("api/Page by page")
def test_every_event_comes_once_by_cursor_and_by_offset(made, get):
    made.call("CALL", *[(n, 0, f"t{n}") for n in range(250)])

    by_cursor, cursor = [], {}
    while cursor is not None:
        answer = get(**cursor)
        by_cursor.append(indexes(answer))
        cursor = {"cursor": answer["next"]} if answer["next"] else None
    by_offset = [indexes(get(offset=offset)) for offset in (0, 100, 200)]

    assert by_cursor == by_offset == [[*range(100)], [*range(100, 200)], [*range(200, 250)]]
    assert get(offset=250) == get(offset=2**63 - 1) == {"tokens": [], "next": None}
    assert indexes(get(limit=10_000)) == [*range(250)]


@pytest.mark.scenario("api/Filtered events")
def test_filtered_events_keep_their_times(made, get):
    made.call("CALL", (10, 0, "Ab"), (20, 1, "c_d"), (35, 0, "aB%"), (50, 2, "{}"), parts=KINDS)
    whole = get()["tokens"]
    assert [(t["timestamp_ms"], t["delta_ms"], t["kind"], t["choice"]) for t in whole] == [
        (10, 10, "text", 0),
        (20, 10, "reasoning", 0),
        (35, 15, "text", 0),
        (50, 15, "tool_args", 1),
    ]

    def those(*numbers):
        return {"tokens": [whole[number] for number in numbers], "next": None}

    assert get(kind="text") == get(q="ab") == those(0, 2)
    assert get(q="%") == those(2)
    assert get(q="_") == get(kind="reasoning") == those(1)
    assert get(start=20, end=50) == those(1, 2)
    assert get(start=50) == those(3)
    assert get(end=10) == get(kind="refusal") == those()
    assert get(kind="text", q="b", start=11) == those(2)
    assert get(kind="text", offset=1) == those(2)


def test_a_page_of_filtered_events_goes_on_behind_its_last(made, get):
    made.call("CALL", *[(n, n % 2, f"t{n}") for n in range(10)], parts=KINDS[:2])
    first = get(kind="reasoning", limit=3)
    assert indexes(first) == [1, 3, 5]
    assert indexes(get(kind="reasoning", limit=3, cursor=first["next"])) == [7, 9]


@pytest.mark.scenario("api/Events of a running call")
def test_columns_behind_an_index_are_what_came_since(made, get):
    made.call("CALL", (1, 0, "a"), (2, 0, "b"), running=True)
    first = get("/v1/llm-calls/CALL/events")
    assert (first["status"], first["token"], first["next"]) == ("running", ["a", "b"], None)

    made.events(call_value("CALL"), (3, 1, "c"), parts=(Part(1, "reasoning"),))
    more = get("/v1/llm-calls/CALL/events", after=first["token_index"][-1])
    assert (more["token_index"], more["offset_us"], more["part"], more["token"]) == ([2], [3000], [1], ["c"])
    assert [part["kind"] for part in more["parts"]] == ["text", "reasoning"]
    nothing = get("/v1/llm-calls/CALL/events", after=2)
    assert (nothing["token_index"], nothing["token"], nothing["next"]) == ([], [], None)


def test_columns_come_in_pieces(made, get):
    made.call("CALL", *[(n, 0, f"t{n}") for n in range(5)])
    after, found = -1, []
    while after is not None:
        answer = get("/v1/llm-calls/CALL/events", after=after, limit=2)
        found.append(answer["token_index"])
        after = answer["next"]
    assert found == [[0, 1], [2, 3], [4]]


@pytest.mark.scenario("api/Hostile text")
def test_hostile_text_is_data(made, api):
    made.call("CALL", *[(n, 0, text) for n, text in enumerate(HOSTILE)], error_message="<b>\0")
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("UPDATE llm_tokens SET token = CAST(x'61FF62EDA080' AS TEXT) WHERE token_index = 1")
        db.execute("UPDATE llm_calls SET usage_json = ?", ['{"a\\ud800": ["\\udfff", NaN, 1e999]}'])
        db.execute("UPDATE llm_calls SET metadata_json = '{broken', request_json = ?", ["[" * 100_000])
    told = [*HOSTILE]
    told[1] = "a\ufffdb" + "\ufffd" * 3

    def strict(path):
        answer = api.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        return json.loads(answer.content.decode("utf-8", "strict"), parse_constant=pytest.fail)

    assert [token["token"] for token in strict(PATH)["tokens"]] == told
    assert strict("/v1/llm-calls/CALL/events")["token"] == told
    (listed,) = strict("/v1/llm-calls")["calls"]
    assert (listed["error_message"], listed["text_start"]) == ("<b>\0", "".join(HOSTILE).split("\0")[0])
    detail = strict("/v1/llm-calls/CALL")
    assert detail["parts"][0]["content"] == "".join(HOSTILE)
    assert detail["usage"] == {"a\ufffd": ["\ufffd", None, None]}
    assert (detail["metadata"], detail["request"]) == (None, None)


@pytest.mark.scenario("api/Formulas")
def test_no_text_of_a_spreadsheet_is_a_formula(made, api):
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1"]
    plain = ["a;=1", 'quo"te', "two\nlines", " x", "", "1"]
    made.call("CALL", *[(n, 0, text) for n, text in enumerate([*formulas, *plain, None])])

    answer = api.get(PATH, params={"format": "csv"})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="tokens.csv"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8"), newline="")))
    assert [row["token"] for row in rows] == [*(f"'{text}" for text in formulas), *plain, ""]
    assert '"a;=1"' in answer.text
    for row, token in zip(rows, api.get(PATH).json()["tokens"], strict=True):
        assert {name: float(row[name]) for name in ("token_index", "part", "timestamp_ms", "delta_ms", "wait_ms")} == {
            name: token[name] for name in ("token_index", "part", "timestamp_ms", "delta_ms", "wait_ms")
        }
        assert (row["kind"], row["n_tokens"]) == ("text", "")


def test_a_spreadsheet_has_all_events_unless_told_how_many(made, api):
    made.call("CALL", *[(n, 0, f"t{n}") for n in range(150)])

    def lines(**params):
        return len(api.get(PATH, params={"format": "csv", **params}).text.splitlines()) - 1

    assert (lines(), lines(limit=7), lines(offset=100), lines(q="t14")) == (150, 7, 50, 11)


@pytest.mark.scenario("api/Not read again")
def test_an_answer_about_a_finished_call_is_sent_once(made, api):
    made.call("CALL", (1, 0, "a"), (2, 0, "b"))
    tags = set()
    for path in (PATH, f"{PATH}?limit=1", f"{PATH}?format=csv", "/v1/llm-calls/CALL", "/v1/llm-calls/CALL/events"):
        first = api.get(path)
        tag = first.headers["etag"]
        tags.add(tag)
        assert first.headers["cache-control"] == "private, no-cache"
        for asked in (tag, f'"other", W/{tag}', "*"):
            again = api.get(path, headers={"If-None-Match": asked})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert api.get(path, headers={"If-None-Match": '"other"'}).content == first.content
        with closing(sqlite3.connect(made.path)) as db, db:
            db.execute("UPDATE llm_calls SET chunk_count = chunk_count + 1")
        changed = api.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag
    assert len(tags) == 5


def test_events_that_go_away_change_the_tag(made, api):
    made.call("CALL", (1, 0, "a"), (2, 0, "b"))
    tag = api.get(PATH).headers["etag"]
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("DELETE FROM llm_tokens")
    assert api.get(PATH, headers={"If-None-Match": tag}).json() == {"tokens": [], "next": None}


def test_an_answer_about_a_running_call_has_no_tag(made, api):
    made.call("CALL", (1, 0, "a"), running=True)
    for path in (PATH, "/v1/llm-calls/CALL", "/v1/llm-calls/CALL/events"):
        answer = api.get(path, headers={"If-None-Match": "*"})
        assert answer.status_code == 200
        assert "etag" not in answer.headers
