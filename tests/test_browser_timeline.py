"""The timeline of runs and of a run's calls in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from browser import pages, violations
from calls_to_look_at import write, write_look
from handmade import Handmade, gone_process
from hostile import HOSTILE_NAME
from tokentape.models import Mark, Part
from values import STARTED_US

pytest_plugins = ("browser_fixtures",)

TEXT = (Part(0, "text"),)
# As many bytes as a script of a page may have altogether.
SCRIPTS = 60_000
CALLS = 300


def steady(count: int, word: str = "word ") -> list[tuple[float, int, str]]:
    """An event every 20 ms, after a wait of 200 ms."""
    return [(200.0 + 20 * i, 0, word) for i in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Handmade]:
    path = tmp_path_factory.mktemp("timeline") / "tape.db"
    made = Handmade(path)
    made.run(ended_ms=20_000, name="support-agent")
    made.run("SHORT", ended_ms=3000, name="short", started_unix_us=STARTED_US + 60_000_000)
    made.run("HOSTILE", ended_ms=1000, name=HOSTILE_NAME, started_unix_us=STARTED_US + 90_000_000)
    write_look(made, "LOOK", call={"name": "plan"})
    counted = {"token_count": 45, "token_count_source": "usage"}
    outer = {"name": "ChatOpenAI.stream", "layer": "framework", "adapter": "langchain", "request_model": "gpt-x"}
    write(made, "OUTER", steady(40), TEXT, ended_ms=1100, after_ms=7000, call=outer, **counted)
    inner = {"name": "chat", "parent_uid": "OUTER"}
    write(made, "INNER", steady(40, "needle "), TEXT, ended_ms=1050, after_ms=7020, call=inner, **counted)
    made.mark(Mark("RUN", None, STARTED_US + 8_500_000, 1_700_000, "tool", "search_orders"))
    claude = {"name": "messages", "request_model": "claude-y", "provider": "anthropic", "adapter": "anthropic"}
    write(made, "EVENTS", steady(41), TEXT, ended_ms=1200, after_ms=11_000, call=claude)
    for number, status in enumerate(("error", "cancelled", "abandoned")):
        end = {"status": status, "error_type": "APIConnectionError" if status == "error" else None}
        named = {"name": f"call {status}"}
        write(made, status.upper(), steady(8), TEXT, ended_ms=400, after_ms=13_000 + 1000 * number, call=named, **end)
    gone = Handmade(path, gone_process())
    gone.call("LOST", *steady(6), after_ms=17_000, running=True, call={"name": "call lost"})
    gone.close()
    hostile = {"run_uid": "HOSTILE", "name": HOSTILE_NAME, "request_model": HOSTILE_NAME}
    write(made, "EVIL", steady(5), TEXT, ended_ms=400, after_ms=90_000, call=hostile)
    made.run("BIG", ended_ms=CALLS * 100.0, name="big", started_unix_us=STARTED_US - 9_000_000_000)
    for number in range(CALLS):
        of_big = {"run_uid": "BIG", "name": f"call {number}"}
        write(made, f"BIG{number}", steady(10), TEXT, ended_ms=500, after_ms=100 * number - 9_000_000, call=of_big)
    yield made
    made.close()


class Timeline:
    """A timeline, as somebody who looks at it finds things."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        expect(page.locator("tape-timeline.is-live")).to_be_visible()
        self.line = page.locator(".tl-line")
        self.rows = page.locator("tape-timeline .tl-row")

    def row(self, name: str):
        return self.rows.filter(has=self.page.locator(".tl-name bdi", has_text=re.compile(f"^{re.escape(name)}$")))

    def names(self) -> list[str]:
        return self.page.locator("tape-timeline .tl-name > :is(a, span:not(.hidden, .tl-sign))").all_inner_texts()

    @property
    def view(self) -> tuple[float, float]:
        """First and last moment that is shown, in ms."""
        return tuple(self.page.locator("tape-timeline").evaluate("one => [one.view.from, one.view.to]"))

    def x(self, ms: float) -> float:
        """Where a moment is on the page."""
        box = self.page.locator(".tl-top canvas").bounding_box()
        begin, end = self.view
        return box["x"] + (ms - begin) / (end - begin) * (box["width"] - 18)

    def point(self, name: str, ms: float) -> None:
        row = self.row(name)
        row.scroll_into_view_if_needed()
        box = row.bounding_box()
        self.page.mouse.move(self.x(ms), box["y"] + box["height"] / 2)

    def frame(self) -> None:
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def colours(self, name: str) -> set[tuple[int, ...]]:
        """Colours in the stripe of a row on the canvas."""
        self.frame()
        found = self.row(name).evaluate(
            """row => {
              const canvas = row.parentNode.querySelector("canvas");
              const size = [canvas.width, canvas.height];
              const copy = new OffscreenCanvas(...size).getContext("2d", { willReadFrequently: true });
              copy.drawImage(canvas, 0, 0);
              const { data } = copy.getImageData(0, (row.offsetTop + 20) * devicePixelRatio, canvas.width, 10);
              const found = new Set();
              for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) found.add(data.slice(i, i + 3).join());
              return [...found];
            }"""
        )
        return {tuple(map(int, one.split(","))) for one in found}


@pytest.fixture
def run(page, site) -> Timeline:
    return Timeline(page, f"{site}/runs/RUN")


@pytest.fixture
def index(page, site) -> Timeline:
    return Timeline(page, site)


# A run


@pytest.mark.scenario("ui/Calls on the clock")
def test_calls_stand_in_order_with_those_they_made_below_and_marks_between(run):
    assert run.names() == [
        "plan", "ChatOpenAI.stream", "chat", "tool search_orders", "messages",
        "call error", "call cancelled", "call abandoned", "call lost",
    ]  # fmt: skip
    assert run.row("chat").evaluate("row => row.style.getPropertyValue('--depth')") == "1"
    assert (
        run.row("chat")
        .inner_text()
        .endswith("made by a call above; began after 7.0 s; took 1.1 s; first token after 0.2 s")
    )


@pytest.mark.scenario("ui/How much came, in words")
def test_each_row_says_how_much_came(run):
    words = {
        "ChatOpenAI.stream": "counted once, below",
        "chat": r"45 tokens, \d+\.\d tok/s",
        "messages": r"41 events, \d+\.\d events/s",
        "call error": "8 events, APIConnectionError",
        "call cancelled": "8 events, cancelled",
        "call lost": "6 events, lost",
        "search_orders": r"1\.7 s",
    }
    for name, expected in words.items():
        expect(run.row(name).locator(".tl-amount")).to_have_text(re.compile(f"^{expected}$"))


@pytest.mark.scenario("ui/Endings of calls on the timeline")
def test_each_ending_has_a_sign_and_a_word(run):
    signs = {"plan": "✓", "call error": "✕", "call cancelled": "⊘", "call abandoned": "◇", "call lost": "?"}
    for name, sign in signs.items():
        expect(run.row(name).locator(".tl-sign")).to_have_text(sign)
    assert "abandoned," in run.row("call abandoned").inner_text()
    legend = run.page.locator(".tl-legend li").all_inner_texts()
    assert legend[:4] == ["waiting for provider or network", "event loop busy", "in your code", "cause not known"]
    assert legend[4].startswith("slow → fast: up to ")
    assert [words.split()[-1] for words in legend[5:]] == [
        "running", "completed", "error", "cancelled", "abandoned", "lost",
    ]  # fmt: skip


@pytest.mark.scenario("ui/What is under the pointer")
def test_a_tooltip_says_the_rate_or_whose_a_silence_is(run):
    under = {
        200: r"0\.4 s until the first token",
        450: r"\d+\.\d events/s",
        1300: r"1\.5 s waiting for provider or network",
        2800: r"1\.2 s in your code",
        4000: r"1\.1 s event loop busy",
        5400: r"1\.0 s cause not known",
    }
    for ms, words in under.items():
        run.point("plan", ms)
        expected = re.compile(rf"^plan at .+: {words}$")
        expect(run.page.locator(".tl-tip")).to_be_visible()
        expect(run.page.locator(".tl-tip")).to_have_text(expected)
        expect(run.line).to_have_text(expected)
    run.page.mouse.move(5, 5)
    expect(run.page.locator(".tl-tip")).to_be_hidden()


@pytest.mark.scenario("ui/What is under the pointer")
def test_the_same_with_the_keyboard(run):
    run.row("plan").get_by_role("link").focus()
    expect(run.line).to_have_text(
        re.compile(r"^plan · completed · gpt-x · 50 tokens, .*1\.5 s waiting for provider or network at 0\.7")
    )
    run.page.keyboard.press(".")
    expect(run.line).to_have_text(re.compile(r"^plan at 0\.2 s: 0\.4 s until the first token$"))
    expect(run.page.locator(".tl-chart [role=status]")).to_have_text(run.line.inner_text())
    run.page.keyboard.press(".")
    expect(run.line).to_have_text(re.compile(r"events/s$"))
    run.page.keyboard.press(",")
    expect(run.line).to_have_text(re.compile(r"until the first token$"))


@pytest.mark.scenario("ui/Calls on the clock")
def test_bars_have_the_colours_of_rate_and_of_causes(run):
    colours = run.colours("plan")
    for variable in ("--wait", "--own", "--blocked", "--rate-2"):
        assert near(rgb(run.page, variable), colours), variable
    run.page.emulate_media(color_scheme="dark")
    assert not near((255, 255, 255), run.colours("plan"))
    assert near(rgb(run.page, "--rate-2"), run.colours("plan"))


def near(colour: tuple[int, ...], colours: set[tuple[int, ...]]) -> bool:
    """Whether it is among them; lines between pixels are a little paler."""
    return any(sum(abs(a - b) for a, b in zip(colour, one, strict=True)) < 60 for one in colours)


def rgb(page: Page, variable: str) -> tuple[int, ...]:
    return tuple(
        page.evaluate(
            """name => {
              const draw = new OffscreenCanvas(1, 1).getContext("2d");
              draw.fillStyle = getComputedStyle(document.body).getPropertyValue(name).trim();
              draw.fillRect(0, 0, 1, 1);
              return [...draw.getImageData(0, 0, 1, 1).data.slice(0, 3)];
            }""",
            variable,
        )
    )


@pytest.mark.scenario("ui/A way into a call")
def test_a_name_and_a_bar_lead_to_the_call(run):
    assert run.row("messages").get_by_role("link").get_attribute("href") == "/-/tokentape/calls/EVENTS"
    box = run.row("plan").bounding_box()
    run.page.mouse.click(run.x(1300), box["y"] + box["height"] / 2)
    run.page.wait_for_url("**/calls/LOOK")


# Zoom and pan


@pytest.mark.scenario("ui/Zoom and pan")
def test_buttons_and_keys_zoom_and_pan(run):
    assert run.view == (0, 20_000)
    button = lambda name: run.page.get_by_role("button", name=name, exact=True)  # noqa: E731
    for name in ("Zoom out", "Show all", "Earlier", "Later"):
        expect(button(name)).to_be_disabled()
    button("Zoom in").click()
    assert run.view == pytest.approx((3750, 16_250))
    button("Later").click()
    assert run.view == pytest.approx((6250, 18_750))
    button("Earlier").click()
    button("Zoom out").click()
    assert run.view == pytest.approx((0, 20_000))
    run.row("plan").get_by_role("link").focus()
    press = run.page.keyboard.press
    press("+")
    press("+")
    closer = run.view
    assert closer[1] - closer[0] == pytest.approx(20_000 / 1.6**2)
    press("ArrowRight")
    assert run.view[0] == pytest.approx(closer[0] + (closer[1] - closer[0]) / 5)
    press("ArrowLeft")
    press("-")
    assert run.view == pytest.approx((3750, 16_250))
    press("0")
    assert run.view == (0, 20_000)


@pytest.mark.scenario("ui/Zoom and pan")
def test_wheel_with_ctrl_zooms_where_the_pointer_is_and_a_drag_pans(run):
    run.point("messages", 11_500)
    box = run.row("messages").bounding_box()
    before = run.x(11_500)
    run.page.keyboard.down("Control")
    run.page.mouse.wheel(0, -300)
    run.page.keyboard.up("Control")
    run.frame()
    begin, end = run.view
    assert end - begin == pytest.approx(20_000 / 2.71828**1.5, rel=0.01)
    # The pointer stands on a whole pixel.
    assert run.x(11_500) == pytest.approx(before, abs=4)
    before = run.x(11_500)
    run.page.mouse.down()
    run.page.mouse.move(before - 100, box["y"] + 5)
    assert run.x(11_500) == pytest.approx(before - 100, abs=5)
    run.page.mouse.move(before + 100_000, box["y"] + 5)
    run.page.mouse.up()
    assert run.view[0] == 0
    assert run.page.url.endswith("/runs/RUN")


def test_the_wheel_alone_scrolls_the_page(run):
    run.page.set_viewport_size({"width": 1440, "height": 400})
    run.point("messages", 11_500)
    run.page.mouse.wheel(0, 120)
    run.page.wait_for_function("() => scrollY > 0")
    assert run.view == (0, 20_000)


def test_zooming_asks_for_more_pieces(run):
    with run.page.expect_request(lambda request: "bins=96" in request.url or "bins=192" in request.url):
        for _ in range(2):
            run.page.get_by_role("button", name="Zoom in").click()


# Filters


@pytest.mark.scenario("ui/Filters of a timeline")
def test_a_choice_narrows_the_calls(run):
    choices = {
        "Model": ("claude-y", "messages"),
        "Provider": ("anthropic", "messages"),
        "Adapter": ("langchain", "ChatOpenAI.stream"),
        "Status": ("lost", "call lost"),
    }
    for label, (value, name) in choices.items():
        run.page.get_by_role("combobox", name=label, exact=True).select_option(value)
        assert run.names() == [name]
        expect(run.page.locator(".tl-count")).to_have_text("1 of 9 rows shown")
        run.page.get_by_role("combobox", name=label, exact=True).select_option("any")
        assert len(run.names()) == 9


@pytest.mark.scenario("ui/Filters of a timeline")
def test_what_is_chosen_is_in_the_address(page, site):
    run = Timeline(page, f"{site}/runs/RUN")
    page.get_by_role("combobox", name="Status", exact=True).select_option("lost")
    page.get_by_role("searchbox", name="Text").fill("lost")
    page.wait_for_url("**/RUN?*q=lost*")
    again = Timeline(page, page.url)
    expect(again.rows).to_have_count(1)
    assert run.names() == ["call lost"]


@pytest.mark.scenario("ui/Filters of a timeline")
def test_stalled_and_the_time_in_view(run):
    run.page.get_by_label("stalled").check()
    assert run.names() == ["plan"]
    run.page.get_by_label("stalled").uncheck()
    run.page.get_by_label("only the time in view").check()
    for _ in range(3):
        run.page.get_by_role("button", name="Zoom in").click()
    assert run.names() == ["ChatOpenAI.stream", "chat", "tool search_orders", "messages"]
    run.page.get_by_role("button", name="Show all").click()
    assert len(run.names()) == 9


@pytest.mark.scenario("ui/Filters of a timeline")
def test_search_in_the_text_of_calls_keeps_the_call_around(run):
    run.page.get_by_role("searchbox", name="Text").fill("NEEDLE")
    expect(run.rows).to_have_count(2)
    assert run.names() == ["ChatOpenAI.stream", "chat"]
    run.page.get_by_role("searchbox", name="Text").fill("search_o")
    expect(run.rows).to_have_count(1)
    run.page.get_by_role("searchbox", name="Text").fill("nobody said this")
    expect(run.rows).to_have_count(0)
    run.page.get_by_role("searchbox", name="Text").fill("")
    expect(run.rows).to_have_count(9)


# Runs


@pytest.mark.scenario("ui/Runs on the clock")
def test_runs_are_bars_and_each_opens_its_own(index):
    assert index.names() == [HOSTILE_NAME, "short", "support-agent", "big"]
    expect(index.row("support-agent").locator(".tl-amount")).to_have_text("7 calls, 4 failed, 4 stalls")
    index.point("support-agent", 9500)
    expect(index.line).to_have_text("support-agent at 9.5 s: no call open")
    index.point("support-agent", 50)
    expect(index.line).to_have_text(
        re.compile(r"^support-agent at 50 ms: (a call open, nothing came|\d+\.\d events/s)$")
    )
    box = index.row("support-agent").bounding_box()
    index.page.mouse.click(index.x(9500), box["y"] + 20)
    index.page.wait_for_url("**/runs/RUN")


@pytest.mark.scenario("ui/Runs on the clock")
def test_runs_by_the_clock_stand_where_they_were(index):
    index.page.get_by_role("combobox", name="Each run").select_option("by the clock (UTC)")
    index.point("short", 9_061_500)
    expect(index.line).to_have_text(re.compile(r"^short at 18:01:01\.\d{3}: no call open$"))
    index.page.get_by_role("combobox", name="Each run").select_option("from its own start")
    index.point("short", 1500)
    expect(index.line).to_have_text("short at 1.5 s: no call open")


def test_the_form_of_the_page_narrows_the_runs(page, site):
    index = Timeline(page, f"{site}?model=claude-y")
    assert index.names() == ["support-agent"]


# States


@pytest.mark.scenario("ui/The table stays in reach")
def test_the_table_can_be_had_instead(run):
    table = run.page.locator("tape-timeline table")
    expect(table).to_be_hidden()
    button = run.page.get_by_role("button", name="As a table")
    button.click()
    expect(table).to_be_visible()
    expect(run.rows.first).to_be_hidden()
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(table).to_be_hidden()


@pytest.mark.scenario("ui/The table stays in reach")
@pytest.mark.parametrize(("path", "api"), [("/runs/RUN", "/timeline?"), ("", "/api/v1/runs?")])
def test_without_the_api_the_table_stays(page, site, watch, path, api):
    page.route(re.compile(re.escape(api)), lambda route: route.fulfill(status=503, json={"detail": "It is locked."}))
    page.goto(f"{site}{path}")
    expect(page.locator("tape-timeline .tape-note")).to_have_text(
        "This is the plain version: the API answered 503 (It is locked)."
    )
    expect(page.locator("tape-timeline table").first).to_be_visible()
    watch.troubles.clear()


@pytest.mark.scenario("ui/Browsing without JavaScript")
def test_without_javascript_there_are_tables(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for path in ("", "/runs/RUN", "/models"):
        page.goto(f"{site}{path}")
        expect(page.locator("main table").first).to_be_visible()
        expect(page.locator("main button", has_text="As a table")).to_have_count(0)
    page.goto(f"{site}/live")
    expect(page.get_by_text("No call is in flight.")).to_be_visible()
    context.close()


@pytest.mark.scenario("ui/Hostile names on the timeline")
@pytest.mark.parametrize("path", ["", "/runs/HOSTILE"])
def test_hostile_names_stay_text(page, site, path):
    timeline = Timeline(page, f"{site}{path}")
    link = timeline.page.locator(".tl-name a").first
    assert link.inner_text() == HOSTILE_NAME
    link.focus()
    assert HOSTILE_NAME in timeline.line.inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("tape-timeline :is(img, script)").count() == 0


@pytest.mark.scenario("ui/Large runs")
def test_of_many_calls_only_those_in_sight_are_drawn(page, site):
    big = Timeline(page, f"{site}/runs/BIG")
    assert big.rows.count() == CALLS
    drawn = "all => all.filter(canvas => canvas.height > 160).length"
    canvases = page.locator(".tl-chunk canvas")
    assert canvases.count() == 19
    big.row("call 299").scroll_into_view_if_needed()
    big.point("call 299", 299 * 100 + 300)
    expect(big.line).to_have_text(re.compile(r"^call 299 at 30\.2 s: \d+\.\d events/s$"))
    assert canvases.evaluate_all(drawn) == 19


@pytest.mark.scenario("ui/A run that goes on")
def test_a_run_grows_while_it_is_recorded(page, tmp_path):
    made = Handmade(tmp_path / "tape.db")
    now_us = time.time_ns() // 1000
    made.run("NOW", name="now", started_unix_us=now_us)
    fields = {"run_uid": "NOW", "started_unix_us": now_us, "name": "first"}
    made.call("ONE", *steady(5), running=True, call=fields)
    with pages(made.path) as site:
        timeline = Timeline(page, f"{site}/runs/NOW")
        expect(timeline.row("first").locator(".tl-amount")).to_have_text("running, 5 events")
        before = timeline.view[1]
        made.call(
            "TWO",
            *steady(9),
            ended_ms=600,
            call={**fields, "name": "second", "started_unix_us": time.time_ns() // 1000},
        )
        expect(timeline.row("second").locator(".tl-amount")).to_have_text(re.compile("^9 events"))
        page.wait_for_function("before => document.querySelector('tape-timeline').view.to > before", arg=before)
        timeline.row("first").get_by_role("link").focus()
        made.run("NOW", name="now", started_unix_us=now_us, ended_ms=2000)
        index = Timeline(page, site)
        assert index.names() == ["now"]
        made.run("LATER", name="later", started_unix_us=time.time_ns() // 1000)
        expect(index.row("later")).to_be_visible()
    made.close()


@pytest.mark.scenario("ui/A run that goes on")
def test_when_the_server_is_away_it_says_so(page, made, watch, tmp_path):
    made = Handmade(tmp_path / "tape.db")
    now_us = time.time_ns() // 1000
    made.run("NOW", name="now", started_unix_us=now_us)
    made.call("ONE", *steady(5), running=True, call={"run_uid": "NOW", "started_unix_us": now_us, "name": "first"})
    with pages(made.path) as site:
        timeline = Timeline(page, f"{site}/runs/NOW")
        page.route("**/timeline?*", lambda route: route.abort())
        note = page.locator("tape-timeline .tape-note")
        expect(note).to_have_text("Not up to date: the server cannot be reached.")
        page.unroute("**/timeline?*")
        expect(note).to_have_text("")
        assert timeline.names() == ["first"]
    made.close()
    watch.troubles.clear()


@pytest.mark.scenario("ui/Browsing on any screen")
@pytest.mark.parametrize("path", ["", "/runs/RUN"])
def test_no_page_scrolls_sideways_and_nothing_is_wrong_with_it(page, site, axe, path):
    Timeline(page, f"{site}{path}")
    assert violations(page, axe) == []
    for width in (1440, 768, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert violations(page, axe) == []


def test_scripts_are_small(page, site):
    for path in ("/runs/RUN", "/models", "/live"):
        page.goto(f"{site}{path}")
        expect(page.locator("main .is-live")).to_be_visible()
        sizes = page.evaluate(
            """() => performance.getEntriesByType("resource")
              .filter(({ name }) => name.endsWith(".js")).map(one => one.decodedBodySize)"""
        )
        assert 0 < sum(sizes) <= SCRIPTS
