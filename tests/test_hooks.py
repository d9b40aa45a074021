"""The page about hooks is complete, and each hook is called where the page says."""

from __future__ import annotations

import re
import threading
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import tokentape
from headings import headings, section, signature
from tokentape import hookspecs, models, recording

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hooks.md"
ON_WRITER = {
    "tokentape_run_started",
    "tokentape_call_started",
    "tokentape_tokens",
    "tokentape_call_finished",
    "tokentape_mark",
    "tokentape_run_finished",
    "tokentape_flush",
}
IN_PROGRAM = {"tokentape_install", "tokentape_record", "tokentape_redactors", "tokentape_shutdown"}
GIVEN = ("Run", "Call", "FinishedCall", "TokenBatch", "Token", "Part", "Usage", "Stall", "Mark")


def test_the_page_has_each_hook_with_its_arguments() -> None:
    named = [heading for heading in headings(PAGE) if heading.startswith("tokentape_")]
    assert named == [signature(getattr(hookspecs, name)) for name in hookspecs.spec_names()]


@pytest.mark.parametrize("name", hookspecs.spec_names())
def test_the_example_of_a_hook_implements_it_and_shows_what_it_does(name: str) -> None:
    text = section(PAGE, signature(getattr(hookspecs, name)))
    assert re.search(rf"@tokentape\.hookimpl\n +def {name}\(", text)
    assert "```text\n" in text
    assert "If it raises" in text


def test_the_page_lists_the_fields_of_what_hooks_are_given() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section(PAGE, "What hooks are given"), re.MULTILINE)
    assert {name: re.findall(r"`(\w+)`", listed) for name, listed in rows} == {name: own_fields(name) for name in GIVEN}


def own_fields(name: str) -> list[str]:
    """Fields of a value that those it is made from do not have."""
    value: Any = getattr(models, name)
    if not is_dataclass(value):
        return list(value._fields)
    inherited = {field.name for base in value.__mro__[1:] if is_dataclass(base) for field in fields(base)}
    return [field.name for field in fields(value) if field.name not in inherited]


class Where:
    """Notes on which thread each hook was called."""

    def __init__(self) -> None:
        self.threads: dict[str, set[str]] = {}


def _noting(name: str) -> Any:
    def note(self: Where) -> Any:
        self.threads.setdefault(name, set()).add(threading.current_thread().name)
        return () if name == "tokentape_redactors" else None

    note.__name__ = name
    return tokentape.hookimpl(note)


for _name in hookspecs.spec_names():
    setattr(Where, _name, _noting(_name))


def record(monkeypatch: pytest.MonkeyPatch, *plugins: object) -> dict[str, Any]:
    """Let a program meet every hook; the status before recording stopped."""
    monkeypatch.setattr(recording, "_registered", list(plugins))
    tokentape.enable(db="none", plugins=())
    with tokentape.run("outer"), tokentape.mark("search"), tokentape.start_llm_stream(model="m") as stream:
        stream.add_token("Hel")
    assert tokentape.flush(10)
    status = tokentape.status()
    tokentape.disable()
    return status


def test_each_hook_is_called_on_the_thread_that_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Where()
    record(monkeypatch, where)
    here = threading.current_thread().name
    expected = {name: {"tokentape-writer"} for name in ON_WRITER} | {name: {here} for name in IN_PROGRAM}
    assert where.threads == expected
    assert {*ON_WRITER, *IN_PROGRAM, "tokentape_register_commands"} == {*hookspecs.spec_names()}


@pytest.mark.parametrize("name", sorted((ON_WRITER | IN_PROGRAM) - {"tokentape_shutdown"}))
@pytest.mark.usefixtures("lenient")
def test_a_hook_that_raises_is_named_and_the_other_plugins_go_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError("no room")

    fail.__name__ = name
    first, last, broken = Where(), Where(), type("Broken", (), {name: tokentape.hookimpl(fail)})()
    status = record(monkeypatch, first, broken, last)
    assert set(first.threads) == set(last.threads) == ON_WRITER | IN_PROGRAM
    states = {plugin["name"].partition("-")[0]: (plugin["state"], plugin["reason"]) for plugin in status["plugins"]}
    assert states == {"Broken": ("failed", f"{name}: OSError: no room"), "Where": ("active", None)}


@pytest.mark.usefixtures("lenient")
def test_a_shutdown_that_raises_keeps_no_other_plugin_from_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @tokentape.hookimpl
        def tokentape_shutdown(self) -> None:
            raise OSError("no room")

    first, last = Where(), Where()
    record(monkeypatch, first, Broken(), last)
    assert "tokentape_shutdown" in first.threads
    assert "tokentape_shutdown" in last.threads
