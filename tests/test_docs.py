"""Every Python block in README and docs runs and prints what stands below it; links lead somewhere; pages are up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import make_schema_page
from tokentape.testing import Finish, ProviderServer, Script, Text

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
