"""The page of the models in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from browser import pages, violations
from calls_to_look_at import write
from handmade import Handmade
from hostile import HOSTILE_NAME
from tokentape.models import Part

pytest_plugins = ("browser_fixtures",)

TEXT = (Part(0, "text"),)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Handmade]:
    made = Handmade(tmp_path_factory.mktemp("models") / "tape.db")
    made.run(ended_ms=9000)

    def call(uid: str, model: str, first_ms: float, every_ms: float, stall_ms: float = 0, **end) -> None:
        """Ten events, with a stall before the last."""
        events = [(first_ms + every_ms * i + (stall_ms if i == 9 else 0), 0, "w ") for i in range(10)]
        counted = {"token_count": 10, "token_count_source": "usage"}
        named = {"request_model": model, "name": f"{model} {uid}"}
        write(made, uid, events, TEXT, ended_ms=events[-1][0] + 5, call=named, **counted, **end)

    for number, first_ms in enumerate((100, 200, 400, 800)):
        call(f"X{number}", "gpt-x", first_ms, 20, stall_ms=2000 if number == 3 else 0)
    for number, first_ms in enumerate((50, 60)):
        call(f"Y{number}", "claude-y", first_ms, 40)
    call("Y2", "claude-y", 5000, 40, status="error", error_type="ReadTimeout")
    call("EVIL", HOSTILE_NAME, 150, 10, stall_ms=1200)
    made.call("SILENT", call={"request_model": "quiet"}, ended_ms=100)
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(made) -> Iterator[str]:
    with pages(made.path) as site:
        yield f"{site}/models"


@pytest.fixture
def models(page, site) -> Page:
    return opened(page, site)


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.locator("tape-models.is-live")).to_be_visible()
    return page


def names(page: Page) -> list[str]:
    return page.locator(".models-list h3").all_inner_texts()


def spread(page: Page, model: str, what: str):
    return page.locator(".models-list > li").filter(has_text=model).get_by_role("img", name=re.compile(f"^{what}:"))


@pytest.mark.scenario("ui/How models are spread")
def test_each_model_has_its_distributions_in_words_too(models):
    assert names(models)[0] == "gpt-x"
    assert sorted(names(models)) == sorted(["gpt-x", "claude-y", HOSTILE_NAME, "quiet"])
    facts = models.locator(".model-head p").all_inner_texts()
    assert facts[:2] == ["openai · 4 calls · 1 stall", "openai · 3 calls · 1 failed · no stall"]
    name = spread(models, "gpt-x", "First token").get_attribute("aria-label")
    assert name == "First token: median 0.3 s, p95 0.7 s; 4 calls"
    expect(models.locator(".models-list > li").filter(has_text="quiet")).to_contain_text("First token: not known")


@pytest.mark.scenario("ui/How models are spread")
def test_each_bar_says_how_many_calls_are_in_it(models):
    canvas = spread(models, "gpt-x", "First token")
    line = canvas.locator("xpath=following-sibling::p")
    summary = line.inner_text()
    canvas.focus()
    found = 0
    for _ in range(16):
        models.keyboard.press("ArrowRight")
        words = re.fullmatch(r".+ m?s to .+ m?s: (\d+) calls?", line.inner_text())
        found += int(words[1])
    assert found == 4
    models.keyboard.press("ArrowLeft")
    models.get_by_role("searchbox", name="Name").focus()
    expect(line).to_have_text(summary)
    box = canvas.bounding_box()
    models.mouse.move(box["x"] + 2, box["y"] + 40)
    expect(line).to_have_text(re.compile(r"^50 ms to .*: 0 calls$"))
    models.mouse.move(2, 2)
    expect(line).to_have_text(summary)


@pytest.mark.scenario("ui/Ordering and finding models")
def test_models_can_be_ordered_and_found(models):
    order = models.get_by_role("combobox", name="Order")
    expected = {
        "fastest first token": ["claude-y", HOSTILE_NAME, "gpt-x", "quiet"],
        "fastest rate": ["gpt-x", "claude-y"],
        "most stalls": ["gpt-x"],
        "most used": ["gpt-x", "claude-y"],
    }
    for choice, first in expected.items():
        order.select_option(choice)
        assert [name for name in names(models) if choice != "fastest rate" or name in first][: len(first)] == (
            first if choice != "most stalls" else names(models)[:1]
        )
    models.get_by_role("searchbox", name="Name").fill("CLAUDE")
    assert names(models) == ["claude-y"]
    expect(models.get_by_role("search", name="Models").get_by_role("status")).to_have_text("1 of 4 models shown")


@pytest.mark.scenario("ui/Calls that stalled most")
def test_calls_that_stalled_most_are_named_and_lead_to_their_pages(models):
    rows = models.locator(".stalled-list li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_have_text(re.compile(r"^gpt-x X3.*gpt-x.*1 stall, 2\.0 s longer than usual$"))
    assert rows.last.locator("a").inner_text() == f"{HOSTILE_NAME} EVIL"
    rows.first.locator("a").click()
    models.wait_for_url("**/calls/X3")


@pytest.mark.scenario("ui/How models are spread")
def test_all_calls_are_counted_where_the_page_counts_all(page, site):
    before = spread(opened(page, site), "claude-y", "First token").get_attribute("aria-label")
    after = spread(opened(page, f"{site}?all=1"), "claude-y", "First token").get_attribute("aria-label")
    assert before.endswith("; 2 calls")
    assert after.endswith("; 3 calls")


@pytest.mark.scenario("ui/Hostile names of models")
def test_hostile_names_stay_text_and_tables_stay(models):
    assert HOSTILE_NAME in names(models)
    assert models.evaluate("window.hacked") is None
    assert models.locator("tape-models :is(img:not([role]), script)").count() == 0
    expect(models.locator("tape-models table").first).to_be_visible()


@pytest.mark.scenario("ui/The table stays in reach")
def test_without_the_api_the_tables_stay(page, site, watch):
    page.route("**/api/v1/models?*", lambda route: route.abort())
    page.goto(site)
    expect(page.locator("tape-models .tape-note")).to_have_text(
        "This is the plain version: the server cannot be reached."
    )
    expect(page.locator("tape-models table").first).to_be_visible()
    watch.troubles.clear()


@pytest.mark.scenario("ui/Browsing on any screen")
def test_the_page_fits_and_nothing_is_wrong_with_it(models, axe):
    for width in (1440, 768, 360):
        models.set_viewport_size({"width": width, "height": 800})
        assert models.evaluate("document.documentElement.scrollWidth") == width
    assert violations(models, axe) == []
    models.emulate_media(color_scheme="dark")
    assert violations(models, axe) == []
