"""The page about the Python API has every exported name, and no other, with its arguments."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import tokentape
from headings import headings, section, signature
from tokentape import asgi, wsgi
from tokentape.streams import LLMStream

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"


def written(name: str, value: Any) -> str:
    """How a name stands in a heading: with its arguments if it is to be called."""
    is_called = inspect.isfunction(value) or inspect.isclass(value)
    return signature(value, name) if is_called else name


def test_the_page_has_each_exported_name_with_its_arguments() -> None:
    exported = {name: getattr(tokentape, name) for name in tokentape.__all__}
    # Modules of their own, because the rest of the API must not load them.
    exported |= {"asgi.RunPerRequest": asgi.RunPerRequest, "wsgi.RunPerRequest": wsgi.RunPerRequest}
    assert sorted(headings(PAGE)) == sorted(written(name, value) for name, value in exported.items())


def test_the_page_has_everything_that_a_stream_fed_by_hand_can_do() -> None:
    public = {name: value for name, value in vars(LLMStream).items() if not name.startswith("_")}
    assert sorted(headings(PAGE, 3)) == sorted(written(name, value) for name, value in public.items())


@pytest.mark.parametrize("heading", headings(PAGE))
def test_each_name_has_an_example_that_uses_it(heading: str) -> None:
    name = heading.partition("(")[0]
    example = section(PAGE, heading).partition("```python\n")[2].partition("```")[0]
    assert f"tokentape.{name}" in example


def test_status_has_the_keys_that_the_page_names(tmp_path: Path) -> None:
    text = section(PAGE, "status()")
    off = tokentape.status()
    tokentape.enable(db=tmp_path / "tape.db")
    assert [key for key in {*off, *tokentape.status()} if f"`{key}`" not in text] == []
