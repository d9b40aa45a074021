"""Writes docs/conformance.md from the conformance suite and what runs it: `python tests/make_conformance_page.py`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from tokentape.testing.conformance import AdapterConformance, FormatConformance
from tokentape.testing.conformance.suite import BOTH, Suite

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conformance.md"
# One for each SDK, in the order of the columns.
MODULES = tuple(f"test_{sdk}_conformance" for sdk in ("openai", "anthropic", "langchain", "llama_index"))
INTRODUCTION = """# Conformance

Every adapter runs one list of scenarios, against the real SDK or framework and a provider on loopback. The list is part
of the [testing kit](testing.md), for adapters from outside too; all of it runs in CI. A framework's adapter is tested
by itself, without that of the SDK beneath: LangChain with its OpenAI chat model, LlamaIndex with a model of the tests'
own, which asks through the OpenAI SDK as LlamaIndex's does.

This page is made from the list itself, by `python tests/make_conformance_page.py`.

| | |
|---|---|
| ✓ | passes, synchronous and asynchronous, or only in the mode that is named where the other has no such thing |
| ✓ with a note | passes, and the note says what is expected there instead |
| – | not possible, for the reason in the note |
| *as …* | does not depend on what is streamed, and is tested once an SDK |
"""


def page() -> str:
    """The whole page."""
    columns = [column for module in MODULES for column in suites(module)]
    notes: list[str] = []
    tables = [line for part in parts() for line in _table(part, columns, notes)]
    listed = [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join([INTRODUCTION, *tables, "## Notes\n", *listed, ""])


def suites(module: str) -> list[type[Suite]]:
    """The classes of a module that run the suite, the one that runs all of it first."""
    found = vars(importlib.import_module(module)).values()
    classes = [value for value in found if isinstance(value, type) and issubclass(value, FormatConformance)]
    own = [value for value in classes if value.__module__ == module]
    return sorted(own, key=lambda suite: not issubclass(suite, AdapterConformance))


def parts() -> list[type[Suite]]:
    """The classes that the suite is put together from, in its order."""
    return [part for part in AdapterConformance.__mro__ if any(hasattr(test, "needs") for test in vars(part).values())]


def _table(part: type[Suite], columns: list[type[Suite]], notes: list[str]) -> Iterator[str]:
    yield f"## {_sentence(part)}\n"
    yield "| | " + " | ".join(map(_sentence, columns)) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for name in (name for name, test in vars(part).items() if hasattr(test, "needs")):
        cells = [_cell(name, column, notes) for column in columns]
        yield f"| {name.removeprefix('test_').replace('_', ' ')} | " + " | ".join(cells) + " |"
    yield ""


def _cell(name: str, suite: type[Suite], notes: list[str]) -> str:
    test = getattr(suite, name, None)
    if test is None:
        (whole,) = (other for other in suites(suite.__module__) if issubclass(other, AdapterConformance))
        return f"*as {_sentence(whole).partition(', ')[2]}*"
    reason, difference = suite.why_not(name), suite.difference(name)
    if reason is not None:
        return f"– {_number(reason, notes)}"
    mode = "" if test.modes in (BOTH, ("once",)) else f" {', '.join(test.modes)}"
    return f"✓{mode}" if difference is None else f"✓{mode} {_number(difference, notes)}"


def _number(note: str, notes: list[str]) -> str:
    """The number of a note, as a mark; a new one is added."""
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}](#notes)"


def _sentence(described: type) -> str:
    return str(described.__doc__).strip().removesuffix(".")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
