"""Every Python block in README and docs runs, and the pages that are generated are up to date."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}")
    for page in PAGES
    for match in BLOCK.finditer(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_code_block_runs(code: str, server: ProviderServer, tmp_path: Path) -> None:
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


def test_the_schema_page_is_up_to_date() -> None:
    assert make_schema_page.PAGE.read_text(encoding="utf-8") == make_schema_page.page(), (
        "docs/schema.md is old: python tests/make_schema_page.py"
    )
