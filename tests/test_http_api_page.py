"""The page about the HTTP API has every path with its parameters, and shows what is answered."""

from __future__ import annotations

import json
import re

import pytest

import make_http_api_page
from headings import headings, section
from tokentape_api import create_app

PAGE = make_http_api_page.PAGE
PATHS = create_app("tape.db").openapi()["paths"]


def test_the_page_has_each_path() -> None:
    assert sorted(headings(PAGE)) == sorted(["For all paths", *(f"GET {path}" for path in PATHS)])


@pytest.mark.parametrize("path", PATHS)
def test_each_path_has_its_parameters_and_an_example(path: str) -> None:
    text = section(PAGE, f"GET {path}")
    named = {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[=\s]", code)}
    parameters = {one["name"] for one in PATHS[path]["get"].get("parameters", ()) if one["in"] == "query"}
    assert parameters - {"cursor", "limit"} - named == set()
    example = re.compile("```http\nGET " + re.sub(r"\\{\w+\\}", r"[^/\\s]+", re.escape(path)) + r"(\?\S+)?\n")
    assert example.search(text)


def test_the_page_shows_what_is_answered() -> None:
    assert PAGE.read_text("utf-8") == make_http_api_page.page(), (
        "docs/http-api.md is old: python tests/make_http_api_page.py"
    )


@pytest.mark.parametrize("value", [1, "ü", [], {}, [1] * 99, {"a": [{"b": "x" * 200}]}, [[1] * 60, {"c": 1}]])
def test_json_is_laid_out_as_it_was(value: object) -> None:
    assert json.loads(make_http_api_page.laid_out(value)) == value
