"""The guide to adapters keeps its word: its size, its names, its tables. That its adapter works, the suite says."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import guide_project
from headings import section
from tokentape import faults, heartbeat, patching, taps, transport, wrapped
from tokentape.call import CallRecorder, Request
from tokentape.fragments import Fragment
from tokentape.models import Usage
from tokentape.recorder import Recorder
from tokentape.testing import Wire
from tokentape.testing.conformance import AdapterConformance
from tokentape.testing.driver import Driver, Traits

ROOT = guide_project.ROOT
PAGE = guide_project.PAGE.read_text("utf-8")
FILES = guide_project.files()
ADAPTER = FILES["tokentape_acme.py"]
RUFF = Path(sysconfig.get_path("scripts")) / "ruff"
NAMES = [
    (module, name)
    for module, names in re.findall(r"^\| `([\w.]+)` \| (.+) \|$", section(guide_project.PAGE, "Names"), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
]
CALLED = (
    faults.guard,
    heartbeat.watch,
    patching.patch_when_imported,
    patching.PatchSet.wrap,
    taps.StreamTap,
    transport.watch_bytes,
    wrapped.wrap,
    Fragment,
    Recorder.start,
    Request,
    Usage,
)


def test_the_adapter_has_as_many_lines_as_the_page_says() -> None:
    said = re.search(r"in (\d+) lines", PAGE)
    assert said is not None
    assert len(ADAPTER.splitlines()) == int(said[1]) < 100


def test_the_project_is_complete() -> None:
    assert sorted(FILES) == ["README.md", "pyproject.toml", "test_conformance.py", "tokentape_acme.py"]


def test_the_adapter_supports_the_sdk_it_asks_for() -> None:
    (supported,) = re.findall(r'patch_when_imported\("acme", "acme", "(.+?)"', ADAPTER)
    assert f'"acme{supported}"' in FILES["pyproject.toml"]


@pytest.mark.parametrize("name", ["tokentape_acme.py", "test_conformance.py"])
@pytest.mark.parametrize(
    "command", [["check", "--extend-ignore", "D1,INP001"], ["format", "--diff"]], ids=["check", "format"]
)
def test_its_code_is_kept_like_ours(name: str, command: list[str]) -> None:
    shown_as = ROOT / "tests" / "outside" / name
    done = subprocess.run(
        [RUFF, *command, "--config", ROOT / "pyproject.toml", "--stdin-filename", shown_as, "-"],
        input=FILES[name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_each_name_is_there_and_documented(module: str, name: str) -> None:
    source = importlib.import_module(module)
    value: Any = getattr(source, name)
    explained = re.search(rf"^# .*\n{name}\b", inspect.getsource(source), re.MULTILINE)
    assert inspect.getdoc(value) if callable(value) else explained


def test_every_name_that_the_page_imports_is_in_its_table() -> None:
    nodes = [node for node in ast.walk(python_of_the_page()) if isinstance(node, ast.ImportFrom)]
    imported = {
        (str(node.module), alias.name)
        for node in nodes
        for alias in node.names
        if str(node.module).startswith("tokentape.")
    }
    listed = {*NAMES, *((module, name) for module, name in imported if module.startswith("tokentape.testing"))}
    assert imported - listed == set()


def test_what_the_adapter_calls_says_what_it_takes() -> None:
    undocumented = {called.__qualname__: parameters(called) - documented(called) for called in CALLED}
    assert {name: missing for name, missing in undocumented.items() if missing} == {}


def test_what_the_page_does_with_a_call_is_documented() -> None:
    nodes = [node for node in ast.walk(python_of_the_page()) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if ast.unparse(node.value) == "call"}
    # What an ended call has is in the page about hooks.
    ended = {"layer", "status", "event_count", "parent_uid", "request_model"}
    methods = {
        name: getattr(CallRecorder, name) for name in used if inspect.isfunction(getattr(CallRecorder, name, None))
    }
    assert used >= {"add_chunk", "saw_stream", "terminal", "fed_by_hand"}
    assert [name for name, method in methods.items() if parameters(method) - documented(method)] == []
    assert used - methods.keys() - documented(CallRecorder) == ended


@pytest.mark.parametrize(
    ("table", "needed"),
    [
        ("the class", {name for kind in AdapterConformance.__mro__ for name in inspect.get_annotations(kind)}),
        ("a driver", {*inspect.get_annotations(Driver), *(name for name in vars(Driver) if not name.startswith("_"))}),
        ("a driver may", {trait.name for trait in dataclasses.fields(Traits)}),
        ("a wire", {*Wire.__abstractmethods__, "path", "carries", "streams"}),
    ],
)
def test_the_testing_kit_lists_what_an_author_writes(table: str, needed: set[str]) -> None:
    text = section(ROOT / "docs" / "testing.md", "The conformance suite").partition(f"| {table} |")[2]
    assert {*re.findall(r"^\| `(\w+)", text.partition("\n\n")[0], re.MULTILINE)} == needed


def python_of_the_page() -> ast.Module:
    """All Python on the page, as one program."""
    return ast.parse("\n".join(re.findall(r"^```python[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)))


def parameters(called: Any) -> set[str]:
    """What may be passed to it."""
    return {*inspect.signature(called).parameters} - {"self"}


def documented(value: Any) -> set[str]:
    """What its docstring explains."""
    return {*re.findall(r"^ *(\w+):", inspect.getdoc(value) or "", re.MULTILINE)}
