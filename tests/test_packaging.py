"""What is published is complete; what is committed says nothing of the machines it was made on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from distributions import PROJECTS, ROOT, Built, package, run

FOLDERS = [pytest.param(folder, id=str(folder.relative_to(ROOT))) for folder in PROJECTS]

# Written so that none of them finds itself here.
MACHINE_PATHS = r"(?<![\w.~-])/(w[o]rk|r[o]ot|f[a]rm|h[o]me/\w+|tm[p]/w)/"
INDEX_HOSTS = r"pypi\.o[r]g|pythonh[o]sted|registry\.npm[j]s|--(extra-)?index[-]url|--find[-]links"


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_distribution_carries_the_licence(folder: Path) -> None:
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_module_and_the_distribution_have_one_version(folder: Path) -> None:
    text = (folder / "src" / package(folder) / "__init__.py").read_text("utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) == [PROJECTS[folder]["project"]["version"]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_changelog_has_an_entry_for_the_version(folder: Path) -> None:
    project = PROJECTS[folder]["project"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert [line for line in headings if re.search(rf"\b{project['name']} {re.escape(project['version'])}\b", line)]


@pytest.mark.parametrize(
    ("adapter", "sdk"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("langchain", "langchain-core"),
        ("llama-index", "llama-index-core"),
    ],
)
def test_the_adapter_supports_the_sdk_it_asks_for_and_says_so(adapter: str, sdk: str) -> None:
    folder = ROOT / "adapters" / adapter
    text = (folder / "src" / package(folder) / "__init__.py").read_text("utf-8")
    (supported,) = re.findall(r'^SUPPORTED\b.* = "(.+)"$', text, re.MULTILINE)
    assert f"{sdk}{supported}" in PROJECTS[folder]["project"]["dependencies"]
    readme = (folder / "README.md").read_text("utf-8").partition("## Supported versions")[2].partition("\n## ")[0]
    assert f"(`{supported}`)" in readme


@pytest.mark.must_run
@pytest.mark.parametrize("folder", FOLDERS)
def test_wheel_holds_the_package_its_types_and_the_licence(folder: Path, built: dict[Path, Built]) -> None:
    names = built[folder].wheel_names()
    sources = {str(path.relative_to(folder / "src")) for path in tracked(folder / "src")}
    info = {name for name in names if ".dist-info/" in name}
    assert set(names) - info == sources
    assert f"{package(folder)}/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in info)


@pytest.mark.parametrize("folder", FOLDERS)
def test_sdist_holds_what_a_build_needs_and_nothing_else(folder: Path, built: dict[Path, Built]) -> None:
    top = {name.split("/")[0] for name in built[folder].sdist_names() if name}
    assert top - {".gitignore"} == {"src", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_metadata_tells_an_index_what_it_shows(folder: Path, built: dict[Path, Built]) -> None:
    metadata, project = built[folder].metadata(), PROJECTS[folder]["project"]
    shown: dict[str, Any] = {
        "Name": project["name"],
        "Version": project["version"],
        "License-Expression": "Apache-2.0",
        "Description-Content-Type": "text/markdown",
        "Requires-Python": ">=3.11",
    }
    assert {name: metadata[name] for name in shown} == shown
    assert str(metadata.get_payload()).strip() == (folder / "README.md").read_text("utf-8").strip()
    assert metadata.get_all("Project-URL")
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def tracked(folder: Path = ROOT) -> list[Path]:
    """Files that are, or could be, committed; an ignored one is not."""
    try:
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=folder)
    except (AssertionError, FileNotFoundError):
        pytest.skip("not a git clone")
    return [path for name in listed.split("\0") if name and (path := folder / name).is_file()]


@pytest.mark.must_run
@pytest.mark.parametrize("pattern", [MACHINE_PATHS, INDEX_HOSTS])
def test_no_file_names_a_machine_or_an_index(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in tracked()
        for number, line in enumerate(path.read_text("utf-8", errors="ignore").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATHS, "open('/ro" + "ot/x')"),
        (MACHINE_PATHS, "cd /ho" + "me/ann/src"),
        (INDEX_HOSTS, "pip install --index" + "-url x"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: str, line: str) -> None:
    assert re.search(pattern, line)


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    odd = [line for line in lines if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert odd == []
