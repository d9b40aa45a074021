"""Python blocks of the documentation run and print what stands below them, links lead somewhere, pages are current."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import make_cli_page
import make_conformance_page
import make_schema_page
from headings import headings
from tokentape import settings
from tokentape.cli import cli
from tokentape.testing import Finish, ProviderServer, Script, Text
from tokentape.testing.conformance import AdapterConformance

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    {
        page
        for places in ("*.md", "*/README.md", "adapters/*/README.md", "docs/*.md", ".github/*.md")
        for page in ROOT.glob(places)
    }
)
# A block of Python, and the block below it that says what it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)\)")
BLOCKS = [
    pytest.param(
        match[1], match[2], id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}"
    )
    for page in PAGES
    for match in BLOCK.finditer(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("code", "printed"), BLOCKS)
def test_code_block_runs(code: str, printed: str | None, server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([Text("Hi"), Finish("stop")], repeat=True))
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": "none",
        "TOKENTAPE_DB": str(tmp_path / "tape.db"),
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    if printed is not None:
        assert ran.stdout == printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_names_every_page() -> None:
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= index


def test_the_schema_page_is_up_to_date() -> None:
    assert make_schema_page.PAGE.read_text(encoding="utf-8") == make_schema_page.page(), (
        "docs/schema.md is old: python tests/make_schema_page.py"
    )


@pytest.mark.scenario("adapters/Table of conformance")
def test_the_page_of_conformance_is_up_to_date() -> None:
    assert make_conformance_page.PAGE.read_text(encoding="utf-8") == make_conformance_page.page(), (
        "docs/conformance.md is old: python tests/make_conformance_page.py"
    )


@pytest.mark.scenario("adapters/Table of conformance")
def test_the_page_of_conformance_has_every_scenario_and_whatever_runs_the_suite() -> None:
    modules = {path.stem for path in Path(__file__).parent.glob("test_*_conformance.py")}
    assert modules == set(make_conformance_page.MODULES)
    rows = re.findall(r"^\| (\w[^|]*) \|(.*)\|$", make_conformance_page.page(), re.MULTILINE)
    assert [f"test_{name.replace(' ', '_')}" for name, _ in rows] == AdapterConformance.scenarios()
    columns = sum(len(make_conformance_page.suites(module)) for module in modules)
    assert {len(cells.split("|")) for _, cells in rows} == {columns}


def test_the_table_of_metrics_is_up_to_date() -> None:
    assert make_schema_page.METRICS_PAGE.read_text(encoding="utf-8") == make_schema_page.metrics_page(), (
        "docs/metrics.md is old: python tests/make_schema_page.py"
    )


def test_the_page_of_commands_is_up_to_date() -> None:
    old, new = (
        make_cli_page.comparable(page) for page in (make_cli_page.PAGE.read_text("utf-8"), make_cli_page.page())
    )
    assert old == new, "docs/cli.md is old: python tests/make_cli_page.py"


def test_the_page_of_commands_has_each_with_its_help() -> None:
    commands = ["tokentape", *(f"tokentape {name}" for name in cli.list_commands(click.Context(cli)))]
    assert sorted(headings(make_cli_page.PAGE)) == sorted(["For all of them", *commands])
    shown = [command for command, _ in make_cli_page.BLOCK.findall(make_cli_page.PAGE.read_text("utf-8"))]
    assert {f"{command} --help" for command in commands} <= set(shown)


def test_the_numbers_of_how_it_works_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
    rows = re.findall(r"^\|[^|]*\| ([\d.]+)(?: (ms|s))? \| `([\w.]+)` \|$", page, re.MULTILINE)
    assert len(rows) == 8
    assert [where for said, unit, where in rows if float(said) != pytest.approx(value(where, unit))] == []


def value(name: str, unit: str) -> float:
    """A default of a setting or a constant of a module, in the unit of the page."""
    module, _, constant = name.rpartition(".")
    if not module:
        return float(getattr(settings.Settings(db=None), name))
    found = getattr(importlib.import_module(module), constant)
    return float(
        found * {"_S": 1e3, "_NS": 1e-6}.get(re.sub(r".*(?=_)", "", constant), 1) * (1e-3 if unit == "s" else 1)
    )
