"""Who may see the pages and the API, what recorded text can do there, and what is answered to what makes no sense."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import sqlite3

import pytest
from datasette import hookimpl
from datasette.app import Datasette
from datasette.plugins import pm

from datasette_tokentape.access import is_asked_for_by_name
from datasette_tokentape.policy import content_policy
from hostile import HOSTILE, HOSTILE_NAME
from html_reader import Page
from tokentape.store import columns

pytest_plugins = ("recorded_tape",)

BASE = "/-/tokentape"
PAGES = ("", "/runs/3", "/calls/2", "/race?calls=2,5", "/race", "/models", "/live")
ANSWERS = (
    "/api/v1/runs",
    "/api/v1/runs/3",
    "/api/v1/runs/3/timeline",
    "/api/v1/llm-calls",
    "/api/v1/llm-calls/2",
    "/api/v1/llm-calls/2/events",
    "/api/v1/runs/3/llm-calls/2/tokens?format=csv",
    "/api/v1/models",
    "/api/v1/compare?calls=2,5",
    "/api/v1/openapi.json",
)
LIVE = "/api/v1/live"
ANN = {"id": "ann"}


@pytest.fixture(scope="module")
def datasette(recorded_tape):
    return Datasette([str(recorded_tape)])


def cookies(datasette, actor):
    return {} if actor is None else {"ds_actor": datasette.sign({"a": actor}, "actor")}


async def asked(datasette, path, actor=None, **more):
    return await datasette.client.get(BASE + path, cookies=cookies(datasette, actor), **more)


CLOSED = {
    "instance": {"allow": ANN},
    "database": {"databases": {"tape": {"allow": ANN}}},
    "tokens": {"databases": {"tape": {"tables": {"llm_tokens": {"allow": ANN}}}}},
    "labels": {"databases": {"tape": {"tables": {"call_labels": {"allow": ANN}}}}},
}


@pytest.mark.scenario("ui/Permissions of pages and API")
@pytest.mark.parametrize("closed", CLOSED)
async def test_who_may_not_see_the_tape_sees_none_of_it(recorded_tape, closed):
    datasette = Datasette([str(recorded_tape)], metadata=CLOSED[closed])

    for path in (*PAGES, *ANSWERS, LIVE, "/nowhere", "/api/v1/nowhere"):
        for actor in (None, {"id": "bob"}):
            answer = await asked(datasette, path, actor)
            assert answer.status_code == 403, path
            assert "You may not see this tape." in answer.text
            assert "gpt-x" not in answer.text
            kind = "application/problem+json" if "/api/" in path else "text/html"
            assert answer.headers["content-type"].startswith(kind)


@pytest.mark.scenario("ui/Permissions of pages and API")
@pytest.mark.parametrize("closed", CLOSED)
async def test_who_may_see_the_tape_sees_pages_and_answers(recorded_tape, closed):
    datasette = Datasette([str(recorded_tape)], metadata=CLOSED[closed])

    for path in (*PAGES, *ANSWERS):
        answer = await asked(datasette, path, ANN)
        assert answer.status_code == 200, path


async def test_the_menu_has_no_link_for_who_may_not_see_the_tape(recorded_tape):
    datasette = Datasette([str(recorded_tape)], metadata=CLOSED["database"])

    home = await datasette.client.get("/")
    anns = await datasette.client.get("/", cookies=cookies(datasette, ANN))

    assert ("LLM streams" in home.text, "LLM streams" in anns.text) == (False, True)


async def test_of_several_tapes_only_those_that_may_be_seen_are_named(recorded_tape, tmp_path):
    shutil.copy(recorded_tape, tmp_path / "secret.db")
    datasette = Datasette(
        [str(recorded_tape), str(tmp_path / "secret.db")], metadata={"databases": {"secret": {"allow": ANN}}}
    )

    everybody = await asked(datasette, "")
    hidden = await asked(datasette, "?db=secret")
    anns = await asked(datasette, "", ANN)

    assert everybody.status_code == 200
    assert "Runs and calls" in everybody.text
    assert "secret" not in everybody.text
    assert hidden.status_code == 403
    assert "secret" in anns.text


async def test_another_plugin_may_answer_who_is_not_allowed(recorded_tape):
    class LoginPage:
        __name__ = "LoginPage"

        @hookimpl
        def forbidden(self, request):
            from datasette import Response

            return Response.redirect("/-/login")

    datasette = Datasette([str(recorded_tape)], metadata=CLOSED["instance"])
    pm.register(LoginPage(), name="login-page")
    try:
        page = await asked(datasette, "")
        answer = await asked(datasette, "/api/v1/runs")
    finally:
        pm.unregister(name="login-page")

    assert (page.status_code, page.headers["location"]) == (302, "/-/login")
    assert answer.status_code == 403


async def test_other_pages_of_datasette_refuse_as_they_did(recorded_tape):
    datasette = Datasette([str(recorded_tape)], metadata=CLOSED["instance"])

    page = await datasette.client.get("/tape/llm_calls")

    assert page.status_code == 403
    assert "tokentape.css" not in page.text


def allowed_scripts(policy):
    (sources,) = [part.split()[1:] for part in policy.split("; ") if part.startswith("script-src")]
    return sources


def hash_of(script):
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@pytest.mark.scenario("ui/Content security policy")
@pytest.mark.parametrize("path", [*PAGES, "/nowhere", "?limit=0", *ANSWERS[:2]])
async def test_only_our_files_and_what_datasette_has_inline_may_run(datasette, path):
    answer = await asked(datasette, path)

    policy = answer.headers["content-security-policy"]
    sources = allowed_scripts(policy)
    assert sources[0] == "'self'"
    assert all(source.startswith("'sha256-") for source in sources[1:])
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if not answer.headers["content-type"].startswith("text/html"):
        return
    page = Page(answer.text)
    inline = [script for script in page.all("script") if "src" not in script.attributes]
    assert all(hash_of(script.text) in sources for script in inline)
    assert all(not name.startswith("on") and name != "style" for e in page.elements for name in e.attributes)
    assert all(not e.attributes.get("href", "").startswith("javascript:") for e in page.elements)


async def test_other_pages_of_datasette_keep_their_headers(datasette):
    for path in ("/", "/tape", "/-/tokentapes", "/-/static/app.css"):
        assert "content-security-policy" not in (await datasette.client.get(path)).headers


async def test_what_a_page_shows_is_never_what_its_policy_allows(datasette):
    answers = [await asked(datasette, path) for path in PAGES]

    allowed = {tuple(allowed_scripts(answer.headers["content-security-policy"])) for answer in answers}

    assert len(allowed) == 1
    assert hash_of("window.hacked=1") not in allowed.pop()


def test_the_policy_allows_what_the_bare_page_has_inline():
    policy = content_policy("<style>p {}</style><script>\nlet a = '<b>';\n</script><script src=x.js></script>")

    assert f"script-src 'self' {hash_of(chr(10) + 'let a = ' + repr('<b>') + ';' + chr(10))};" in policy
    assert f"style-src 'self' {hash_of('p {}')};" in policy


async def paths_of_everything(datasette, recorded_tape):
    connection = sqlite3.connect(recorded_tape)
    calls = [uid for (uid,) in connection.execute("select uid from llm_calls order by id")]
    runs = [uid for (uid,) in connection.execute("select uid from runs order by id")]
    connection.close()
    hostile = {name: "".join(HOSTILE[:6]) for name in ("q", "model", "provider", "adapter", "db", "status", "since")}
    return [
        *((f"{BASE}/calls/{uid}", {}) for uid in calls),
        *((f"{BASE}/runs/{uid}", {}) for uid in runs),
        (BASE, {}),
        (f"{BASE}/models", {}),
        (f"{BASE}/models", {"all": "1"}),
        (f"{BASE}/live", {}),
        (f"{BASE}/race", {}),
        (f"{BASE}/race", {"calls": ",".join(calls[10:14])}),
        *((BASE, {name: text}) for name, text in hostile.items()),
        *((f"{BASE}/calls/2", {name: text}) for name, text in {"q": hostile["q"], "kind": "<b>"}.items()),
        (f"{BASE}/calls/%3Cscript%3E1%3C%2Fscript%3E", {}),
        (f"{BASE}/<script>1</script>", {}),
        ("/tape/llm_calls", {}),
        ("/tape/runs", {}),
    ]


@pytest.mark.scenario("ui/Hostile text")
async def test_recorded_text_is_never_markup_on_any_page(datasette, recorded_tape):
    """Elements and attributes of every page are those of its templates, whatever was recorded or asked for."""
    seen, texts = "", []
    for path, query in await paths_of_everything(datasette, recorded_tape):
        answer = await datasette.client.get(path, params=query)
        page = Page(answer.text)
        seen += answer.text
        texts += [element.text for element in page.all("h1")]
        inline = [script.text for script in page.all("script") if "src" not in script.attributes]
        assert not [text for text in inline if "hacked" in text], path
        handlers = [value for e in page.elements for name, value in e.attributes.items() if name.startswith("on")]
        assert not [value for value in handlers if path.startswith(BASE) or "hacked" in value], path
        assert not path.startswith(BASE) or {e.tag for e in page.elements} <= set(TAGS.split()), path
    assert any(HOSTILE_NAME in text for text in texts)
    assert "\\x00\\x1b[31m" in seen
    assert "{{ 7*7 }}" in seen
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", seen.replace("\r", ""))


TAGS = """
a abbr bdi body button caption code datalist details div em footer form h1 h2 h3 head header html input kbd label li
link main meta nav navigation-search noscript option p path pre script section select span strong style summary svg
table tape-gaps tape-growth tape-list tape-live tape-models tape-race tape-replay tape-strip tape-timeline tbody td th
thead time title tr ul
"""


async def test_a_database_with_a_hostile_name(recorded_tape, tmp_path):
    name = "<img src=x onerror=1>&db=other"
    shutil.copy(recorded_tape, tmp_path / f"{name}.db")
    datasette = Datasette([str(recorded_tape), str(tmp_path / f"{name}.db")])

    chooser = await asked(datasette, "")
    page = await datasette.client.get(BASE, params={"db": name})
    unknown = await datasette.client.get(BASE, params={"db": "<b>"})

    assert (chooser.status_code, page.status_code, unknown.status_code) == (200, 200, 404)
    for answer in (chooser, page, unknown):
        assert not [e for e in Page(answer.text).elements if e.tag == "img" or "onerror" in e.attributes]


def scope(host, server="127.0.0.1"):
    headers = [(b"host", host.encode("latin-1"))] if host is not None else []
    return {"type": "http", "server": (server, 8001), "headers": headers}


@pytest.mark.scenario("ui/Names of other sites")
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8001",
        "LOCALHOST",
        "tape.localhost",
        "127.0.0.1:8001",
        "127.8.8.8",
        "[::1]:8001",
        "[::1]",
    ],
)
def test_names_of_this_machine_are_answered(host):
    assert is_asked_for_by_name(scope(host), ())


@pytest.mark.scenario("ui/Names of other sites")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8001",
        "localhost@evil.example",
        "[::1].evil.example",
        "[::2]",
        "192.168.0.5",
        "localhost:8001:evil",
        "",
        None,
    ],
)
def test_other_names_are_not(host):
    assert not is_asked_for_by_name(scope(host), ())
    assert not is_asked_for_by_name(scope(host, "::1"), ())
    assert not is_asked_for_by_name(scope(host, "::ffff:127.0.0.1"), ())


def test_two_hosts_are_none():
    twice = scope("localhost")
    twice["headers"] *= 2
    assert not is_asked_for_by_name(twice, ())


def test_names_from_the_configuration_are_answered_and_what_came_from_elsewhere_is_not_asked():
    assert is_asked_for_by_name(scope("tape.example.org"), ["tape.example.org"])
    assert is_asked_for_by_name(scope("tape.example.org", "192.168.0.5"), ())


@pytest.mark.scenario("ui/Names of other sites")
async def test_a_page_of_another_site_reads_nothing(recorded_tape):
    datasette = Datasette([str(recorded_tape)])

    for path in (*PAGES, *ANSWERS, LIVE):
        answer = await asked(datasette, path, headers={"host": "evil.example"})
        assert answer.status_code == 403
        assert answer.text.startswith("This address answers to the names of this machine only, such as localhost.")


async def test_hosts_are_configured_with_the_plugin(recorded_tape):
    datasette = Datasette(
        [str(recorded_tape)], metadata={"plugins": {"datasette-tokentape": {"hosts": ["Tape.Example.org"]}}}
    )

    assert (await asked(datasette, "", headers={"host": "tape.example.org"})).status_code == 200
    assert (await asked(datasette, "", headers={"host": "other.example.org"})).status_code == 403


@pytest.mark.scenario("ui/What makes no sense")
@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/runs/zzz", 404, "No run 'zzz' is on this tape."),
        ("/calls/zzz", 404, "No call 'zzz' is on this tape."),
        ("/calls/01", 404, "'01' could be any of "),
        ("/calls/9999999999999999999999999", 404, "No call '9999999999999999999999999' is on this tape."),
        ("/nowhere", 404, "There is no page at '/-/tokentape/nowhere'."),
        ("/api", 404, "There is no page at '/-/tokentape/api'."),
        ("/race?calls=2", 400, "calls: name 2 to 6 calls, not 1."),
        ("/race?calls=1,2,3,4,5,6,7", 400, "calls: name 2 to 6 calls, not 7."),
        ("/race?calls=2,2", 400, "calls: name each call once."),
        ("/race?calls=2,zzz", 404, "No call 'zzz' is on this tape."),
        ("?limit=0", 400, "limit: a whole number from 1 to 500, not '0'."),
        ("?limit=1000000", 400, "limit: a whole number from 1 to 500, not '1000000'."),
        ("?limit=ten", 400, "limit: a whole number from 1 to 500, not 'ten'."),
        ("?limit=²", 400, "limit: a whole number from 1 to 500, not '²'."),
        ("?status=broken", 400, "status: one of running, completed, error, cancelled, abandoned, lost, not 'broken'."),
        ("?since=yesterday", 400, "since: a time such as 2026-11-23T18:00, not 'yesterday'."),
        ("?since=0001-01-01T00:00%2B14:00", 400, "since: a time such as"),
        ("?since=2026-02-01T00:00&until=2026-01-01T00:00", 400, "until: the range ends before it starts."),
        ("?label=env", 400, "label: key:value, not 'env'."),
        ("?calls=elsewhere", 400, "cursor: take it from the `next` of the same list."),
        ("?runs=WyJwYWdlIG9mIGNhbGxzIiwxLDFd", 400, "cursor: take it from the `next` of the same list."),
        (f"?q={'x' * 201}", 400, "q: at most 200 characters."),
        ("/calls/2?after=-2", 400, "after: a whole number from -1 to 9223372036854775807, not '-2'."),
        (
            "/calls/2?kind=music",
            400,
            "kind: one of text, reasoning, tool_args, refusal, audio_transcript, not ",
        ),
        ("?db=nothing", 404, "No open database named 'nothing' is a tape."),
        ("/models?all=maybe", 400, "all: one of 0, 1, not 'maybe'."),
    ],
)
async def test_what_makes_no_sense_is_answered_in_one_sentence(datasette, path, status, sentence):
    answer = await asked(datasette, path)

    assert answer.status_code == status
    page = Page(answer.text)
    assert page.one("html").attributes["lang"] == "en"
    (said,) = [p.words for p in page.all("p") if page.one("main") in p.around() and p.words != "LLM streams"]
    assert said.startswith(sentence)
    assert "Traceback" not in answer.text


async def test_numbers_too_large_for_sqlite(datasette):
    for path in (f"/calls/{'9' * 19}", f"/calls/{'9' * 26}", f"/runs/{'9' * 20}", f"/calls/2?after={2**63}"):
        assert (await asked(datasette, path)).status_code in {400, 404}


async def test_pages_are_only_read(datasette):
    for method in ("post", "put", "delete", "patch"):
        answer = await getattr(datasette.client, method)(f"{BASE}/models", headers={"authorization": "Bearer x"})
        assert answer.status_code in {403, 405}


async def test_a_slash_at_the_end_leads_to_the_same_page(datasette):
    answer = await asked(datasette, "/models/")

    assert (answer.status_code, answer.headers["location"]) == (302, f"{BASE}/models")


@pytest.mark.scenario("ui/No tape")
async def test_no_tape_at_all(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("create table t (x)")
    connection.close()
    datasette = Datasette([str(tmp_path / "other.db")])

    page = await asked(datasette, "")
    named = await asked(datasette, "?db=other")
    answer = await asked(datasette, "/api/v1/runs")

    assert (page.status_code, named.status_code, answer.status_code) == (404, 404, 404)
    assert "None of the open databases is a tape" in page.text
    assert "No open database named &#39;other&#39; is a tape." in named.text
    assert answer.json()["detail"].startswith("None of the open databases is a tape")


@pytest.mark.scenario("ui/A tape that cannot be read now")
async def test_a_tape_that_is_being_compacted_says_so(recorded_tape, tmp_path, monkeypatch):
    tape = tmp_path / "tape.db"
    shutil.copy(recorded_tape, tape)
    compacting = sqlite3.connect(tape, isolation_level=None)
    compacting.execute("pragma journal_mode = delete")
    monkeypatch.setattr(sqlite3, "connect", _impatient(sqlite3.connect))
    datasette = Datasette([str(tape)])
    assert (await asked(datasette, "")).status_code == 200
    compacting.execute("begin exclusive")
    try:
        page = await asked(datasette, "")
        answer = await asked(datasette, "/api/v1/runs")
    finally:
        compacting.execute("rollback")
        compacting.close()
    again = await asked(datasette, "")

    assert (page.status_code, answer.status_code, again.status_code) == (503, 503, 200)
    assert "The tape cannot be read now (database is locked); try again." in page.text
    assert answer.json()["detail"] == "The tape cannot be read now (database is locked); try again."


def _impatient(connect):
    def connected(*arguments, **keywords):
        return connect(*arguments, **{**keywords, "timeout": 0.1})

    return connected


async def test_a_tape_of_a_newer_version_without_our_views_says_what_to_do(recorded_tape, tmp_path):
    tape = tmp_path / "tape.db"
    shutil.copy(recorded_tape, tape)
    connection = sqlite3.connect(tape)
    connection.execute("pragma user_version = 99")
    connection.execute("drop view calls")
    connection.commit()
    connection.close()

    page = await asked(Datasette([str(tape)]), "")

    assert page.status_code == 503
    assert "tape.db was written by a newer version of tokentape; upgrade with: pip install -U tokentape" in page.text
    assert str(tmp_path) not in page.text


async def test_a_fault_of_ours_is_logged_and_not_shown(datasette, monkeypatch, caplog):
    monkeypatch.setattr("tokentape.tape.Tape.models", lambda *_, **__: 1 / 0)

    page = await asked(datasette, "/models")

    assert page.status_code == 500
    assert "This page could not be made; the log of the server says why." in page.text
    assert "division" not in page.text
    assert "division by zero" in caplog.text


@pytest.mark.scenario("ui/Nothing is written")
async def test_nothing_is_written(recorded_tape, tmp_path):
    tape = tmp_path / "tape.db"
    shutil.copy(recorded_tape, tape)
    before = dump(tape)
    datasette = Datasette([str(tape)])

    for path in (*PAGES, *ANSWERS):
        assert (await asked(datasette, path)).status_code == 200

    assert dump(tape) == before


def dump(path):
    connection = sqlite3.connect(path)
    try:
        return [list(connection.execute(f"select * from {table}")) for table in columns.tables()]
    finally:
        connection.close()


async def test_the_api_is_the_one_of_tokentape_api(datasette, recorded_tape):
    runs = await asked(datasette, "/api/v1/runs")
    csv = await asked(datasette, "/api/v1/runs/3/llm-calls/2/tokens?format=csv")
    schema = await asked(datasette, "/api/v1/openapi.json")
    unknown = await asked(datasette, "/api/v1/llm-calls/zzz")
    invalid = await asked(datasette, "/api/v1/runs?limit=0")
    call = await asked(datasette, "/api/v1/llm-calls/2")
    known = await asked(datasette, "/api/v1/llm-calls/2", headers={"if-none-match": call.headers["etag"]})

    assert [run["name"] for run in runs.json()["runs"]][:2] == [HOSTILE_NAME, "failures"]
    assert csv.headers["content-type"].startswith("text/csv")
    assert schema.json()["servers"] == [{"url": f"{BASE}/api"}]
    assert (unknown.status_code, invalid.status_code, known.status_code) == (404, 422, 304)
    assert unknown.headers["content-type"] == "application/problem+json"
