"""An adapter that is no part of this project passes the suite; broken on purpose, it fails where that is looked for."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokentape.testing.conformance import AdapterConformance

PROJECT = Path(__file__).parent / "outside"
CONFIG = "[pytest]\nmarkers = scenario: named by the suite\naddopts = -p no:cacheprovider --strict-markers\n"
FAILED = re.compile(r"^FAILED conformance_of_acme\.py::TestAcme::(\w+)\[(\w+)\]", re.MULTILINE)

# What is done to the adapter, as text and its replacement, and the scenario that this breaks.
MISTAKES = {
    "only every second chunk is recorded": (
        "if text else []",
        'if text and text[-2] in "02468" else []',
        "capture/Whole stream kept",
    ),
    "each chunk is counted twice": (
        '        if "finish" in chunk:',
        '        call.add_chunk(at_ns, at_ns, [Fragment(0, text)] if text else [])\n        if "finish" in chunk:',
        "capture/Whole stream kept",
    ),
    "text is changed": ("text)] if text", "text.strip())] if text", "storage/Control characters"),
    "closing is not seen": ("watch_bytes(response, call)", "False", "capture/Reader breaks off"),
    "a response is held": (
        "    response.acme_call = call\n",
        '    response.acme_call = call\n    answered.__dict__.setdefault("held", []).append(response)\n',
        "capture/Never read",
    ),
    "attempts are not counted": ("call.saw_attempt()", "pass", "metrics/Rate limited first"),
    "a context variable is left behind": ("SENDING.reset(token)", "pass", "capture/Context variables untouched"),
    "usage is not read": ('"tokens" in chunk', "False", "adapters/Usage only when it comes"),
}


def suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what is in a folder outside this project, as its author would."""
    (folder / "pytest.ini").write_text(CONFIG, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rf", *arguments, "conformance_of_acme.py"]
    environment = {**os.environ, "TOKENTAPE_STRICT": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def standing_for(scenario: str) -> list[str]:
    """Names of the suite's tests that stand for a scenario."""
    return [
        name
        for name, test in inspect.getmembers(AdapterConformance)
        if any(mark.name == "scenario" and scenario in mark.args for mark in getattr(test, "pytestmark", []))
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own: SDK, adapter, and the tests that its author wrote."""
    return Path(shutil.copytree(PROJECT, tmp_path / "acme", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.scenario("adapters/Conformance from outside")
def test_an_adapter_from_outside_passes(project: Path) -> None:
    done = suite(project)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed, 2 skipped", done.stdout)


@pytest.mark.scenario("adapters/Conformance from outside")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_fails_in_the_tests_of_its_scenario(mistake: str, project: Path) -> None:
    right, wrong, scenario = MISTAKES[mistake]
    adapter = project / "tokentape_acme.py"
    text = adapter.read_text("utf-8")
    assert right in text
    adapter.write_text(text.replace(right, wrong), "utf-8")
    names = standing_for(scenario)
    assert names

    done = suite(project, "-k", " or ".join(names))
    assert set(FAILED.findall(done.stdout)) == {(name, mode) for name in names for mode in ("sync", "async")}, (
        done.stdout
    )
