"""The pages in Datasette, as somebody without JavaScript reads them."""

from __future__ import annotations

import re
import shutil
import sqlite3

import pytest
from datasette.app import Datasette

import tokentape
from html_reader import Page
from tokentape.store import columns

pytest_plugins = ("recorded_tape",)

BASE = "/-/tokentape"


@pytest.fixture(scope="module")
def rows(recorded_tape):
    """Calls and runs of the tape, by their names' beginnings."""
    connection = sqlite3.connect(recorded_tape)
    connection.row_factory = sqlite3.Row
    calls = [dict(row) for row in connection.execute("select * from llm_calls order by id")]
    runs = [dict(row) for row in connection.execute("select * from runs order by id")]
    connection.close()
    return calls, runs


@pytest.fixture(scope="module")
def datasette(recorded_tape):
    return Datasette([str(recorded_tape)])


@pytest.fixture
def calls(rows):
    return rows[0]


@pytest.fixture
def runs(rows):
    return {run["name"]: run for run in rows[1]}


def call_like(calls, **wanted):
    return next(call for call in calls if all(call[name] == value for name, value in wanted.items()))


async def opened(datasette, path, status=200):
    answer = await datasette.client.get(path)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def table(page, caption):
    """Rows of the table with this beginning of a caption."""
    found = next(element for element in page.all("caption") if element.words.startswith(caption))
    return page.rows(found.parent)


@pytest.mark.scenario("ui/Runs and calls without JavaScript")
async def test_the_first_page_lists_runs_and_calls_the_newest_first(datasette, rows, calls, runs):
    page = await opened(datasette, BASE)

    shown = table(page, "Newest first; calls of runs")
    assert [row[0].removesuffix(" inside another") for row in shown] == [run["name"] for run in reversed(rows[1])]
    support = next(row for row in shown if row[0].startswith("support-agent"))
    assert support[1] == "✓ completed"
    assert support[2] == runs["support-agent"]["started_at"][:19].replace("T", " ")
    assert support[4] == "6, 1 failed"
    assert support[5] == "claude-y, gpt-x, o-think"
    listed = page.rows(page.all("caption")[-1].parent)
    newest = sorted(calls, key=lambda call: call["started_unix_us"], reverse=True)
    assert [row[1] for row in listed] == [" ".join(call["name"].split()) for call in newest]


@pytest.mark.scenario("ui/Endings look different without colour")
async def test_each_ending_has_a_sign_and_a_word(datasette):
    page = await opened(datasette, BASE)

    said = {element.words for element in page.all("span") if element.attributes.get("class", "").startswith("status ")}
    assert said == {"✓ completed", "✕ error", "⊘ cancelled", "◇ abandoned", "? lost"}


@pytest.mark.scenario("ui/Filters")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "abandoned"}, lambda call: call["status"] == "abandoned"),
        ({"status": "lost"}, lambda call: call["id"] == 1),
        ({"model": "claude-y"}, lambda call: call["request_model"] == "claude-y"),
        ({"provider": "anthropic"}, lambda call: call["provider"] == "anthropic"),
        ({"adapter": "langchain"}, lambda call: call["adapter"] == "langchain"),
        ({"label": "user:17"}, lambda call: '"user": "17"' in (call["labels_json"] or "")),
        ({"stalled": "1", "adapter": "anthropic"}, lambda call: call["adapter"] == "anthropic"),
        ({"until": "2001-01-01T00:00"}, lambda call: False),
        ({"since": "2001-01-01T00:00"}, lambda call: True),
        ({"q": "LEIPZIG"}, lambda call: call["id"] == 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_a_form_narrows_the_calls(datasette, calls, query, expected):
    answer = await datasette.client.get(BASE, params=query)
    page = Page(answer.text)

    uids = {element.attributes["value"] for element in page.all("input", name="calls")}
    assert uids == {call["uid"] for call in calls if expected(call)}
    form = page.one("form", role="search")
    assert form.attributes["method"] == "get"
    for name, value in query.items():
        fields = [field for field in page.elements if field.attributes.get("name") == name and form in field.around()]
        assert any(
            field.attributes.get("value") == value or any(o.words == value for o in page.all("option", selected=None))
            for field in fields
        )


async def test_runs_of_the_calls_that_were_asked_for_are_named(datasette):
    page = await opened(datasette, f"{BASE}?status=abandoned")

    assert [row[0] for row in table(page, "Runs that calls below belong to")] == ["inner inside another"]


@pytest.mark.scenario("ui/Older ones")
async def test_older_runs_and_calls_are_a_link_away(datasette, calls):
    seen, path = [], f"{BASE}?limit=5"
    while path:
        page = await opened(datasette, path)
        seen += [element.attributes["value"] for element in page.all("input", name="calls")]
        links = [link.attributes["href"] for link in page.all("a", rel="next") if link.words == "Older calls"]
        path = links[0] if links else None

    newest = sorted(calls, key=lambda call: (call["started_unix_us"], call["id"]), reverse=True)
    assert seen == [call["uid"] for call in newest]


@pytest.mark.scenario("ui/A run without JavaScript")
async def test_a_run_has_its_numbers_its_calls_and_its_marks(datasette, runs):
    page = await opened(datasette, f"{BASE}/runs/{runs['support-agent']['uid']}")

    assert page.one("h1").words == "support-agent ✓ completed"
    shown = table(page, "In the order they began")
    began = ["gpt-x", "gpt-x", "└made", "tool", "claude-y", "gpt-x", "o-think", "gpt-x"]
    assert [row[0].split(" ")[0] for row in shown] == began
    assert "made by the call above:" in shown[2][0]
    assert shown[1][6] == "counted once, below"
    assert shown[2][6].startswith("12 tokens, ")
    assert shown[3][0] == "tool search_orders"
    assert shown[-1][0].endswith(" in inner")
    tiles = [tile.words for tile in page.all("div") if tile.attributes.get("class", "").startswith("tile ")]
    assert any("longest stall" in tile for tile in tiles)
    spent = dict(table(page, "Each moment counts once"))
    assert list(spent) == ["model", "tool search_orders", "outside"]
    everything = page.one("main").words
    assert "in models" in everything
    assert "1 call without usage" in everything
    assert '"ticket": 1182' in everything


async def test_a_run_inside_another_leads_to_it(datasette, runs):
    page = await opened(datasette, f"{BASE}/runs/{runs['inner']['uid']}")

    sub = page.one("p", **{"class": "sub"})
    (outer,) = [link for link in page.all("a") if sub in link.around()]
    assert outer.words == "support-agent"
    assert outer.attributes["href"] == f"{BASE}/runs/{runs['support-agent']['uid']}"


@pytest.mark.scenario("ui/A call without JavaScript")
async def test_a_call_has_its_numbers_its_stalls_its_text_and_its_events(datasette, calls):
    call = calls[1]
    page = await opened(datasette, f"{BASE}/calls/{call['uid']}")

    assert page.one("h1").words == f"{call['name']} ✓ completed, stop"
    stalls = table(page, "Stalls: gaps of at least 0.2 s")
    assert [(row[0], row[1]) for row in stalls if "event 8" in row[0]] == [
        ("before event 8/15", "waiting for provider or network")
    ]
    said = next(element for element in page.all("div") if element.attributes.get("class") == "said")
    assert said.words == "Your order left our warehouse on Monday … and reached the sorting centre in Leipzig."
    events = table(page, "Of 15 events")
    assert [row[1] for row in events][:3] == ["Your", "order", "left"]
    assert [row[0] for row in events] == [str(number) for number in range(1, 16)]
    assert "8" in [row[0] for row in events if row[4].endswith("stall")]
    assert table(page, "When which share")[-1][:2] == ["100 %", "15"]
    how_much = {row[0].partition("output_tokens")[0]: row[1] for row in table(page, "How much")}
    assert how_much["output tokens"] == "30"


@pytest.mark.scenario("ui/What a number means")
async def test_each_number_says_what_it_means_to_pointer_and_keyboard(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{calls[1]['uid']}")

    terms = [element for element in page.all("button") if element.attributes.get("class") == "term"]
    assert len(terms) > 30
    for term in terms:
        definition = page.one("span", id=term.attributes["popovertarget"])
        assert "popover" in definition.attributes
        assert term.attributes["title"] in definition.words
    rate = page.one("span", id="number-decode_tokens_per_second").words
    meant = columns.definition("decode_tokens_per_second")
    assert meant.text in rate
    assert f"Ns: {columns.SYMBOLS['Ns']}" in rate
    assert f"Not known {meant.missing}." in rate


@pytest.mark.scenario("ui/Parts apart")
async def test_parts_stand_apart(datasette, calls):
    by_model = await opened(datasette, f"{BASE}/calls/{call_like(calls, request_model='o-think')['uid']}")
    tools = await opened(datasette, f"{BASE}/calls/{call_like(calls, finish_reason='tool_calls')['uid']}")
    two = call_like(calls, finish_reason='["stop", "length"]')
    both = await opened(datasette, f"{BASE}/calls/{two['uid']}")

    def parts(page):
        return [section.words for section in page.all("section") if "part " in (section.attributes.get("class") or "")]

    assert parts(by_model) == [
        "Thinking First the question, then what follows from it.",
        "Text The answer came after.",
    ]
    assert parts(tools)[0].startswith("Tool arguments <u>search</u> {")
    assert parts(both) == ["Text One of two answers.", "Text, choice 1 One of two answers."]


async def test_a_thinking_model_shows_both_first_tokens(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{call_like(calls, request_model='o-think')['uid']}")

    tiles = [tile.words for tile in page.all("div", **{"class": "tile"})]
    assert any("(thinking)" in tile for tile in tiles)
    assert any("first answer token" in tile for tile in tiles)


async def test_linked_calls_lead_to_each_other(datasette, calls):
    framework, sdk = calls[2], calls[3]
    assert (framework["layer"], sdk["parent_id"]) == ("framework", framework["id"])
    over = await opened(datasette, f"{BASE}/calls/{framework['uid']}")
    under = await opened(datasette, f"{BASE}/calls/{sdk['uid']}")

    assert [link for link in over.all("a") if link.attributes["href"] == f"{BASE}/calls/{sdk['uid']}"]
    assert [link for link in under.all("a") if link.attributes["href"] == f"{BASE}/calls/{framework['uid']}"]
    assert "Made 1 call, whose tokens count:" in over.one("main").words


async def test_what_went_wrong_is_told(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{call_like(calls, http_status=400)['uid']}")

    (notice,) = [p.words for p in page.all("p") if "failed" in (p.attributes.get("class") or "")]
    assert notice.startswith("HTTP 400 ")
    assert "no such <b>parameter</b>" in notice


async def test_a_call_that_lost_its_process_shows_what_had_come(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{calls[0]['uid']}")

    assert page.one("h1").words.endswith("? lost")
    said = next(element for element in page.all("div") if element.attributes.get("class") == "said")
    assert said.words == "The process of this call was"


async def test_a_call_without_text_says_so(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{call_like(calls, content_level='timings')['uid']}")

    assert "No text was kept." in page.one("main").words
    assert {row[1] for row in table(page, "Of 7 events")} == {"not kept"}


async def test_a_call_in_one_piece_says_so(datasette, calls):
    page = await opened(datasette, f"{BASE}/calls/{call_like(calls, streaming=0)['uid']}")

    assert "It was answered in one piece, not streamed." in page.one("main").words


@pytest.mark.scenario("ui/Compacted calls")
@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        ("aggregated", "the tape had reached its size (max_mb)"),
        ("packed", "they were packed"),
        ("dropped", "the tape could not be written, and no more could be held"),
        ("sampled_out", "by the sample rate they were not kept"),
    ],
)
async def test_compacted_calls_say_what_is_left_of_them(recorded_tape, tmp_path, calls, kept, reason):
    tape = tmp_path / "tape.db"
    source, copy = sqlite3.connect(recorded_tape), sqlite3.connect(tape)
    source.backup(copy)
    copy.execute("delete from llm_tokens where call_id = 2")
    copy.execute("update llm_calls set events_kept = ? where id = 2", [kept])
    copy.commit()
    copy.close()
    source.close()

    page = await opened(Datasette([str(tape)]), f"{BASE}/calls/{calls[1]['uid']}")

    (notice,) = [p.words for p in page.all("p", **{"class": "notice"})]
    assert notice == (
        f"None of its 15 token events is left: {reason}. Its numbers are those of all events; its text is kept."
    )
    assert "None of its events is kept." in page.one("main").words


@pytest.mark.scenario("ui/A page of events")
async def test_events_come_a_page_at_a_time(datasette, calls):
    seen, path = [], f"{BASE}/calls/{calls[1]['uid']}?limit=6"
    while path:
        page = await opened(datasette, path)
        seen += [row[1] for row in table(page, "Of 15 events")]
        links = [link.attributes["href"] for link in page.all("a", rel="next")]
        path = f"{links[0].partition('#')[0]}&limit=6" if links else None

    assert len(seen) == 15
    assert seen[-1] == "Leipzig."


async def test_events_of_a_kind_or_with_a_text(datasette, calls):
    thinking = call_like(calls, request_model="o-think")
    kind = await opened(datasette, f"{BASE}/calls/{thinking['uid']}?kind=reasoning")
    text = await opened(datasette, f"{BASE}/calls/{calls[1]['uid']}?q=WARE")

    assert {row[2] for row in table(kind, "Of 12 events")} == {"thinking"}
    assert [row[1] for row in table(text, "Of 15 events")] == ["warehouse"]


@pytest.mark.scenario("ui/Race without JavaScript")
async def test_a_race_puts_calls_side_by_side(datasette, calls):
    uids = [calls[1]["uid"], calls[4]["uid"]]
    by_comma = await opened(datasette, f"{BASE}/race?calls={','.join(uids)}")
    by_form = await opened(datasette, f"{BASE}/race?calls={uids[0]}&calls={uids[1]}")

    for page in (by_comma, by_form):
        assert page.one("tape-race").attributes["data-calls"] == ",".join(uids)
        shown = {row[0].split(" ")[0]: row[1:] for row in table(page, "Side by side")}
        assert shown["model"] == ["gpt-x", "claude-y"]
        assert "Leipzig" in page.one("main").words


async def test_a_race_without_calls_offers_some(datasette, calls):
    page = await opened(datasette, f"{BASE}/race")

    assert {box.attributes["value"] for box in page.all("input", name="calls")} == {call["uid"] for call in calls}


@pytest.mark.scenario("ui/Models without JavaScript")
async def test_models_have_percentiles_over_their_calls(datasette):
    page = await opened(datasette, f"{BASE}/models")
    everything = await opened(datasette, f"{BASE}/models?all=1")

    shown = {row[0]: row for row in table(page, "Most used first")}
    assert shown["gpt-x"][1:4] == ["openai", "12", "5"]
    assert shown["claude-y"][:2] == ["claude-y", "anthropic"]
    assert [row[0] for row in table(page, "Calls that stalled most")].count("claude-y") == 1
    assert "calls that completed" in page.one("main").words
    assert "all calls, those that failed too" in everything.one("main").words


@pytest.mark.scenario("ui/Live without JavaScript")
async def test_live_shows_what_is_in_flight_and_what_it_waits_for(tmp_path):
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    with tokentape.start_llm_stream(model="m", provider="acme") as stream:
        stream.add_token("Hel")
        assert tokentape.flush()
        page = await opened(Datasette([str(tmp_path / "tape.db")]), f"{BASE}/live")
        call = await opened(Datasette([str(tmp_path / "tape.db")]), f"{BASE}/calls/1")

    ((name, status, model, waits, events, _, _),) = table(page, "Calls that have not ended")
    assert (status, model, events) == ("● running", "m", "1")
    assert re.fullmatch(r"event 2, for [\d.]+ m?s", waits)
    assert name.startswith("m ")
    assert "Load it again" in page.one("noscript").words
    assert re.search(r"It waits for event 2, for [\d.]+ m?s\.", call.one("main").words)


async def test_live_says_when_nothing_is_in_flight(datasette):
    page = await opened(datasette, f"{BASE}/live")

    assert "No call is in flight." in page.one("main").words


async def test_an_empty_tape_says_what_to_do(tmp_path):
    tokentape.enable(db=tmp_path / "tape.db")
    tokentape.disable()
    datasette = Datasette([str(tmp_path / "tape.db")])

    assert "No call is recorded yet: tokentape run app.py" in (await opened(datasette, BASE)).one("main").words
    for page in ("models", "live", "race"):
        await opened(datasette, f"{BASE}/{page}")


CALL_ELEMENTS = {name: {"data-call"} for name in ("tape-strip", "tape-replay", "tape-gaps", "tape-growth", "tape-list")}
PAGES = ("", "/models", "/live", "/race", "/race?calls=2,5", "/calls/2", "/runs/2", "/nowhere")


@pytest.mark.scenario("ui/Every page can be read by a screen reader")
@pytest.mark.parametrize("path", PAGES)
async def test_every_page_has_what_assistive_technology_needs(datasette, path):
    page = await opened(datasette, BASE + path, 404 if path == "/nowhere" else 200)

    assert page.one("html").attributes["lang"] == "en"
    assert len(page.all("h1")) == 1
    skip = next(element for element in page.elements if element.tag == "a")
    assert (skip.words, skip.attributes["href"]) == ("Skip to the content", "#content")
    page.one("main", id="content")
    assert [link.words for link in page.all("a") if page.one("nav", **{"class": "pages"}) in link.around()] == [
        "Runs and calls",
        "Models",
        "Race",
        "Live",
    ]
    for found in page.all("table"):
        assert [caption for caption in page.all("caption") if caption.parent is found]
    assert all(cell.attributes.get("scope") for cell in page.all("th"))
    for field in (field for tag in ("input", "select") for field in page.all(tag)):
        named = field.attributes.get("aria-label") or any(element.tag == "label" for element in field.around())
        assert named or field.attributes["type"] == "hidden"
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("path", "elements"),
    [
        ("", {"tape-timeline": {}}),
        ("/runs/2", {"tape-timeline": {"data-run"}}),
        ("/calls/2", CALL_ELEMENTS),
        ("/race?calls=2,5", {"tape-race": {"data-calls"}}),
        ("/models", {"tape-models": {"data-all"}}),
        ("/live", {"tape-live": {}}),
    ],
)
async def test_elements_are_told_where_the_api_is_and_wrap_what_they_replace(datasette, path, elements):
    page = await opened(datasette, BASE + path)

    modules = {script.attributes["src"].rpartition("/")[2] for script in page.all("script", type="module")}
    assert modules == {f"{name}.js" for name in elements}
    for name, more in elements.items():
        element = page.one(name)
        assert set(element.attributes) == {"data-api", "data-pages", "data-query", *more}
        assert element.attributes["data-api"] == f"{BASE}/api/v1"
        assert element.words


@pytest.mark.scenario("ui/From Datasette to the pages")
async def test_datasette_links_to_the_pages(datasette, rows, calls):
    home = await opened(datasette, "/")
    tables = await opened(datasette, "/tape/llm_calls?_sort=id")
    view = await opened(datasette, "/tape/run_stats")
    other = await opened(datasette, "/tape/call_labels")

    assert [link for link in home.all("a") if link.attributes["href"] == BASE and link.words == "LLM streams"]
    assert [link.attributes["href"] for link in tables.all("a") if link.words == "▶ play"] == [
        f"{BASE}/calls/{call['uid']}" for call in calls
    ]
    assert {link.attributes["href"] for link in view.all("a") if link.words == "▶ timeline"} == {
        f"{BASE}/runs/{run['uid']}" for run in rows[1]
    }
    assert not [link for link in other.all("a") if "▶" in link.words]


async def test_a_database_that_is_no_tape_has_no_links(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("create table llm_calls (uid text)")
    connection.execute("insert into llm_calls values ('x')")
    connection.commit()
    connection.close()
    datasette = Datasette([str(tmp_path / "other.db")])

    assert not [link for link in (await opened(datasette, "/")).all("a") if link.words == "LLM streams"]
    assert not [link for link in (await opened(datasette, "/other/llm_calls")).all("a") if "▶" in link.words]


@pytest.mark.scenario("ui/Several tapes")
async def test_of_several_tapes_each_has_its_pages(recorded_tape, tmp_path, calls):
    tokentape.enable(db=tmp_path / "second.db")
    with tokentape.start_llm_stream(model="only-here", provider="acme") as stream:
        stream.add_token("Hello")
    tokentape.disable()
    shutil.copy(tmp_path / "second.db", tmp_path / "a & b.db")
    datasette = Datasette([str(recorded_tape), str(tmp_path / "a & b.db")])

    chooser = await opened(datasette, BASE)
    links = {link.words: link.attributes["href"] for link in chooser.all("a") if "db=" in link.attributes["href"]}
    assert links == {"tape": f"{BASE}?db=tape", "a & b": f"{BASE}?db=a+%26+b"}
    second = await opened(datasette, links["a & b"])
    assert "only-here" in second.one("main").words
    assert "claude-y" not in second.one("main").words
    assert second.one("tape-timeline").attributes["data-query"] == "db=a+%26+b"
    ours = [link.attributes["href"] for link in second.all("a") if re.match(rf"{BASE}/", link.attributes["href"])]
    assert all("db=a+%26+b" in href for href in ours)
    for href in ours:
        await opened(datasette, href)
    form = second.one("form", role="search")
    (db,) = [field for field in second.all("input", name="db") if form in field.around()]
    assert db.attributes["value"] == "a & b"
    answer = await datasette.client.get(f"{BASE}/api/v1/llm-calls?db=a+%26+b")
    assert [call["model"] for call in answer.json()["calls"]] == ["only-here"]


async def test_of_several_tapes_one_has_to_be_chosen(recorded_tape, tmp_path):
    shutil.copy(recorded_tape, tmp_path / "copy.db")
    datasette = Datasette([str(recorded_tape), str(tmp_path / "copy.db")])

    page = await opened(datasette, f"{BASE}/models", 400)
    answer = await datasette.client.get(f"{BASE}/api/v1/runs")

    assert "Several tapes are open: choose one with ?db=NAME." in page.one("main").words
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Several tapes are open: choose one with ?db=NAME."
    assert answer.headers["content-type"] == "application/problem+json"


async def test_one_tape_among_other_databases_needs_no_name(recorded_tape, tmp_path):
    sqlite3.connect(tmp_path / "other.db").execute("create table t (x)").connection.close()
    datasette = Datasette([str(tmp_path / "other.db"), str(recorded_tape)], memory=True)

    page = await opened(datasette, BASE)

    assert "gpt-x" in page.one("main").words
    assert not [link for link in page.all("a") if "db=" in link.attributes["href"]]


async def test_pages_below_another_base_url(recorded_tape):
    datasette = Datasette([str(recorded_tape)], settings={"base_url": "/data/"})

    page = await opened(datasette, BASE)

    ours = [link.attributes["href"] for link in page.all("a") if "tokentape" in link.attributes["href"]]
    assert ours
    assert all(href.startswith(f"/data{BASE}") for href in ours)
    assert page.one("tape-timeline").attributes["data-api"] == f"/data{BASE}/api/v1"
    answer = await datasette.client.get(f"{BASE}/api/v1/runs")
    assert answer.status_code == 200
    assert "script-src" in answer.headers["content-security-policy"]
