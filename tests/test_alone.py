"""Each distribution works alone: built, and installed in a bare environment with what it needs and nothing else."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distributions import PROJECTS, ROOT, Built, bare_environment, completed, install, run
from tokentape.recording import KNOWN_SDKS

pytestmark = pytest.mark.must_run

SMOKE = Path(__file__).parent / "smoke.py"
# An environment takes ten seconds and more: those of one adapter stand for the others here, which `make matrix` has.
STANDING_FOR_ALL = {"core", "openai"}
EXTRAS = {sdk: distribution.removeprefix("tokentape-") for sdk, distribution in KNOWN_SDKS.items()}
READ_BACK = """
import sqlite3
columns = "adapter, layer, status, event_count, (select content from llm_parts where call_id = llm_calls.id)"
print(*sqlite3.connect("tape.db").execute(f"SELECT {columns} FROM llm_calls"))
"""
INSTALLED = """
import importlib.metadata, json
print(json.dumps([distribution.name for distribution in importlib.metadata.distributions()]))
"""
LAYERS = {"langchain": "framework", "llama-index": "framework"}
# What extras install that is not named like them.
BROUGHT = {"datasette": {"datasette-tokentape", "tokentape-api"}}
ASK_THE_API = """
import asyncio, json
from tokentape_api import create_app
sent = []
async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
async def send(message): sent.append(message)
scope = {"type": "http", "method": "GET", "path": "/v1/llm-calls", "query_string": b"", "headers": [], "root_path": ""}
asyncio.run(create_app("tape.db")(scope, receive, send))
(call,) = json.loads(sent[1]["body"])["calls"]
print(sent[0]["status"], call["status"], call["event_count"])
"""
STATIC = "/-/static-plugins/datasette-tokentape/tokentape.css"


@dataclass(frozen=True)
class Alone:
    """An environment with one distribution, and a folder where programs run."""

    name: str
    python: str
    folder: Path

    def recorded(self, *command: str) -> list[str]:
        """Run the smoke program after this command, to a new tape; what it said on stderr."""
        tape = self.folder / "tape.db"
        tape.unlink(missing_ok=True)
        said = completed(self.python, "-I", *command, cwd=self.folder, TOKENTAPE_DB=str(tape)).stderr.splitlines()
        found = run(self.python, "-I", "-c", READ_BACK, cwd=self.folder)
        adapter = "python" if self.name == "core" else self.name
        assert found == f"{(adapter, LAYERS.get(self.name, 'sdk'), 'completed', 2, 'Hello')}\n"
        return said


def by_name(value: Any, name: str) -> Any:
    """A parameter of this name, left to the matrix unless it stands for others."""
    return pytest.param(value, id=name, marks=() if name in STANDING_FOR_ALL else pytest.mark.matrix)


RECORDING = [folder for folder in PROJECTS if folder.name in {"core", *EXTRAS.values()}]


@pytest.fixture(scope="module", params=[by_name(folder, folder.name) for folder in RECORDING])
def alone(request: pytest.FixtureRequest, built: dict[Path, Built], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Each distribution, an adapter with the core that it needs."""
    folder = tmp_path_factory.mktemp("alone")
    wheels = [built[wanted].wheel for wanted in {ROOT / "core": 0, request.param: 0}]
    python = bare_environment(folder / "env", *map(str, wheels))
    shutil.copy(SMOKE, folder)
    return Alone(request.param.name, python, folder)


def test_it_records_a_call(alone: Alone) -> None:
    assert alone.recorded("smoke.py", alone.name) == []
    assert run(alone.python, "-I", "-m", "tokentape", "--version", cwd=alone.folder).strip().endswith("0.1.0")


def test_it_names_every_sdk_that_it_does_not_record(alone: Alone) -> None:
    others = {sdk: extra for sdk, extra in EXTRAS.items() if extra != alone.name}
    for sdk in others:
        package = alone.folder / sdk.replace(".", "/")
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    *hints, summary = alone.recorded("-m", "tokentape", "run", "smoke.py", alone.name, *others)
    assert hints == [
        f'tokentape: {sdk} was used, but not recorded; pip install "tokentape[{extra}]"'
        for sdk, extra in others.items()
    ]
    assert summary.startswith("1 call, ")


@pytest.mark.parametrize("sdk", [by_name(sdk, sdk) for sdk in ("openai", "anthropic")])
def test_the_line_that_it_names_is_the_one_that_helps(sdk: str, built: dict[Path, Built], tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "env", str(built[ROOT / "core"].wheel), sdk)
    shutil.copy(SMOKE, tmp_path)
    recorded = [python, "-I", "-m", "tokentape", "run", "--db", "tape.db", "smoke.py", sdk]

    hint, summary = completed(*recorded, cwd=tmp_path).stderr.splitlines()
    assert summary.startswith("0 calls")
    install(python, *shlex.split(hint.partition("pip install ")[2]), built=built)
    (summary,) = completed(*recorded, cwd=tmp_path).stderr.splitlines()
    assert summary.startswith("1 call, slowest first token ")


@pytest.mark.parametrize(
    "extra", [by_name(extra, extra) for extra in PROJECTS[ROOT / "core"]["project"]["optional-dependencies"]]
)
def test_an_extra_installs_its_adapter(extra: str, built: dict[Path, Built], tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "env", f"{built[ROOT / 'core'].wheel}[{extra}]", built=built)
    names = json.loads(run(python, "-I", "-c", INSTALLED, cwd=tmp_path))
    adapters = {PROJECTS[folder]["project"]["name"] for folder in built if folder != ROOT / "core"}
    assert adapters & set(names) == (adapters if extra == "all" else BROUGHT.get(extra, {f"tokentape-{extra}"}))


@pytest.fixture
def reading(request: pytest.FixtureRequest, built: dict[Path, Built], tmp_path: Path) -> Alone:
    """An environment with a distribution that reads tapes, what it needs, and a tape."""
    wheels = [built[ROOT / folder].wheel for folder in ("core", *request.param)]
    reading = Alone("core", bare_environment(tmp_path / "env", *map(str, wheels)), tmp_path)
    shutil.copy(SMOKE, tmp_path)
    assert reading.recorded("smoke.py", "core") == []
    return reading


@pytest.mark.parametrize("reading", [["adapters/api"]], indirect=True, ids=["api"])
def test_the_api_serves_what_was_recorded_without_any_sdk(reading: Alone) -> None:
    assert run(reading.python, "-I", "-c", ASK_THE_API, cwd=reading.folder) == "200 completed 2\n"


@pytest.mark.parametrize("reading", [["adapters/api", "adapters/datasette"]], indirect=True, ids=["datasette"])
def test_the_pages_are_found_by_datasette_and_serve_by_core(reading: Alone) -> None:
    for path, shown in (
        ("/-/tokentape", "Runs and calls"),
        ("/-/tokentape/calls/1", "Hello"),
        ("/-/tokentape/api/v1/runs", '"runs":'),
        (STATIC, "--paper"),
    ):
        page = run(reading.python, "-I", "-m", "datasette", "tape.db", "--get", path, cwd=reading.folder)
        assert shown in page
    assert " serve " in run(reading.python, "-I", "-m", "tokentape", "--help", cwd=reading.folder)
    assert "--port N" in run(reading.python, "-I", "-m", "tokentape", "serve", "--help", cwd=reading.folder)
