"""The adapter that the guide writes passes the suite; broken on purpose, it fails where that is looked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import guide_project
from tokentape.testing.conformance import AdapterConformance

FAILED = re.compile(r"^FAILED test_conformance\.py::TestAcme::(\w+)\[(\w+)\]", re.MULTILINE)

# What is done to the adapter, as text and its replacement, and the scenario that this breaks.
MISTAKES = {
    "only every second chunk is recorded": (
        "if text else []",
        'if text and text[-2] in "02468" else []',
        "capture/Whole stream kept",
    ),
    "each chunk is counted twice": (
        '    if "finish" in chunk:',
        '    call.add_chunk(at_ns, at_ns, [Fragment(0, text)] if text else [])\n    if "finish" in chunk:',
        "capture/Whole stream kept",
    ),
    "text is changed": ("text)] if text", "text.strip())] if text", "storage/Control characters"),
    "closing is not seen": ("watch_bytes(response, call)", "False", "capture/Reader breaks off"),
    "a response is held": (
        "response.tokentape_call = call",
        'response.tokentape_call = call; answered.__dict__.setdefault("held", []).append(response)',
        "capture/Never read",
    ),
    "attempts are not counted": ("call.saw_attempt()", "pass", "metrics/Rate limited first"),
    "a context variable is left behind": (
        "with context.setting(SENDING, call):",
        "SENDING.set(call)\n    if True:",
        "capture/Context variables untouched",
    ),
    "usage is not read": ('"tokens" in chunk', "False", "adapters/Usage only when it comes"),
    "usage is added up": (
        "output_tokens=written",
        "output_tokens=written + (call.usage_counts.output_tokens if call.usage_counts else 0)",
        "adapters/Usage told more than once",
    ),
    "a chunk is changed": ("    text = chunk", '    chunk["read"] = True\n    text = chunk', "adapters/Same chunks"),
    "a stream is marked": (
        "    chunks = wrapped",
        "    stream.recorded = True\n    chunks = wrapped",
        "adapters/Same attributes",
    ),
    "chunks are read ahead": (
        "    chunks = wrapped(*args, **kwargs)",
        "    chunks = ahead(wrapped(*args, **kwargs))",
        "capture/No buffering",
    ),
    "a chunk without text is not expected": ('chunk.get("text")', 'chunk["text"]', "adapters/Hostile chunks"),
    "half a character is replaced": (
        "text)] if text",
        'text.encode("utf-8", "replace").decode())] if text',
        "storage/Emoji cut in two",
    ),
    "the end of an answer is not seen": (", True\n", ", False\n", "capture/Closed after the finish"),
    "it is not known when a chunk was asked for": (
        "add_chunk(asked_ns, at_ns",
        "add_chunk(at_ns, at_ns",
        "metrics/Slow provider",
    ),
    "every failure is left": ("call.end_by(exc)", 'call.end("abandoned")', "capture/Task cancelled"),
    "a fault is not caught": ('with guard("a call"):', "if True:", "capture/Fault at every station"),
    "a call is looked for where it is read": (
        'getattr(stream.response, "tokentape_call", None)',
        "SENDING.get()",
        "capture/Stream changes hands",
    ),
    "patches stay": (
        "    return patch_when_imported",
        "    (lambda _: None) and patch_when_imported",
        "adapters/Restored by identity",
    ),
    "the SDK is imported": (
        "    return patch_when_imported",
        "    import acme\n\n    return patch_when_imported",
        "adapters/SDK never imported",
    ),
    "JSON is made of each chunk": (
        "    text = chunk",
        '    __import__("json").dumps(chunk)\n    text = chunk',
        "capture/Nothing heavy on the reader",
    ),
    "streams are held": (
        "    chunks = wrapped",
        '    answered.__dict__.setdefault("held", []).append(stream)\n    chunks = wrapped',
        "capture/Five thousand streams",
    ),
}
# Those that are seen by a time: it is looked at three times, in case the machine was busy.
SEEN_BY_TIME = {
    "chunks are read ahead",
    "it is not known when a chunk was asked for",
    "attempts are not counted",
}
# What some of them do it with.
HELPERS = """

def ahead(chunks: Any) -> Any:
    if hasattr(chunks, "__anext__"):
        return ahead_async(chunks)
    return iter(list(chunks))


async def ahead_async(chunks: Any) -> Any:
    for chunk in [chunk async for chunk in chunks]:
        yield chunk
"""

# What the adapter relies on and one day may not find, in each of its functions.
MOVED = ('args[0]["model"]', "response.status_code", "response.headers", "stream.response", 'chunk.get("text")')
PROGRAM = """
import acme, tokentape
from test_conformance import Lines
from tokentape.testing import Finish, ProviderServer, Text

tokentape.enable(db="none")
with ProviderServer([Lines]) as server:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    print([chunk.get("text") for chunk in acme.Client(server.url).ask("acme-1")])
print(*tokentape.status()["faults"])
"""


def suite(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a project outside this one, as its author would."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-rf", "-p", "no:cacheprovider", "--strict-markers"]
    return run(project, *command, *arguments, strict="1")


def run(project: Path, *command: str, strict: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder, with the project installed."""
    environment = {**os.environ, "TOKENTAPE_STRICT": strict, "PYTHONPATH": str(project.parent / "site")}
    # The plugins of all that is installed here take longer to import than most of these tests take.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def edit(project: Path, old: str, new: str) -> None:
    """Change the adapter's code."""
    adapter = project / "tokentape_acme.py"
    text = adapter.read_text("utf-8")
    assert old in text
    adapter.write_text(text.replace(old, new), "utf-8")


def possible() -> dict[str, Any]:
    """The suite's scenarios that such an SDK allows, by name."""
    driver = SimpleNamespace(kinds=frozenset({"text"}), hostile=[{}])
    found = {name: getattr(AdapterConformance, name) for name in AdapterConformance.scenarios()}
    return {name: test for name, test in found.items() if test.needs.missing(driver) is None}


def standing_for(scenario: str) -> dict[str, tuple[str, ...]]:
    """Names of the suite's tests that stand for a scenario, each with its modes."""
    return {
        name: test.modes
        for name, test in possible().items()
        if any(mark.name == "scenario" and scenario in mark.args for mark in test.pytestmark)
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guide's project, and beside it what pip makes of that."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "project").mkdir()
    guide_project.write(folder / "project")
    guide_project.install(folder / "project", folder / "site")
    # As if installed with `-e`: the module is the project's.
    (folder / "site" / "tokentape_acme.py").unlink()
    return folder


@pytest.fixture
def project(installed: Path, tmp_path: Path) -> Path:
    """A project of its own: an adapter, found by its entry point, and the tests that its author wrote."""
    return Path(shutil.copytree(installed, tmp_path / "guide")) / "project"


@pytest.mark.scenario("adapters/Conformance from outside")
def test_an_adapter_from_outside_passes(project: Path) -> None:
    done = suite(project)
    assert done.returncode == 0, done.stdout
    every = [
        (name, mode) for name in AdapterConformance.scenarios() for mode in getattr(AdapterConformance, name).modes
    ]
    run = [name for name, _ in every if name in possible()]
    # The one besides is no scenario.
    assert f"{len(run) + 1} passed, {len(every) - len(run)} skipped" in done.stdout


@pytest.mark.scenario("adapters/Conformance from outside")
@pytest.mark.parametrize(
    "mistake", [pytest.param(m, marks=pytest.mark.nightly if m in SEEN_BY_TIME else ()) for m in MISTAKES]
)
def test_a_mistake_fails_in_the_tests_of_its_scenario(mistake: str, project: Path) -> None:
    right, wrong, scenario = MISTAKES[mistake]
    edit(project, right, wrong)
    with (project / "tokentape_acme.py").open("a", encoding="utf-8") as adapter:
        adapter.write(HELPERS)
    names = standing_for(scenario)
    assert names

    done = suite(project, "-k", " or ".join(names))
    assert re.search(r"^E  +\S", done.stdout, re.MULTILINE), done.stdout
    failed = set(FAILED.findall(done.stdout))
    # Of what several tests stand for, one sees each mistake in all of its modes.
    assert any(failed >= {(name, mode) for mode in modes} for name, modes in names.items()), done.stdout


@pytest.mark.parametrize("moved", MOVED)
def test_what_the_adapter_no_longer_finds_costs_the_program_nothing(moved: str, project: Path) -> None:
    edit(project, moved, f"nowhere.{moved}")
    done = run(project, sys.executable, "-c", PROGRAM, strict="0")
    assert done.stdout == "['Hel', 'lo', None]\nacme adapter\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("acme adapter failed (NameError: name 'nowhere' is not defined); lost: ")
