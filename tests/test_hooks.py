"""The page about hooks is complete, and each hook is called where the page says."""

from __future__ import annotations

import re
import threading
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import test_hook_effects
import tokentape
from headings import headings, section, signature
from tokentape import hookspecs, models, recording
from tokentape.plugins import PluginHost

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hooks.md"
ON_WRITER = {
    "tokentape_run_started",
    "tokentape_call_started",
    "tokentape_call_labelled",
    "tokentape_tokens",
    "tokentape_call_finished",
    "tokentape_mark",
    "tokentape_run_finished",
    "tokentape_flush",
}
IN_PROGRAM = {"tokentape_install", "tokentape_record", "tokentape_redactors", "tokentape_shutdown"}
SAID = ("Called", "Given", "Returns", "If it raises")
GIVEN = ("Run", "Call", "FinishedCall", "TokenBatch", "Token", "Part", "Usage", "Stall", "Mark")


def known_hooks() -> list[str]:
    """What plugins can implement, each as a heading says it."""
    callers = vars(PluginHost()._manager.hook)
    specs = [caller.spec for name, caller in callers.items() if name.startswith("tokentape_")]
    return [f"{spec.name}({', '.join(spec.argnames)})" for spec in specs]


def test_the_page_has_each_hook_with_its_arguments() -> None:
    named = [heading for heading in headings(PAGE) if heading.startswith("tokentape_")]
    assert sorted(named) == sorted(known_hooks())
    assert named == [signature(getattr(hookspecs, name)) for name in hookspecs.spec_names()]


@pytest.mark.parametrize("heading", known_hooks())
def test_the_page_says_of_each_hook_what_an_author_has_to_know(heading: str) -> None:
    text = section(PAGE, heading)
    name, _, arguments = heading.rstrip(")").partition("(")
    assert re.fullmatch(r"\n\n[A-Z].*\.", text.partition("\n\n-")[0])
    assert tuple(re.findall(r"^- \*\*([\w ]+)\*\*", text, re.MULTILINE)) == SAID
    assert [name for name in arguments.split(", ") if name and f"`{name}`" not in text] == []
    assert ("on the writer thread" in text) is (name in ON_WRITER)
    assert re.search(rf"@tokentape\.hookimpl\n +def {name}\(", text)
    assert "```text\n" in text


def test_each_hook_has_a_test_of_its_own() -> None:
    tested = {name.removeprefix("test_hook_") for name in vars(test_hook_effects) if name.startswith("test_hook_")}
    assert tested == {heading.partition("(")[0] for heading in known_hooks()}


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
        tokentape.last_call().noted["client"] = "disconnected"
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
