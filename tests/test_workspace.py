"""What the pages for developers say of the workspace is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for pattern in ("README.md", "*/README.md", "docs/*.md", ".github/*.md") for path in ROOT.glob(pattern)]
ADAPTERS = sorted(path.parent for path in ROOT.glob("adapters/*/pyproject.toml"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_every_make_target_that_a_page_names_exists() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named
    assert named - targets() == set()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_every_adapter_is_installed_checked_and_listed(adapter: Path) -> None:
    folder = str(adapter.relative_to(ROOT))
    assert folder in (ROOT / "Makefile").read_text("utf-8")
    assert f'"{folder}/src"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"| `{adapter.name}/` |" in (ROOT / "adapters" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("folder", ["core", "adapters", "tests", "cassettes", "docs"])
def test_every_folder_explains_itself(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()
