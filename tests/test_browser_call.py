"""The page of a call in a real browser: strip, replay, list, and the drawings beside them."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Page, expect

from browser import drag, pages, violations
from calls_to_look_at import LOOK, LOOK_MS, LOOK_PARTS, STALLS, count_at, text_of, write, write_look
from handmade import Handmade
from tokentape.models import Part

pytest_plugins = ("browser_fixtures", "recorded_tape")
pytestmark = pytest.mark.must_run

TEXT = Part(0, "text")
LONG = [(100.0 + 10 * i, 0, f" w{i}" + ("\n" if i % 17 == 0 else "")) for i in range(5000)]
HOSTILE = [
    *("<scr", "ipt>window.hacked=1</scr", "ipt>", "<img src=x onerror=window.hacked=1>", "</tape-replay>"),
    *("\u05e9\u05dc\u05d5\u05dd", "\u202egnp.exe", "\x00\x1b[31m", "&lt;b&gt;", "=cmd()", "\U0001f600"),
]
# As many bytes as a script of a page may have altogether.
SCRIPTS = 60_000


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Handmade]:
    made = Handmade(tmp_path_factory.mktemp("call") / "tape.db")
    made.run(ended_ms=9000)
    write_look(made, "LOOK")
    write(made, "LONG", LONG, (TEXT,), ended_ms=LONG[-1][0] + 5)
    both = [(100.0 + 10 * i, 1 - i % 2, f"{'ba'[i % 2]}{i // 2} ") for i in range(20)]  # the second comes first
    write(made, "TWO", both, (Part(0, "text", choice=0), Part(1, "text", choice=1)), ended_ms=400)
    chunks = [(100.0, 0, "a"), (100.0, 1, "b"), (150.0, 0, "c"), (150.0, 1, "d"), (250.0, 0, "e")]
    write(made, "CHUNKS", chunks, (TEXT, Part(1, "reasoning")), ended_ms=300)
    hostile = [(100.0 + 10 * i, 0, token) for i, token in enumerate(HOSTILE)]
    write(made, "HOSTILE", hostile, (TEXT,), ended_ms=400, call={"name": HOSTILE[0] + HOSTILE[1] + HOSTILE[2]})
    write(made, "HUGE", [(100.0, 0, "x" * 1_000_000), (200.0, 0, " end")], (TEXT,), ended_ms=300)
    silent = [(100.0 + 100 * i, 0, None) for i in range(5)]
    write(made, "TIMINGS", silent, (TEXT,), ended_ms=600, call={"content_level": "timings"})
    masked = [(100.0, 0, "key "), (120.0, 0, "[masked]"), (140.0, 0, ""), (160.0, 0, " end")]
    write(made, "MASKED", masked, (TEXT,), ended_ms=200)
    write(made, "NONE", [], (), ended_ms=1500, status="error", error_type="ReadTimeout")
    write(made, "ONE", [(250.0, 0, "Yes.")], (TEXT,), ended_ms=300)
    write(made, "GONE", LOOK[:3], (LOOK_PARTS[0],), ended_ms=500, event_count=3)
    write(made, "HOLES", LONG[:100], (TEXT,), ended_ms=LONG[99][0] + 5, event_count=100)
    with closing(sqlite3.connect(made.path)) as db, db:
        db.execute("UPDATE llm_calls SET events_kept = 'aggregated' WHERE uid IN ('GONE', 'HOLES')")
        holes = "(SELECT id FROM llm_calls WHERE uid = 'HOLES')"
        db.execute(f"DELETE FROM llm_tokens WHERE token_index BETWEEN 10 AND 89 AND call_id = {holes}")
        db.execute("DELETE FROM llm_tokens WHERE call_id = (SELECT id FROM llm_calls WHERE uid = 'GONE')")
    yield made
    made.close()


class Call:
    """A call's page, as somebody who looks at it finds things."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        expect(page.locator("tape-list.is-live")).to_be_visible()
        expect(page.locator("tape-replay.is-live")).to_be_visible()
        self.at = page.locator("tape-replay .replay-at")
        self.play = page.get_by_role("button", name=re.compile("^(Play|Pause)$"))
        self.range = page.get_by_role("slider", name="Position")
        self.speed = page.get_by_label("Speed")

    @property
    def position(self) -> tuple[int, int]:
        """Events and milliseconds that are shown."""
        found = re.fullmatch(r"Event (\S+)/\S+ · (.+) ms / .+ ms", self.at.inner_text())
        assert found, self.at.inner_text()
        return int(found[1].replace("\u202f", "")), int(found[2].replace("\u202f", ""))

    def seek(self, ms: float) -> None:
        """As if somebody dragged the scrubber there."""
        drag(self.range, ms)

    def texts(self) -> list[str]:
        """What is shown of each part."""
        parts = [part for part in self.page.locator("tape-replay .part").all() if part.is_visible()]
        return [part.locator(".part-text").text_content() for part in parts]

    def focus(self) -> None:
        self.page.locator("tape-replay .replay-text").focus()

    def rows(self) -> list[list[str]]:
        """Cells of the rows that exist, from the top."""
        return self.page.locator("tape-list .list-body .list-row:not([hidden])").evaluate_all(
            "rows => rows.sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))"
            ".map(row => [...row.children].map(cell => cell.textContent))"
        )

    def row(self, number: int):
        """The row of an event, counted from 1."""
        return self.page.locator(f'tape-list .list-body [aria-rowindex="{number + 1}"]')

    def in_view(self, number: int) -> bool:
        """Whether the row of an event is in the part of the list that is shown."""
        view, row = self.page.get_by_role("grid").bounding_box(), self.row(number).bounding_box()
        return view["y"] < row["y"] and row["y"] + row["height"] <= view["y"] + view["height"] + 1

    def frame(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def look(page, site) -> Call:
    return Call(page, f"{site}/calls/LOOK")


def printed(texts: list[str]) -> list[str]:
    """As the replay shows them: an ESC is a picture of one."""
    return [text.replace("\x1b", "␛").replace("\x00", "␀") for text in texts]


@pytest.fixture
def stopped(page, site) -> Call:
    """The page with a clock that goes on only when it is told to."""
    page.clock.install(time=0)
    call = Call(page, f"{site}/calls/LOOK")
    page.clock.pause_at(60_000)
    call.seek(0)
    return call


@pytest.mark.scenario("retention/Reading what is left")
def test_removed_events_are_a_hole_and_no_gap(page, site):
    call = Call(page, f"{site}/calls/HOLES")
    assert call.at.inner_text() == "Event 100/100 · 1095 ms / 1095 ms"
    texts = [token for _, _, token in LONG[:100]]
    assert call.texts() == ["".join([*texts[:10], "…", *texts[90:]])]
    expect(page.locator("tape-replay")).to_contain_text("20 events of 100 are kept: … is the others.")
    call.seek(500)
    assert call.at.inner_text().startswith("Event 10/100 ")
    listed = {int(row[0]): row[4] for row in call.rows()}
    assert (listed[10], listed[91], listed[92]) == ("10", "", "10")
    page.get_by_role("button", name="Copy rows").click()
    expect(page.locator(".list-count")).to_have_text("Copied rows of 20 events")
    copied = [line.split("\t") for line in page.evaluate("navigator.clipboard.readText()").split("\n")[1:]]
    assert [row[4] for row in copied][9:12] == ["10.000", "", "10.000"]
    expect(page.locator("tape-gaps .gaps-note")).to_have_text("18 gaps, longest 10 ms")
    expect(page.locator("main")).to_contain_text("20 of its 100 token events are left")


# Replay


@pytest.mark.scenario("ui/The answer appears as it came")
def test_the_whole_answer_is_there_at_first(look):
    assert look.at.inner_text() == f"Event {len(LOOK)}/{len(LOOK)} · {LOOK_MS:.0f} ms / {LOOK_MS:.0f} ms"
    assert look.texts() == printed(text_of(LOOK, len(LOOK)))
    assert look.page.locator("tape-replay .part-name").all_inner_texts() == [
        "thinking", "text", "tool arguments · search_orders",
    ]  # fmt: skip


@pytest.mark.scenario("ui/The answer appears as it came")
@pytest.mark.parametrize("speed", ["0.25", "0.5", "1", "2", "5", "10", "20"])
def test_at_each_speed_what_came_by_then_is_shown(stopped, speed):
    stopped.speed.select_option(speed)
    stopped.play.click()
    for passed in (200, 300, 400):
        stopped.page.clock.run_for(passed / float(speed) * (2 if float(speed) > 2 else 1))
        count, ms = stopped.position
        assert (count, stopped.texts()) == (count_at(LOOK, ms), printed(text_of(LOOK, count)))
    expected = 900 * (2 if float(speed) > 2 else 1)
    assert abs(ms - expected) <= 3 * 17 * float(speed) + 2


def test_playing_ends_at_the_end_and_begins_anew(stopped):
    stopped.seek(LOOK_MS - 100)
    stopped.play.click()
    stopped.page.clock.run_for(500)
    assert stopped.position == (len(LOOK), LOOK_MS)
    expect(stopped.play).to_have_accessible_name("Play")
    stopped.play.click()
    stopped.page.clock.run_for(100)
    assert stopped.position[1] < 200


@pytest.mark.scenario("ui/Pauses are squeezed")
def test_squeezed_pauses_take_as_long_as_each_other(stopped):
    """Five silences are longer than 0.4 s: together 5.2 s take 2 s (the first takes its 400 ms as it is)."""
    stopped.page.get_by_label("squeeze pauses").check()
    stopped.play.click()
    pauses = sum(ms - 400 for ms, _ in STALLS.values())
    stopped.page.clock.run_for(LOOK_MS - pauses - 100)
    assert LOOK_MS - 140 < stopped.position[1] < LOOK_MS - 60
    stopped.page.clock.run_for(200)
    assert stopped.position[1] == LOOK_MS


def test_without_squeezing_pauses_take_their_time(stopped):
    stopped.play.click()
    stopped.page.clock.run_for(2000)
    assert abs(stopped.position[1] - 2000) < 60


@pytest.mark.scenario("ui/The answer appears as it came")
def test_any_moment_shows_what_had_come_by_then_also_backwards(look):
    moments = random.Random(7).sample(range(int(LOOK_MS)), 40)
    for ms in [*moments, 0, LOOK_MS, 399, 400]:
        look.seek(ms)
        count = count_at(LOOK, ms)
        assert look.position == (count, ms)
        assert look.texts() == printed(text_of(LOOK, count))


@pytest.mark.scenario("ui/The answer appears as it came")
def test_a_long_answer_is_not_torn_between_lines(page, site):
    """It is laid out in blocks; each ends where a line does, wherever the replay has been."""
    call = Call(page, f"{site}/calls/LONG")
    for ms in random.Random(3).sample(range(int(LONG[-1][0])), 25):
        call.seek(ms)
        blocks = page.locator("tape-replay .part-text > div").evaluate_all("all => all.map(one => one.textContent)")
        assert "".join(blocks) == "".join(text_of(LONG, count_at(LONG, ms)))
        assert all(block.endswith("\n") for block in blocks[:-1])
    assert len(blocks) > 1


@pytest.mark.scenario("ui/Steps")
def test_buttons_step_stop_and_jump(look):
    for name, expected in [
        ("Stop", (0, 0)),
        ("Step forward", (1, 400)),
        ("Step forward", (2, 420)),
        ("Step back", (1, 400)),
        ("Step back", (0, 0)),
        ("Step back", (0, 0)),
        ("To the end", (len(LOOK), LOOK_MS)),
    ]:
        look.page.get_by_role("button", name=name, exact=True).click()
        assert look.position == expected


def test_a_step_says_where_it_is_to_a_screen_reader(look):
    look.page.get_by_role("button", name="Stop").click()
    look.page.get_by_role("button", name="Step forward").click()
    expect(look.page.locator("tape-replay [role=status]").last).to_have_text(re.compile(r"^Event 1/40 · 400 ms"))


@pytest.mark.scenario("ui/Steps")
def test_rows_of_one_chunk_are_stepped_one_by_one(page, site, made):
    write(made, "CHUNK", [(100.0, 0, "a"), (100.0, 0, "b"), (100.0, 0, "c")], (TEXT,), ended_ms=200)
    call = Call(page, f"{site}/calls/CHUNK")
    call.focus()
    page.keyboard.press("0")
    for expected in ("a", "ab", "abc"):
        page.keyboard.press(".")
        assert call.texts() == [expected]


@pytest.mark.scenario("ui/Keys of a replay")
def test_keys(look):
    look.focus()
    press = look.page.keyboard.press
    for digit in "0123456789":
        press(digit)
        assert look.position[1] == round(LOOK_MS * int(digit) / 10)
    press("5")
    press("ArrowRight")
    assert look.position[1] == round(LOOK_MS * 0.55)
    press("ArrowLeft")
    press("ArrowLeft")
    assert look.position[1] == round(LOOK_MS * 0.45)
    press("0")
    press(".")
    press(".")
    assert look.position == (2, 420)
    press(",")
    assert look.position == (1, 400)
    assert look.speed.input_value() == "1"
    press("]")
    press("]")
    assert look.speed.input_value() == "5"
    for _ in range(9):
        press("[")
    assert look.speed.input_value() == "0.25"
    press(" ")
    expect(look.play).to_have_accessible_name("Pause")
    press(" ")
    expect(look.play).to_have_accessible_name("Play")


@pytest.mark.scenario("ui/Keys of a replay")
def test_arrows_skip_five_seconds_of_a_long_call(page, site):
    call = Call(page, f"{site}/calls/LONG")
    call.focus()
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    assert call.position[1] == round((LONG[-1][0] + 5) / 20)
    page.keyboard.press("0")


@pytest.mark.scenario("ui/Keys of a replay")
def test_help_opens_and_closes(look):
    look.focus()
    look.page.keyboard.press("?")
    help_ = look.page.get_by_role("dialog", name="Keys")
    expect(help_).to_be_visible()
    assert "play or pause" in help_.inner_text()
    look.page.keyboard.press("5")
    assert look.position[1] == LOOK_MS
    look.page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    look.page.get_by_role("button", name="Keys").click()
    look.page.get_by_role("button", name="Close").click()
    expect(help_).to_be_hidden()


@pytest.mark.scenario("ui/Keys of a replay")
def test_keys_work_unless_something_else_has_use_for_them(look):
    search = look.page.get_by_label("search")
    search.fill("")
    search.press_sequentially("0.5 ")
    assert search.input_value() == "0.5 "
    assert look.position[1] == LOOK_MS
    look.page.locator("h1").click()
    look.page.keyboard.press("4")
    assert look.position[1] == round(LOOK_MS * 0.4)
    look.page.keyboard.press(" ")
    expect(look.play).to_have_accessible_name("Pause")
    look.page.keyboard.press(" ")
    look.page.keyboard.press("0")
    look.page.get_by_role("link").first.focus()
    look.page.keyboard.press("3")
    assert look.position[1] == 0
    look.speed.focus()
    look.page.keyboard.press("2")
    assert (look.speed.input_value(), look.position[1]) == ("2", 0)
    look.page.locator("tape-strip canvas").first.focus()
    look.page.keyboard.press("3")
    assert look.position[1] == round(LOOK_MS * 0.3)


def test_space_on_a_button_presses_that_button(look):
    look.page.get_by_role("button", name="Stop").focus()
    look.page.keyboard.press(" ")
    assert look.position == (0, 0)
    expect(look.play).to_have_accessible_name("Play")


@pytest.mark.scenario("ui/Moments worth looking at")
def test_moments_can_be_jumped_to(look):
    jumps = look.page.get_by_role("list", name="Jump to").get_by_role("button")
    assert jumps.all_inner_texts() == [
        "first token (thinking) 0.4 s",
        "answer 0.6 s",
        "1.5 s waiting for provider or network",
        "1.2 s in your code",
        "1.1 s event loop busy",
        "1.0 s cause not known",
    ]
    moments = [400, LOOK[9][0], *(LOOK[number - 1][0] for number in STALLS)]
    for jump, ms in zip(jumps.all(), moments, strict=True):
        jump.click()
        assert look.position[1] == round(ms)


@pytest.mark.scenario("ui/Moments worth looking at")
@pytest.mark.parametrize(
    ("number", "words"),
    [(14, "waiting for provider or network"), (20, "in your code"), (26, "event loop busy"), (32, "cause not known")],
)
def test_in_a_silence_the_replay_says_whose_it_is(look, number, words):
    look.seek(LOOK[number][0] - 50)
    expect(look.page.locator("tape-replay .replay-silence")).to_have_text(re.compile(rf"^1\.\d s {words}$"))
    look.seek(LOOK[number][0])
    expect(look.page.locator("tape-replay .replay-silence")).to_have_text("")


def test_before_the_first_event_it_says_what_it_waits_for(look):
    look.seek(210)
    expect(look.page.locator("tape-replay .replay-silence")).to_have_text("waiting 0.2 s for the first token")


@pytest.mark.scenario("ui/Choices apart")
def test_choices_are_apart(page, site):
    call = Call(page, f"{site}/calls/TWO")
    choices = page.locator("tape-replay .choice")
    expect(choices).to_have_count(2)
    shown = {one.locator(".choice-name").inner_text(): one for one in choices.all()}
    said = {name: one.locator(".part-text").text_content() for name, one in shown.items()}
    assert said == {f"choice {number}": "".join(f"{'ab'[number]}{i} " for i in range(10)) for number in (0, 1)}
    assert shown["choice 0"].bounding_box()["x"] < shown["choice 1"].bounding_box()["x"]
    assert call.position == (20, 400)


# Strip and drawings


@pytest.mark.scenario("ui/A click on the strip")
def test_a_click_on_the_strip_goes_there_and_dragging_follows(look):
    canvas = look.page.locator("tape-strip canvas").first
    box = canvas.bounding_box()
    span = box["width"] - 16
    look.page.mouse.click(box["x"] + span / 2, box["y"] + 50)
    assert abs(look.position[1] - LOOK_MS / 2) < 10
    look.page.mouse.move(box["x"] + span / 4, box["y"] + 50)
    look.page.mouse.down()
    look.page.mouse.move(box["x"] + span * 0.75, box["y"] + 60)
    look.page.mouse.up()
    assert abs(look.position[1] - LOOK_MS * 0.75) < 10
    look.page.mouse.move(box["x"], box["y"] + 50)
    assert abs(look.position[1] - LOOK_MS * 0.75) < 10


@pytest.mark.scenario("ui/A strip in words")
def test_the_strip_is_said_in_words(look):
    name = look.page.locator("tape-strip canvas").first.get_attribute("aria-label")
    assert name.startswith(
        "40 events in 6.0 s; first token (thinking) at 0.4 s; answer at 0.6 s; 1.5 s waiting for prov"
    )
    assert look.page.locator("tape-strip .legend li").all_inner_texts() == [
        "thinking", "text", "tool arguments",
        "in your code", "waiting for provider or network", "event loop busy", "cause not known",
    ]  # fmt: skip


def test_the_pointer_says_what_is_under_it(look):
    box = look.page.locator("tape-strip canvas").first.bounding_box()
    scale = (box["width"] - 16) / LOOK_MS
    look.page.mouse.move(box["x"] + (LOOK[14][0] - 300) * scale, box["y"] + 50)
    expect(look.page.locator(".strip-at")).to_have_text(
        re.compile(r"^\d+ ms · event 14/40 · 1\.5 s waiting for provider or network$")
    )
    look.page.mouse.move(0, 0)
    expect(look.page.locator(".strip-at")).to_have_text("Click or drag to go there.")


# Reads a canvas from a copy of it: to read it twice makes the browser warn.
PIXELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
"""


def ink(page: Page, selector: str) -> list[list[int]]:
    """Colours on a canvas, the most frequent first."""
    return page.locator(selector).first.evaluate(
        PIXELS
        + """
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          const found = new Map();
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] < 255) continue;
            const key = [data[i], data[i + 1], data[i + 2]].join();
            found.set(key, (found.get(key) ?? 0) + 1);
          }
          return [...found].sort((a, b) => b[1] - a[1]).map(([key]) => key.split(",").map(Number));
        }"""
    )


@pytest.mark.scenario("ui/A strip in words")
def test_every_event_has_its_mark(page, site):
    call = Call(page, f"{site}/calls/TWO")
    call.seek(0)
    call.frame()
    marks = page.locator("tape-strip canvas").first.evaluate(
        PIXELS
        + """
          const row = copy.getImageData(0, 36 * devicePixelRatio, canvas.width, 1).data;
          let [count, inside] = [0, false];
          for (let x = canvas.width * 0.26 | 0; x < canvas.width; x++) {
            const on = row[4 * x + 3] > 200;
            if (on && !inside) count++;
            inside = on;
          }
          return count;
        }"""
    )
    assert marks == 19  # the first stands at the edge of the hatching before it


@pytest.mark.scenario("ui/Dark and light")
def test_drawings_follow_the_colours_of_the_page(page, site):
    page.emulate_media(color_scheme="light")
    call = Call(page, f"{site}/calls/LOOK")
    call.frame()
    drawn = ["tape-strip canvas", "tape-growth canvas", "tape-gaps canvas"]
    light = [ink(page, selector)[0] for selector in drawn]
    page.emulate_media(color_scheme="dark")
    call.frame()
    dark = [ink(page, selector)[0] for selector in drawn]
    assert all(before != after for before, after in zip(light, dark, strict=True))


def test_gaps_have_their_percentiles(look):
    assert look.page.locator("tape-gaps canvas").get_attribute("aria-label") == (
        "Gaps between events: p50 20 ms, p95 1.1 s, p99 1.4 s"
    )
    expect(look.page.locator(".gaps-note")).to_have_text("39 gaps, longest 1.5 s")


@pytest.mark.parametrize(("uid", "gaps"), [("LOOK", 39), ("TWO", 18), ("CHUNKS", 2)])
def test_percentiles_and_bars_are_those_of_the_tape(page, site, made, uid, gaps):
    """Choices have gaps of their own, and what came in one chunk has none between."""
    columns = ", ".join(f"inter_chunk_p{percent}_ms" for percent in (50, 95, 99))
    (stored,) = made.rows(f"select {columns} from llm_calls where uid = '{uid}'")
    Call(page, f"{site}/calls/{uid}")
    found = page.evaluate(
        """async () => {
          const { call } = document.querySelector("tape-gaps");
          const { gapsOf, histogram, percentile } = await import(document.querySelector("script[src*=tape-gaps]").src);
          const gaps = gapsOf(call);
          const { counts, longer } = histogram(gaps);
          return [[50, 95, 99].map(percent => percentile(gaps, percent)), counts.reduce((a, b) => a + b) + longer];
        }"""
    )
    assert found == [pytest.approx(list(stored.values())), gaps]


def test_the_count_over_time_is_said_in_words(look):
    assert look.page.locator("tape-growth canvas").get_attribute("aria-label") == (
        "14 events after 1.5 s, 20 events after 3.0 s, 26 events after 4.5 s, 40 events after 6.0 s"
    )


# List


@pytest.mark.scenario("ui/Long lists")
def test_only_rows_in_view_exist_and_scrolling_reaches_all(page, site):
    call = Call(page, f"{site}/calls/LONG")
    view = page.get_by_role("grid", name="Token events")
    assert view.get_attribute("aria-rowcount") == str(len(LONG) + 1)
    assert len(call.rows()) < 40
    view.evaluate("view => { view.scrollTop = view.scrollHeight; }")
    expect(call.row(len(LONG))).to_be_visible()
    assert call.rows()[-1] == ["5000", f" w{len(LONG) - 1}", "text", "50\u202f090", "10", "2.5"]
    assert len(call.rows()) < 40


@pytest.mark.scenario("ui/Finding events")
def test_search_finds_text_that_goes_over_several_events(look):
    search = look.page.get_by_label("search")
    search.fill("WAREHOUSE on")
    look.frame()
    assert [row[1] for row in look.rows()] == [" ware", "house", " on"]
    expect(look.page.locator(".list-count")).to_have_text("3 of 40 events")
    search.fill(".*")
    look.frame()
    assert look.rows() == []
    search.fill("")
    look.frame()
    expect(look.page.locator(".list-count")).to_have_text("40 events")


@pytest.mark.scenario("ui/Finding events")
def test_filters_of_kind_and_time(look):
    kind = look.page.get_by_label("kind")
    assert kind.locator("option").all_inner_texts() == ["all", "thinking", "text", "tool arguments"]
    kind.select_option("tool arguments")
    look.frame()
    assert [row[1] for row in look.rows()] == [token for _, part, token in LOOK if part == 2]
    kind.select_option("all")
    look.page.get_by_label("from ms").fill("420")
    look.page.get_by_label("to ms").fill("480")
    look.frame()
    assert [row[3] for row in look.rows()] == ["420", "440", "460", "480"]
    expect(look.page.locator(".list-count")).to_have_text("4 of 40 events")


@pytest.mark.scenario("ui/Copying")
def test_copies_are_of_what_is_listed(look):
    look.page.get_by_label("kind").select_option("text")
    look.page.get_by_role("button", name="Copy text").click()
    expect(look.page.locator(".list-count")).to_have_text("Copied text of 26 events")
    assert look.page.evaluate("navigator.clipboard.readText()") == text_of(LOOK, len(LOOK))[1]
    look.page.get_by_label("from ms").fill(str(LOOK[33][0]))
    look.page.get_by_role("button", name="Copy rows").click()
    expect(look.page.locator(".list-count")).to_have_text("Copied rows of 2 events")
    copied = look.page.evaluate("navigator.clipboard.readText()").split("\n")
    assert copied[0] == "token_index\ttoken\tkind\ttimestamp_ms\tdelta_ms\twait_ms"
    assert copied[1].split("\t")[:4] == ["33", " =1+1", "text", f"{LOOK[33][0]:.3f}"]
    assert copied[2].split("\t")[:3] == ["34", "␛", "text"]


@pytest.mark.scenario("ui/Copying")
def test_a_formula_is_copied_as_text(page, site):
    call = Call(page, f"{site}/calls/HOSTILE")
    page.get_by_label("search").fill("=cmd")
    call.frame()
    page.get_by_role("button", name="Copy rows").click()
    expect(page.locator(".list-count")).to_have_text("Copied rows of 1 event")
    assert page.evaluate("navigator.clipboard.readText()").split("\n")[1].split("\t")[1] == "'=cmd()"


@pytest.mark.scenario("ui/The list and the replay")
def test_the_row_of_the_replay_is_marked_and_kept_in_view(look):
    look.seek(LOOK[30][0])
    here = look.page.locator("tape-list .is-here")
    expect(here).to_have_count(1)
    expect(here).to_have_attribute("aria-rowindex", "32")
    expect(here).to_have_attribute("aria-selected", "true")
    assert look.in_view(31)
    look.seek(0)
    expect(here).to_have_count(0)


@pytest.mark.scenario("ui/The list and the replay")
def test_a_click_on_a_row_goes_to_its_event(look):
    look.row(5).click()
    assert look.position == (5, 480)
    expect(look.row(5)).to_have_class(re.compile("is-here"))


def test_it_can_stop_following(look):
    look.page.get_by_label("follow the replay").uncheck()
    view = look.page.get_by_role("grid", name="Token events")
    look.seek(LOOK[3][0])
    look.frame()
    view.evaluate("view => { view.scrollTop = 300; }")
    look.seek(LOOK[1][0])
    look.frame()
    assert view.evaluate("view => view.scrollTop") == 300


@pytest.mark.scenario("ui/The list and the replay")
def test_the_list_with_the_keyboard(look):
    look.page.get_by_role("grid", name="Token events").focus()
    press = look.page.keyboard.press
    press("Home")
    press("ArrowDown")
    press("ArrowDown")
    expect(look.row(3)).to_have_class(re.compile("is-active"))
    assert look.page.get_by_role("grid").get_attribute("aria-activedescendant") == "event-2"
    press("Enter")
    assert look.position == (3, 440)
    press("End")
    press("Enter")
    assert look.position == (40, LOOK[-1][0])
    press("PageUp")
    press("ArrowUp")
    press("Enter")
    assert 20 < look.position[0] < 32


def test_stalls_are_marked_in_the_list(look):
    look.page.get_by_role("grid").evaluate("view => { view.scrollTop = 0; }")
    look.frame()
    expect(look.row(15)).to_have_class(re.compile("is-stall"))
    assert look.rows()[14][4] == "1500"


@pytest.mark.scenario("ui/Control characters are visible")
def test_control_characters_are_visible(page, site):
    call = Call(page, f"{site}/calls/HOSTILE")
    shown = [row[1] for row in call.rows()]
    assert "␀␛[31m" in shown
    assert "⟨202E⟩gnp.exe" in shown


# States


@pytest.mark.scenario("ui/Hostile text in a browser")
def test_hostile_text_stays_text(page, site):
    call = Call(page, f"{site}/calls/HOSTILE")
    assert call.texts() == printed(["".join(HOSTILE)])
    assert [row[1] for row in call.rows()][:5] == HOSTILE[:5]
    for number in range(len(HOSTILE)):
        call.page.get_by_role("button", name="Step back").click()
        assert call.texts() == printed(["".join(HOSTILE[: len(HOSTILE) - number - 1])] if number < 10 else [])
    assert page.evaluate("window.hacked") is None
    assert page.locator("tape-replay img, tape-list img, tape-replay script").count() == 0


def test_an_event_of_a_megabyte(page, site):
    call = Call(page, f"{site}/calls/HUGE")
    assert call.texts() == ["x" * 1_000_000 + " end"]
    assert len(call.rows()[0][1]) == 200
    call.focus()
    page.keyboard.press("0")
    page.keyboard.press(".")
    assert call.texts() == ["x" * 1_000_000]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.scenario("ui/Calls without text or without events")
def test_without_text_each_event_is_one_mark(page, site):
    call = Call(page, f"{site}/calls/TIMINGS")
    assert call.texts() == ["▪" * 5]
    expect(page.locator("tape-replay .tape-note")).to_have_text(re.compile("not its text"))
    call.seek(310)
    assert call.texts() == ["▪" * 3]
    assert {row[1] for row in call.rows()} == {"not recorded"}
    expect(page.get_by_label("search")).to_be_disabled()
    expect(page.get_by_role("button", name="Copy text")).to_be_disabled()


@pytest.mark.scenario("ui/Calls without text or without events")
def test_masked_events_are_named(page, site):
    call = Call(page, f"{site}/calls/MASKED")
    assert call.texts() == ["key [masked] end"]
    assert [row[1] for row in call.rows()] == ["key ", "[masked]", "masked", " end"]


@pytest.mark.scenario("ui/Calls without text or without events")
def test_no_event(page, site):
    call = Call(page, f"{site}/calls/NONE")
    assert call.at.inner_text() == "Event 0/0 · 1500 ms / 1500 ms"
    expect(page.locator("tape-replay .tape-note")).to_have_text("No token event came.")
    expect(page.locator(".gaps-note")).to_have_text("There is no gap: fewer than two events came.")
    assert call.rows() == []
    assert page.get_by_role("list", name="Jump to").get_by_role("button").all_inner_texts() == [
        "1.5 s waiting for provider or network"
    ]
    call.play.click()
    call.focus()
    page.keyboard.press(".")
    assert call.position == (0, 0)


@pytest.mark.scenario("ui/Calls without text or without events")
def test_one_event(page, site):
    call = Call(page, f"{site}/calls/ONE")
    assert call.texts() == ["Yes."]
    assert call.position == (1, 300)
    assert len(call.rows()) == 1


@pytest.mark.scenario("ui/Calls without text or without events")
def test_when_only_the_text_is_left(page, site):
    call = Call(page, f"{site}/calls/GONE")
    assert call.texts() == ["The order first"]
    expect(page.locator("tape-replay .tape-note")).to_have_text("Its events are not kept: there is nothing to play.")
    expect(page.locator("main .notice").first).to_contain_text("None of its 3 token events is left")


RECORDING = """
import sys, tokentape
tokentape.enable(db=sys.argv[1], flush_ms=20, content="full")
with tokentape.start_llm_stream(model="gpt-live", provider="acme") as stream:
    tokentape.flush(20)  # whoever is told of the call finds it on the tape
    print(tokentape.last_call().uid, flush=True)
    for line in sys.stdin:
        stream.add_token(line.rstrip("\\n"))
    stream.finish("stop")
tokentape.disable()
"""


@pytest.fixture
def recording(made):
    """Another process that records: what is written to it becomes events."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDING, str(made.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


@pytest.mark.scenario("ui/A call that runs")
def test_a_call_that_another_process_records_goes_on(page, site, recording):
    uid = recording.stdout.readline().strip()

    def say(*lines: str) -> None:
        recording.stdin.write("".join(f"{line}\n" for line in lines))
        recording.stdin.flush()

    say("one ", "two ")
    call = Call(page, f"{site}/calls/{uid}")
    text = page.locator("tape-replay .part-text")
    expect(text).to_have_text("one two")
    expect(call.play).to_have_accessible_name("Pause")
    say("three ")
    expect(text).to_have_text("one two three")
    expect(page.locator(".list-count")).to_have_text("3 events")
    call.play.click()
    call.seek(0)
    say("four")
    expect(page.locator(".list-count")).to_have_text("4 events")
    assert call.position == (0, 0)
    assert page.locator("tape-replay .part:not([hidden])").count() == 0
    page.get_by_role("button", name="To the end").click()
    call.play.click()
    say("five")
    expect(text).to_have_text("one two three fourfive")
    recording.stdin.close()
    expect(call.play).to_have_accessible_name("Play")
    assert call.position[0] == 5


@pytest.mark.scenario("ui/When the API fails")
@pytest.mark.parametrize("element", ["tape-strip", "tape-replay", "tape-gaps", "tape-growth", "tape-list"])
def test_where_the_api_fails_the_table_stays_and_why_is_said(page, site, watch, element):
    problem = {"title": "Unavailable", "status": 503, "detail": "The tape cannot be read now."}
    page.route("**/api/v1/**", lambda route: route.fulfill(status=503, body=json.dumps(problem)))
    page.goto(f"{site}/calls/LOOK")
    note = page.locator(f"{element} > .tape-note")
    expect(note).to_have_text("This is the plain version: the API answered 503 (The tape cannot be read now).")
    expect(page.locator(element).locator("table, .part").first).to_be_visible()
    assert {trouble for trouble in watch.troubles if "503" not in trouble} == set()
    watch.troubles.clear()


@pytest.mark.scenario("ui/A call without JavaScript")
def test_without_javascript_everything_is_a_table(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/calls/LOOK")
    expect(page.locator("tape-strip table")).to_contain_text("event loop busy")
    expect(page.locator("tape-replay")).to_contain_text("It reached Leipzig this morning")
    expect(page.locator("tape-list table")).to_contain_text("ware")
    expect(page.locator("tape-gaps table")).to_be_visible()
    expect(page.locator("tape-growth table")).to_be_visible()
    context.close()


# For everybody


@pytest.mark.scenario("ui/Reduced motion")
def test_with_less_motion_nothing_moves_by_itself(page, site):
    page.emulate_media(reduced_motion="reduce")
    call = Call(page, f"{site}/calls/LOOK")
    call.seek(500)
    call.play.click()
    animations = page.locator("tape-replay .cursor").evaluate("cursor => getComputedStyle(cursor).animationName")
    assert animations == "none"


@pytest.mark.scenario("ui/Reduced motion")
def test_with_less_motion_the_head_jumps_from_event_to_event(page, site):
    page.emulate_media(reduced_motion="reduce")
    page.clock.install(time=0)
    call = Call(page, f"{site}/calls/LOOK")
    page.clock.pause_at(60_000)

    def head() -> int:
        return page.locator("tape-strip canvas").first.evaluate(
            PIXELS
            + """
              const { data } = copy.getImageData(0, 71 * devicePixelRatio, canvas.width, 1);  // below the marks
              for (let x = 0; x < canvas.width; x++) if (data[4 * x + 3] > 128) return x;
            }"""
        )

    call.seek(LOOK[13][0])
    call.play.click()
    page.clock.run_for(100)
    before = head()
    page.clock.run_for(600)
    assert (call.position[0], head()) == (14, before)
    assert before > 100


@pytest.mark.scenario("ui/Accessibility of a call")
@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_violation_and_no_scrolling_sideways(page, site, axe, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    call = Call(page, f"{site}/calls/LOOK")
    call.seek(LOOK[14][0] - 50)
    call.frame()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page, axe) == []


@pytest.mark.scenario("ui/Accessibility of a call")
@pytest.mark.parametrize("uid", ["TWO", "NONE", "TIMINGS", "HOSTILE"])
def test_no_violation_on_other_calls(page, site, axe, uid):
    Call(page, f"{site}/calls/{uid}")
    assert violations(page, axe) == []


@pytest.mark.scenario("ui/Accessibility of a call")
def test_the_help_has_no_violation(look, axe):
    look.page.get_by_role("button", name="Keys").click()
    assert violations(look.page, axe) == []


@pytest.mark.scenario("ui/Accessibility of a call")
def test_controls_have_names_and_are_large_enough(look):
    controls = look.page.locator("main").locator(":is(tape-strip, tape-replay, tape-list) :is(button, input, select)")
    for control in controls.all():
        if not control.is_visible():
            continue
        box = control.bounding_box()
        large = min(box["width"], box["height"]) >= 24
        inside_label = control.evaluate("one => one.closest('label')?.getBoundingClientRect().height >= 24")
        assert large or inside_label, control.evaluate("one => one.outerHTML")


@pytest.mark.scenario("ui/Scripts are small and from here")
def test_the_scripts_of_the_page_are_small_and_from_here(page, site):
    loaded: dict[str, int] = {}
    page.on("response", lambda answer: answer.url.endswith(".js") and loaded.update({answer.url: len(answer.body())}))
    Call(page, f"{site}/calls/LOOK")
    page.wait_for_load_state("networkidle")
    ours = {url: size for url, size in loaded.items() if "tokentape" in url}
    assert len(ours) > 10
    assert sum(ours.values()) <= SCRIPTS, ours


@pytest.mark.scenario("ui/Accessibility of a call")
def test_calls_recorded_through_sdks_have_no_violation(page, recorded_tape, axe):
    with pages(recorded_tape) as site:
        for number in range(2, 4):
            Call(page, f"{site}/calls/{number}")
            assert violations(page, axe) == []
        page.goto("about:blank")


def test_more_than_a_page_of_events_is_loaded(page, site):
    """The API gives events a page at a time; all are asked for."""
    page.route(
        "**/events?*", lambda route: route.continue_(url=route.request.url.replace("limit=100000", "limit=2000"))
    )
    call = Call(page, f"{site}/calls/LONG")
    assert call.position[0] == len(LONG)
