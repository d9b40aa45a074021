"""What is in flight, in a real browser, while it is recorded."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from browser import pages, violations
from handmade import Handmade
from hostile import HOSTILE, HOSTILE_NAME
from programs import CLIENT, Program
from tokentape.models import Metrics, Part
from tokentape.testing import Finish, ProviderServer, Text, Usage, WaitFor
from values import call_value, finished

pytest_plugins = ("browser_fixtures",)

TEXT = (Part(0, "text"),)
KEPT = 12


class Writing:
    """Calls that are written as a test goes on."""

    def __init__(self, path: Path) -> None:
        self.made = Handmade(path)
        self.made.run(name="nightly", started_unix_us=time.time_ns() // 1000)
        self._calls: dict[str, Any] = {}
        self._count: dict[str, int] = {}

    def begin(self, uid: str, **fields: Any) -> None:
        fields = {"name": uid.lower(), "started_unix_us": time.time_ns() // 1000, **fields}
        self.made.call(uid, running=True, call=fields)
        self._calls[uid] = call_value(uid, **fields)
        self._count[uid] = 0

    def say(self, uid: str, *tokens: str) -> None:
        """Events, one every 10 ms."""
        first = self._count[uid]
        self._count[uid] += len(tokens)
        events = [(10.0 * (first + i + 1), 0, token) for i, token in enumerate(tokens)]
        self.made.events(self._calls[uid], *events, parts=() if first else TEXT)

    def end(self, uid: str, **end: Any) -> None:
        metrics = Metrics(
            duration_ms=10.0 * self._count[uid] + 5, first_token_latency_ms=10.0, first_output_token_latency_ms=10.0
        )
        ended = finished(
            self._calls[uid], ended_us=10_000 * self._count[uid] + 5_000, event_count=self._count[uid],
            **{"metrics": metrics, "parts": TEXT, **end},
        )  # fmt: skip
        self.made._store.tokentape_call_finished(ended)
        self.made._store.tokentape_flush()


@pytest.fixture
def writing(tmp_path) -> Iterator[Writing]:
    writing = Writing(tmp_path / "tape.db")
    yield writing
    writing.made.close()


@pytest.fixture
def site(writing) -> Iterator[str]:
    with pages(writing.made.path) as site:
        yield site


class Live:
    """The live page, as somebody who looks at it finds things."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(f"{url}/live")
        expect(page.locator("tape-live.is-live")).to_be_visible()
        self.note = page.locator("tape-live .tape-note")
        self.flight = page.get_by_role("list", name="Calls in flight")
        self.ended = page.get_by_role("list", name="Calls that ended lately")

    def card(self, uid: str):
        return self.page.locator(f'.live-card[data-uid="{uid}"]')

    def text(self, uid: str):
        return self.card(uid).locator(".part-text")

    def state(self, uid: str):
        return self.card(uid).locator(".live-state")


@pytest.fixture
def live(page, site) -> Live:
    return Live(page, site)


@pytest.mark.scenario("ui/A call of another process appears and grows")
def test_a_call_of_another_process_appears_grows_and_stays_with_its_numbers(page, tmp_path):
    go_on = threading.Event()
    steps = [Text("One "), Text("two "), WaitFor(go_on, 30), Text("three."), Finish(), Usage(5, 6)]
    code = CLIENT + "tokentape.enable()\nprint('ready', flush=True)\nsys.stdin.readline()\nfor _ in ask(): pass\n"
    with ProviderServer() as server:
        server.add(steps)
        program = Program(tmp_path, code, server=server.url)
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=program._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout.readline() == "ready\n"
            with pages(program.tape) as site:
                live = Live(page, site)
                expect(
                    page.get_by_text("No call is in flight. One that begins appears here by itself.")
                ).to_be_visible()
                running.stdin.write("\n")
                running.stdin.flush()
                card = live.flight.locator(".live-card")
                expect(card.locator(".part-text")).to_have_text("One two ")
                expect(card.locator(".live-where")).to_contain_text("gpt-x · openai")
                state = card.locator(".live-state")
                expect(state).to_have_text(re.compile(r"^waits for event 3, for .* · runs for "))
                before = state.inner_text()
                page.wait_for_function(
                    "before => document.querySelector('.live-state').textContent !== before", arg=before
                )
                expect(live.note).to_have_text("1 call in flight")
                go_on.set()
                ended = live.ended.locator(".live-card")
                expect(ended.locator(".part-text")).to_have_text("One two three.")
                expect(ended.locator(".live-state")).to_have_text(
                    re.compile(r"^completed after .* · first token .* · 6 tokens · \d+\.\d tok/s")
                )
                expect(live.note).to_have_text("0 calls in flight")
                ended.get_by_role("link").first.click()
                page.wait_for_url("**/calls/*")
            assert running.wait(20) == 0


@contextmanager
def serving(tape: Path, port: int) -> Iterator[str]:
    """The pages at a port, served by a process of their own."""
    command = [sys.executable, "-m", "tokentape", "serve", "--db", str(tape), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        watchdog = threading.Timer(60, running.kill)
        watchdog.start()
        try:
            url = running.stdout.readline().strip()
            assert url.startswith("http")
            yield url
        finally:
            watchdog.cancel()
            running.terminate()


@pytest.mark.scenario("ui/The server comes back")
def test_after_a_restart_of_the_server_nothing_is_lost_or_doubled(page, writing, watch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    numbers = iter(range(1000))

    def say(count: int) -> None:
        writing.say("LONG", *(f"{next(numbers)} " for _ in range(count)))

    writing.begin("LONG")
    say(10)
    with serving(writing.made.path, port) as url:
        live = Live(page, url)
        expect(live.text("LONG")).to_have_text("".join(f"{n} " for n in range(10)), use_inner_text=False)
    expect(live.note).to_have_text("The server cannot be reached; what was missed comes when it is back.")
    say(10)
    writing.begin("NEW")
    writing.say("NEW", "meanwhile")
    writing.end("NEW")
    with serving(writing.made.path, port):
        expect(live.text("LONG")).to_have_text("".join(f"{n} " for n in range(20)), timeout=20_000)
        expect(live.text("NEW")).to_have_text("meanwhile")
        say(5)
        expect(live.text("LONG")).to_have_text("".join(f"{n} " for n in range(25)))
        expect(live.note).to_have_text("1 call in flight")
        assert live.text("LONG").evaluate("one => one.textContent") == "".join(f"{n} " for n in range(25))
    watch.troubles.clear()


@pytest.mark.scenario("ui/The server comes back")
def test_an_answer_that_is_no_stream_is_asked_for_again_where_it_broke_off(page, writing, site, watch):
    with urllib.request.urlopen(f"{site}/api/v1/live") as stream:
        position = next(line for line in stream if line.startswith(b"id: ")).decode().strip().removeprefix("id: ")
    told = f'retry: 50\nid: {position}\nevent: tokens\ndata: {{"call_uid": "unknown"}}\n\n'
    answers: list[dict[str, Any]] = [
        {"status": 503, "json": {}},
        {"status": 200, "content_type": "text/event-stream", "body": told},
        {"status": 502, "body": "Bad gateway"},
    ]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        if answers:
            route.fulfill(**answers.pop(0))
        else:
            route.continue_()

    page.route("**/api/v1/live?*", answer)
    writing.begin("ONE")
    writing.say("ONE", "text")
    live = Live(page, site)
    expect(live.note).to_have_text("The server cannot be reached; what was missed comes when it is back.")
    expect(live.text("ONE")).to_have_text("text")
    expect(live.note).to_have_text("1 call in flight")
    assert asked == ["", "", "", f"after={position}"]
    watch.troubles.clear()


@pytest.mark.scenario("ui/Following and reading")
def test_a_text_is_followed_until_its_reader_scrolls_back(live, writing):
    writing.begin("LONG")
    lines = iter(range(10_000))

    def say() -> None:
        writing.say("LONG", *(f"line {next(lines)}\n" for _ in range(40)))

    say()
    box = live.card("LONG").get_by_role("region", name="Text of long")
    expect(box).to_contain_text("line 39")
    at_end = "box => box.scrollHeight - box.clientHeight - box.scrollTop < 2"
    assert box.evaluate(at_end)
    follow = live.card("LONG").get_by_role("button", name="Follow")
    expect(follow).to_be_hidden()
    say()
    expect(box).to_contain_text("line 79")
    assert box.evaluate(at_end)
    box.hover()
    live.page.mouse.wheel(0, -300)
    expect(follow).to_be_visible()
    before = box.evaluate("box => box.scrollTop")
    say()
    expect(box).to_contain_text("line 119")
    assert box.evaluate("box => box.scrollTop") == before
    follow.click()
    expect(follow).to_be_hidden()
    expect(box).to_be_focused()
    assert box.evaluate(at_end)
    say()
    expect(box).to_contain_text("line 159")
    assert box.evaluate(at_end)


@pytest.mark.scenario("ui/Holding still")
def test_pause_holds_everything_back_until_it_ends(live, writing):
    writing.begin("ONE")
    writing.say("ONE", "one ")
    expect(live.text("ONE")).to_have_text("one ")
    pause = live.page.get_by_role("button", name="Pause")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    writing.say("ONE", "two")
    writing.begin("TWO")
    expect(live.note).to_have_text("1 call in flight, 2 messages held back")
    assert live.text("ONE").inner_text() == "one "
    pause.click()
    expect(live.text("ONE")).to_have_text("one two")
    expect(live.card("TWO")).to_be_visible()
    expect(live.note).to_have_text("2 calls in flight")


@pytest.mark.scenario("ui/Calls in flight and what they wait for")
def test_a_framework_s_call_has_the_call_it_made_below_it(live, writing):
    writing.begin("OUTER", layer="framework", adapter="langchain", name="ChatOpenAI.stream")
    writing.begin("INNER", parent_uid="OUTER", name="chat")
    for uid in ("OUTER", "INNER"):
        writing.say(uid, "Hello")
    expect(live.text("INNER")).to_have_text("Hello")
    expect(live.state("OUTER")).to_have_text(re.compile("its text is below$"))
    expect(live.card("OUTER").get_by_role("region")).to_have_count(0)
    order = live.flight.locator(".live-card").evaluate_all("all => all.map(one => one.dataset.uid)")
    assert order == ["OUTER", "INNER"]


@pytest.mark.scenario("ui/Calls in flight and what they wait for")
def test_calls_that_ended_stay_a_while_and_can_be_cleared(live, writing):
    for number in range(KEPT + 2):
        writing.begin(f"C{number}")
        writing.end(f"C{number}", status="error" if number == 13 else "completed", error_type="ReadTimeout")
    expect(live.ended.locator(".live-card")).to_have_count(KEPT)
    expect(live.ended.locator(".live-card").first).to_have_attribute("data-uid", "C13")
    expect(live.state("C13")).to_have_text(re.compile("^error ReadTimeout after 5.0 ms"))
    assert live.card("C13").locator("h3").inner_text().startswith("✕")
    clear = live.page.get_by_role("button", name="Clear those that ended")
    clear.click()
    expect(live.ended.locator(".live-card")).to_have_count(0)
    expect(clear).to_be_hidden()
    expect(live.page.get_by_role("button", name="Pause")).to_be_focused()


def test_what_happens_is_said_to_a_screen_reader(live, writing):
    said = live.page.locator("tape-live [role=status]")
    writing.begin("ONE")
    expect(said).to_have_text("one began")
    writing.say("ONE", "text")
    writing.end("ONE")
    expect(said).to_have_text(re.compile("^one completed after 15 ms"))


@pytest.mark.scenario("ui/Hostile text while it streams")
def test_hostile_text_stays_text(live, writing):
    writing.begin("EVIL", name=HOSTILE_NAME, request_model=HOSTILE_NAME)
    writing.say("EVIL", *HOSTILE)
    expected = "".join(HOSTILE).replace("\x00", "␀").replace("\x1b", "␛")
    live.page.wait_for_function("text => document.querySelector('.part-text')?.textContent === text", arg=expected)
    assert HOSTILE_NAME in live.card("EVIL").locator("h3").inner_text()
    assert live.page.evaluate("window.hacked") is None
    assert live.page.locator("tape-live :is(img, script, svg)").count() == 0


@pytest.mark.scenario("ui/The table stays in reach")
def test_without_the_api_the_table_stays(page, site, writing, watch):
    writing.begin("ONE")
    page.route("**/api/v1/runs?*", lambda route: route.fulfill(status=503, json={"detail": "It is locked."}))
    page.goto(f"{site}/live")
    expect(page.locator("tape-live .tape-note")).to_have_text(
        "This is the plain version: the API answered 503 (It is locked)."
    )
    expect(page.locator("tape-live table")).to_be_visible()
    watch.troubles.clear()


@pytest.mark.scenario("ui/Browsing on any screen")
def test_the_live_page_fits_and_nothing_is_wrong_with_it(live, writing, axe):
    writing.begin("ONE", name="a-name-without-any-space-that-is-longer-than-a-narrow-screen-is-wide")
    writing.say("ONE", "https://example.com/" + "x" * 300)
    writing.begin("TWO")
    writing.end("TWO")
    expect(live.text("ONE")).to_contain_text("xxx")
    expect(live.ended.locator(".live-card")).to_have_count(1)
    for width in (1440, 768, 360):
        live.page.set_viewport_size({"width": width, "height": 800})
        assert live.page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(live.page, axe) == []
    live.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert violations(live.page, axe) == []
    assert live.page.evaluate("getComputedStyle(document.querySelector('.cursor')).animationName") == "none"
