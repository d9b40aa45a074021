"""The race in a real browser: several calls on one clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from browser import drag, violations
from calls_to_look_at import LOOK, LOOK_MS, count_at, text_of, write, write_look
from handmade import Handmade
from tokentape.models import Part
from values import call_value

pytest_plugins = ("browser_fixtures",)
pytestmark = pytest.mark.must_run

TEXT = Part(0, "text")
QUICK = [(100.0 + 10 * i, 0, f"q{i} ") for i in range(50)]
SLOW = [(1000.0 + 250 * i, 0, f"s{i} ") for i in range(20)]
CALLS = {"LOOK": LOOK, "QUICK": QUICK, "SLOW": SLOW}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Handmade]:
    made = Handmade(tmp_path_factory.mktemp("race") / "tape.db")
    made.run(ended_ms=9000)
    write_look(made, "LOOK", call={"name": "look"})
    write(made, "QUICK", QUICK, (TEXT,), ended_ms=600, call={"name": "quick"}, token_count=200)
    write(made, "SLOW", SLOW, (TEXT,), ended_ms=6000, call={"name": "slow"})
    for number in range(4):
        write(made, f"MORE{number}", QUICK[:5], (TEXT,), ended_ms=200, call={"name": f"more {number}"})
    write(made, "FAILED", QUICK[:5], (TEXT,), ended_ms=300, call={"name": "failed"}, status="error", error_type="Boom")
    yield made
    made.close()


class Race:
    """A race's page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        expect(page.locator("tape-race.is-live")).to_be_visible()
        self.at = page.locator("tape-race .replay-at")
        self.play = page.get_by_role("button", name=re.compile("^(Play|Pause)$"))
        self.said = page.locator("tape-race > .tape-note[role=status]")

    def seek(self, ms: float) -> None:
        drag(self.page.get_by_role("slider", name="Position"), ms)

    def lane(self, name: str):
        return self.page.get_by_role("article").filter(has=self.page.get_by_role("link", name=name, exact=True))

    def texts(self, name: str) -> list[str]:
        parts = [part for part in self.lane(name).locator(".part").all() if part.is_visible()]
        return [part.locator(".part-text").text_content() for part in parts]

    def names(self) -> list[str]:
        return self.page.get_by_role("article").get_by_role("link").all_inner_texts()


@pytest.fixture
def race(page, site) -> Race:
    return Race(page, f"{site}/race?calls=LOOK,QUICK,SLOW")


@pytest.mark.scenario("ui/Calls on one clock")
@pytest.mark.parametrize("ms", [0, 50, 105, 590, 600, 1001, 3456, LOOK_MS, 6000])
def test_each_shows_what_it_had_at_the_same_moment(race, ms):
    race.seek(ms)
    for name, events in CALLS.items():
        shown = [text.replace("\x1b", "␛") for text in text_of(events, count_at(events, ms))]
        assert race.texts(name.lower()) == shown
    assert race.at.inner_text() == f"{ms:.0f} ms / 6000 ms"


@pytest.mark.scenario("ui/Calls on one clock")
def test_each_says_how_far_it_is_and_who_was_first(race):
    now = {name: race.lane(name).locator(".lane-now") for name in ("look", "quick", "slow")}
    race.seek(105)
    assert [now[name].inner_text() for name in now] == ["waiting", "1 event", "waiting"]
    race.seek(6000)
    assert [now[name].inner_text() for name in now] == ["✓ 2nd, 6.0 s", "✓ 1st, 0.6 s", "✓ 3rd, 6.0 s"]


@pytest.mark.scenario("ui/Calls on one clock")
def test_numbers_stand_below(race):
    assert race.lane("quick").locator(".lane-numbers").inner_text() == (
        "first token 0.1 s · 406.1 tok/s · 200 tokens · 4.0 tokens an event"
    )
    assert race.lane("slow").locator(".lane-numbers").inner_text() == "first token 1.0 s · 3.5 events/s · 20 events"
    assert race.lane("look").locator(".lane-numbers").inner_text().startswith("first 0.4 s (thinking), answer 0.6 s · ")


@pytest.mark.scenario("ui/Calls on one clock")
def test_a_silence_says_whose_it_is(race):
    race.seek(LOOK[20][0] - 100)
    expect(race.lane("look").locator(".replay-silence")).to_have_text("1.2 s in your code")
    expect(race.lane("quick").locator(".replay-silence")).to_have_text("")


def test_it_plays_to_the_end_of_the_longest(page, site):
    page.clock.install(time=0)
    race = Race(page, f"{site}/race?calls=LOOK,QUICK,SLOW")
    page.clock.pause_at(60_000)
    race.seek(0)
    race.play.click()
    page.clock.run_for(1000)
    assert abs(int(race.at.inner_text().split(" ms")[0]) - 1000) < 40
    race.page.get_by_label("Speed").select_option("20")
    page.clock.run_for(500)
    assert race.at.inner_text() == "6000 ms / 6000 ms"
    expect(race.play).to_have_accessible_name("Play")


@pytest.mark.scenario("ui/Calls on one clock")
def test_squeezed_are_only_silences_of_all(page, site):
    """Nobody says anything before 100 ms, and the longest silence of all of them is 500 ms, at the end."""
    page.clock.install(time=0)
    race = Race(page, f"{site}/race?calls=QUICK,SLOW")
    page.clock.pause_at(60_000)
    race.page.get_by_label("squeeze pauses").check()
    race.seek(0)
    race.play.click()
    page.clock.run_for(2000)
    squeezed = (1000 - 590) - 400
    assert abs(int(race.at.inner_text().split(" ms")[0]) - 2000 - squeezed) < 40


@pytest.mark.scenario("ui/A race as a link")
def test_the_address_says_what_is_seen(race):
    race.page.get_by_label("Speed").select_option("5")
    race.seek(1234)
    race.page.wait_for_url(re.compile(r"calls=LOOK,QUICK,SLOW&t=1234&speed=5$"))


@pytest.mark.scenario("ui/A race as a link")
def test_the_link_opens_the_same(race, site):
    race.seek(2500)
    race.page.get_by_label("Speed").select_option("2")
    race.page.get_by_role("button", name="Remove quick").click()
    race.page.get_by_role("button", name="Copy link").click()
    expect(race.said).to_have_text("Copied: it opens the race as it stands here.")
    link = race.page.evaluate("navigator.clipboard.readText()")
    assert parse_qs(urlsplit(link).query) == {"calls": ["LOOK,SLOW"], "t": ["2500"], "speed": ["2"]}

    again = Race(race.page, link)
    assert again.names() == ["look", "slow"]
    assert again.at.inner_text() == "2500 ms / 6000 ms"
    assert again.page.get_by_label("Speed").input_value() == "2"
    assert again.texts("slow") == text_of(SLOW, count_at(SLOW, 2500))


@pytest.mark.scenario("ui/Calls join and leave a race")
def test_a_call_joins_and_another_leaves(race):
    race.page.get_by_label("another call").fill("MORE0")
    race.page.get_by_role("button", name="Add").click()
    expect(race.lane("more 0")).to_be_visible()
    assert race.names() == ["look", "quick", "slow", "more 0"]
    expect(race.said).to_have_text("more 0 joined.")
    race.page.wait_for_url(re.compile("calls=LOOK,QUICK,SLOW,MORE0&"))
    race.page.get_by_role("button", name="Remove slow").click()
    race.page.get_by_role("button", name="Remove look").click()
    assert race.names() == ["quick", "more 0"]
    assert race.at.inner_text().endswith("/ 600 ms")
    expect(race.play).to_be_focused()
    race.page.get_by_role("button", name="Remove quick").click()
    expect(race.said).to_have_text("A race needs two calls: add one.")


@pytest.mark.scenario("ui/Calls join and leave a race")
def test_the_newest_calls_are_offered(race):
    offered = race.page.locator("datalist option").evaluate_all("all => all.map(one => [one.value, one.label])")
    assert dict(offered)["FAILED"] == "failed · error · first token 0.1 s"
    assert len(offered) == 8


@pytest.mark.scenario("ui/Calls join and leave a race")
def test_who_cannot_join_is_told_why(race, watch):
    add = race.page.get_by_role("button", name="Add")
    field = race.page.get_by_label("another call")
    said = race.said
    field.fill("NOBODY")
    add.click()
    expect(said).to_have_text(re.compile(r"^Not added: the API answered 404 \(.*NOBODY.*\)\.$"))
    field.fill("LOOK")
    add.click()
    expect(said).to_have_text("Not added: it is here already.")
    for number in range(3):
        field.fill(f"MORE{number}")
        add.click()
        expect(race.lane(f"more {number}")).to_be_visible()
    field.fill("MORE3")
    add.click()
    expect(said).to_have_text("Not added: 6 calls are the most.")
    assert len(race.names()) == 6
    # The call and its events were asked for; what the console says of the second may come late.
    assert [trouble for trouble in watch.troubles if "404" not in trouble] == []
    watch.troubles.clear()


@pytest.mark.scenario("ui/Keys of a replay")
def test_keys(race):
    race.page.get_by_role("region", name="Answer of quick").focus()
    race.page.keyboard.press("5")
    assert race.at.inner_text() == "3000 ms / 6000 ms"
    race.page.keyboard.press("ArrowLeft")
    assert race.at.inner_text() == "2700 ms / 6000 ms"
    race.page.keyboard.press(".")
    assert race.at.inner_text() == "2750 ms / 6000 ms"
    race.page.get_by_label("another call").press_sequentially("0.5 ")
    assert race.at.inner_text() == "2750 ms / 6000 ms"
    race.page.get_by_role("region", name="Answer of quick").focus()
    race.page.keyboard.press("?")
    expect(race.page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_steps_go_through_the_events_of_all(race):
    moments = sorted(ms for events in CALLS.values() for ms, _, _ in events if ms > 545)
    race.seek(545)
    race.page.get_by_role("region", name="Answer of quick").focus()
    for ms in moments[:12]:
        race.page.keyboard.press(".")
        assert race.at.inner_text() == f"{ms:.0f} ms / 6000 ms"


def test_a_click_on_a_lane_moves_all(race):
    box = race.lane("quick").locator("canvas").bounding_box()
    race.page.mouse.click(box["x"] + (box["width"] - 16) / 2, box["y"] + 10)
    assert abs(int(race.at.inner_text().split(" ms")[0]) - 3000) < 15
    assert race.texts("slow") == text_of(SLOW, count_at(SLOW, 3000))


def test_a_failed_call_says_how_it_ended(page, site):
    race = Race(page, f"{site}/race?calls=FAILED,QUICK")
    race.seek(600)
    assert race.lane("failed").locator(".lane-now").inner_text() == "✕ error, 0.3 s"
    assert race.lane("quick").locator(".lane-now").inner_text() == "✓ 1st, 0.6 s"


@pytest.mark.scenario("ui/Calls on one clock")
def test_a_call_that_runs_takes_part(page, site, made):
    started_us = time.time_ns() // 1000 - 200_000
    made.call("RUNS", (50.0, 0, "so "), (80.0, 0, "far"), running=True, call={"started_unix_us": started_us})
    race = Race(page, f"{site}/race?calls=RUNS,QUICK")
    runs = page.get_by_role("article").first.locator(".part-text")
    expect(runs).to_have_text("so far")
    expect(race.play).to_have_accessible_name("Pause")
    made.events(call_value("RUNS", started_unix_us=started_us), (120.0, 0, ", and on"))
    expect(runs).to_have_text("so far, and on")
    race.seek(85)
    race.play.click()
    race.seek(85)
    expect(runs).to_have_text("so far")


def test_where_the_api_fails_the_tables_stay(page, site, watch):
    page.route("**/api/v1/**", lambda route: route.abort())
    page.goto(f"{site}/race?calls=LOOK,QUICK")
    note = page.locator("tape-race > .tape-note")
    expect(note).to_have_text("This is the plain version: the server cannot be reached.")
    expect(page.locator("tape-race table")).to_be_visible()
    watch.troubles.clear()


@pytest.mark.scenario("ui/A race in every width")
@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_violation_and_no_scrolling_sideways(page, site, axe, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    race = Race(page, f"{site}/race?calls=LOOK,QUICK,SLOW,FAILED")
    race.seek(2000)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page, axe) == []
