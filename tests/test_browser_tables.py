"""The pages as a browser shows them without their scripts: to read, to reach by keyboard, on small and dark screens."""

from __future__ import annotations

import pytest

from browser import pages, violations
from hostile import HOSTILE_NAME

pytest_plugins = ("browser_fixtures", "recorded_tape")

PATHS = {
    "index": "",
    "filtered": "?status=abandoned",
    "run": "/runs/3",
    "hostile run": "/runs/6",
    "call": "/calls/2",
    "thinking call": "/calls/7",
    "hostile call": "/calls/12",
    "failed call": "/calls/10",
    "race": "/race?calls=2,5,12",
    "choose": "/race",
    "models": "/models",
    "live": "/live",
    "nowhere": "/nowhere",
}


@pytest.fixture(scope="module")
def base(recorded_tape):
    with pages(recorded_tape) as url:
        yield url


@pytest.fixture
def plain(context):
    """A page whose own scripts are empty; those of the test run."""
    page = context.new_page()
    page.route("**/static-plugins/**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    return page


@pytest.mark.scenario("ui/Every page can be read by a screen reader")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PATHS)
def test_pages_are_accessible_in_both_schemes(base, plain, axe, name, scheme):
    plain.emulate_media(color_scheme=scheme)
    plain.goto(f"{base}{PATHS[name]}")

    assert violations(plain, axe) == []


@pytest.mark.scenario("ui/Small screens")
@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", PATHS)
def test_pages_never_scroll_sideways(base, plain, name, width):
    plain.set_viewport_size({"width": width, "height": 800})
    plain.goto(f"{base}{PATHS[name]}")

    inside = "({scrollWidth, clientWidth}) => scrollWidth <= clientWidth"
    assert plain.evaluate(f"({inside})(document.documentElement)")


@pytest.mark.scenario("ui/What a number means")
def test_a_number_is_explained_to_the_keyboard(base, plain):
    plain.goto(f"{base}/calls/2")
    term = plain.get_by_role("button", name="while decoding", exact=True)
    term.focus()
    plain.keyboard.press("Enter")
    definition = plain.locator("#tile-decode")

    assert definition.is_visible()
    word, box = plain.locator("[popovertarget=tile-decode]").bounding_box(), definition.bounding_box()
    assert abs(box["y"] - word["y"] - word["height"]) < 20
    assert abs(box["x"] - word["x"]) < 20
    assert "(Ns - n1) / (cm - c1)" in definition.inner_text()
    assert "Ns: output tokens, without reasoning" in definition.inner_text()
    plain.keyboard.press("Escape")
    assert not definition.is_visible()


def test_the_first_tab_leads_past_the_head_of_the_page(base, plain):
    plain.goto(f"{base}/calls/2")
    plain.keyboard.press("Tab")

    assert plain.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert plain.locator(".skip").bounding_box()["x"] >= 0
    plain.keyboard.press("Enter")
    assert plain.evaluate("document.activeElement.id") == "content"


def test_what_has_the_focus_is_outlined(base, plain):
    plain.goto(base)
    for _ in range(12):
        plain.keyboard.press("Tab")
        outline = plain.evaluate("getComputedStyle(document.activeElement).outline")
        assert "none" not in outline
        assert "0px" not in outline


@pytest.mark.scenario("ui/Race without JavaScript")
def test_calls_are_chosen_for_a_race_with_a_form(base, plain):
    plain.goto(base)
    for box in plain.get_by_role("checkbox", name="Race").all()[:2]:
        box.check()
    plain.get_by_role("button", name="Race the chosen ones").click()

    assert plain.get_by_role("heading", name="Race", exact=True).is_visible()
    assert plain.locator(".lane").count() == 2


@pytest.mark.scenario("ui/Hostile text")
@pytest.mark.parametrize("name", sorted(PATHS.keys() - {"nowhere"}))
def test_hostile_text_runs_nothing(base, page, name):
    """With the scripts of the pages: nothing that was recorded runs, and the policy had nothing to refuse."""
    page.goto(f"{base}{PATHS[name]}")
    page.wait_for_load_state("load")

    assert page.evaluate("window.hacked") is None


def test_hostile_names_are_shown_as_they_are(base, plain):
    plain.goto(f"{base}/runs/6")

    assert HOSTILE_NAME in plain.locator("h1").inner_text()
