"""What is published is complete and works alone; what is committed says nothing of the machines it was made on."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = {
    path.parent: tomllib.loads(path.read_text("utf-8"))
    for path in [ROOT / "core" / "pyproject.toml", *sorted(ROOT.glob("adapters/*/pyproject.toml"))]
}
FOLDERS = [pytest.param(folder, id=str(folder.relative_to(ROOT))) for folder in PROJECTS]
SDKS = ("openai", "anthropic", "httpx", "httpx2", "langchain_core", "llama_index")

# Written so that none of them finds itself here.
MACHINE_PATHS = r"(?<![\w.~-])/(w[o]rk|r[o]ot|f[a]rm|h[o]me/\w+|tm[p]/w)/"
INDEX_HOSTS = r"pypi\.o[r]g|pythonh[o]sted|registry\.npm[j]s|--(extra-)?index[-]url|--find[-]links"

RECORD_BY_HAND = """
import sys, tokentape
assert not {sdks} & set(sys.modules), "an SDK was imported"
tokentape.enable(db="tape.db")
with tokentape.start_llm_stream(model="m", provider="acme") as stream:
    stream.add_token("Hel")
    stream.add_token("lo")
    stream.finish("stop")
tokentape.disable()
assert not {sdks} & set(sys.modules), "an SDK was imported"
"""
ASK = """
from tokentape.testing import Finish, ProviderServer, Text
import {sdk}
with ProviderServer() as server:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    list({stream})
"""
STREAMS = {
    "openai": "openai.OpenAI(base_url=server.url, api_key='none').chat.completions.create("
    "model='m', messages=[], stream=True)",
    "anthropic": "anthropic.Anthropic(base_url=server.origin, api_key='none').messages.create("
    "model='m', messages=[], max_tokens=9, stream=True)",
}
# What extras install that is not named like them.
BROUGHT = {"datasette": {"datasette-tokentape", "tokentape-api"}}
FINISHED = {"openai": "stop", "anthropic": "end_turn"}
RECORD = """
import tokentape
tokentape.enable(db="tape.db")
{ask}
tokentape.disable()
"""
RECORD_LLAMA_INDEX = """
import tokentape
tokentape.enable(db="tape.db")
from llama_index.core.llms import MockLLM
list(MockLLM(max_tokens=3).stream_complete("hi there you"))
tokentape.disable()
"""
RECORD_LANGCHAIN = """
import tokentape
tokentape.enable(db="tape.db")
from langchain_core.language_models import GenericFakeChatModel
list(GenericFakeChatModel(model="m", messages=iter(["Hel lo"])).stream("hi"))
tokentape.disable()
"""
ASK_THE_API = """
import asyncio, json
from tokentape_api import create_app
sent = []
async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
async def send(message): sent.append(message)
scope = {"type": "http", "method": "GET", "path": "/v1/llm-calls", "query_string": b"", "headers": [], "root_path": ""}
asyncio.run(create_app("tape.db")(scope, receive, send))
(call,) = json.loads(sent[1]["body"])["calls"]
print(sent[0]["status"], call["model"], call["status"], call["event_count"])
"""
INSTALLED = """
import importlib.metadata, json
print(json.dumps([distribution.name for distribution in importlib.metadata.distributions()]))
"""
STATIC = "/-/static-plugins/datasette-tokentape/tokentape.css"
READ_BACK = """
import sqlite3
columns = "adapter, request_model, status, finish_reason, event_count"
print(*sqlite3.connect("tape.db").execute(f"SELECT {columns} FROM llm_calls"))
"""


@dataclass(frozen=True)
class Built:
    """One distribution as it would be uploaded."""

    wheel: Path
    sdist: Path

    def wheel_names(self) -> list[str]:
        return zipfile.ZipFile(self.wheel).namelist()

    def sdist_names(self) -> list[str]:
        """Paths inside the archive's one folder."""
        with tarfile.open(self.sdist) as archive:
            return [name.partition("/")[2] for name in archive.getnames()]

    def metadata(self) -> Message:
        name = next(name for name in self.wheel_names() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(zipfile.ZipFile(self.wheel).read(name).decode("utf-8"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Built]:
    """Each distribution, by its folder; its wheel is made from its sdist, as an installer without the wheel would."""
    found = {}
    for folder in PROJECTS:
        out = tmp_path_factory.mktemp("dist")
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder))
        found[folder] = Built(*out.glob("*.whl"), *out.glob("*.tar.gz"))
    return found


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a command printed; its errors are the test's."""
    return completed(*command, cwd=cwd).stdout


def completed(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a command printed, on both streams; its errors are the test's."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"{' '.join(command[:4])} …:\n{done.stdout}\n{done.stderr}"
    return done


def bare_environment(folder: Path, *requirements: str, built: Mapping[Path, Built] | None = None) -> str:
    """The Python of a new environment in which nothing but these requirements and what they need is installed."""
    venv.create(folder, with_pip=False)
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    install(python, *requirements, built=built)
    return python


def install(python: str, *requirements: str, built: Mapping[Path, Built] | None = None) -> None:
    """Install into an environment, as if an index had the distributions that are in `built`."""
    constraints = Path(python).parents[1] / "constraints.txt"
    ours = [f"{PROJECTS[folder]['project']['name']} @ {made.wheel.as_uri()}" for folder, made in (built or {}).items()]
    constraints.write_text("\n".join([(ROOT / "constraints.txt").read_text("utf-8"), *ours]), "utf-8")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "-c", str(constraints), *requirements)


def package(folder: Path) -> str:
    """The import name of a distribution."""
    (found,) = (folder / "src").iterdir()
    return found.name


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
def test_the_adapter_supports_the_sdk_it_asks_for(adapter: str, sdk: str) -> None:
    folder = ROOT / "adapters" / adapter
    text = (folder / "src" / package(folder) / "__init__.py").read_text("utf-8")
    (supported,) = re.findall(r'^SUPPORTED\b.* = "(.+)"$', text, re.MULTILINE)
    assert f"{sdk}{supported}" in PROJECTS[folder]["project"]["dependencies"]


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


@pytest.mark.must_run
def test_core_alone_imports_no_sdk_and_records_a_call(built: dict[Path, Built], tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "env", str(built[ROOT / "core"].wheel))
    run(python, "-I", "-c", RECORD_BY_HAND.format(sdks=set(SDKS)), cwd=tmp_path)
    assert run(python, "-I", "-c", READ_BACK, cwd=tmp_path) == "('python', 'm', 'completed', 'stop', 2)\n"
    assert run(python, "-I", "-m", "tokentape", "--version", cwd=tmp_path).strip().endswith("0.1.0")


def asking(sdk: str) -> str:
    """A program that streams one answer."""
    return ASK.format(sdk=sdk, stream=STREAMS[sdk])


@pytest.mark.must_run
@pytest.mark.parametrize("sdk", STREAMS)
def test_an_sdk_adapter_is_found_and_records_a_call(sdk: str, built: dict[Path, Built], tmp_path: Path) -> None:
    wheels = [built[ROOT / "core"].wheel, built[ROOT / "adapters" / sdk].wheel]
    python = bare_environment(tmp_path / "env", *map(str, wheels))
    run(python, "-I", "-c", RECORD.format(ask=asking(sdk)), cwd=tmp_path)
    assert run(python, "-I", "-c", READ_BACK, cwd=tmp_path) == f"('{sdk}', 'm', 'completed', '{FINISHED[sdk]}', 2)\n"


@pytest.mark.must_run
def test_the_langchain_adapter_is_found_and_records_a_call_without_any_sdk(
    built: dict[Path, Built], tmp_path: Path
) -> None:
    wheels = [built[ROOT / "core"].wheel, built[ROOT / "adapters" / "langchain"].wheel]
    python = bare_environment(tmp_path / "env", *map(str, wheels))
    run(python, "-I", "-c", RECORD_LANGCHAIN, cwd=tmp_path)
    assert run(python, "-I", "-c", READ_BACK, cwd=tmp_path) == "('langchain', None, 'completed', None, 3)\n"


@pytest.mark.must_run
def test_the_api_serves_what_was_recorded_without_any_sdk(built: dict[Path, Built], tmp_path: Path) -> None:
    wheels = [built[ROOT / "core"].wheel, built[ROOT / "adapters" / "api"].wheel]
    python = bare_environment(tmp_path / "env", *map(str, wheels))
    run(python, "-I", "-c", RECORD_BY_HAND.format(sdks=set(SDKS)), cwd=tmp_path)
    assert run(python, "-I", "-c", ASK_THE_API, cwd=tmp_path) == "200 m completed 2\n"


@pytest.mark.must_run
@pytest.mark.parametrize("extra", PROJECTS[ROOT / "core"]["project"]["optional-dependencies"])
def test_an_extra_installs_its_adapter(extra: str, built: dict[Path, Built], tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "env", f"{built[ROOT / 'core'].wheel}[{extra}]", built=built)
    names = json.loads(run(python, "-I", "-c", INSTALLED, cwd=tmp_path))
    adapters = {PROJECTS[folder]["project"]["name"] for folder in built if folder != ROOT / "core"}
    assert adapters & set(names) == (adapters if extra == "all" else BROUGHT.get(extra, {f"tokentape-{extra}"}))


@pytest.mark.must_run
@pytest.mark.parametrize("sdk", STREAMS)
def test_a_program_without_the_adapter_is_told_the_line_that_helps(
    sdk: str, built: dict[Path, Built], tmp_path: Path
) -> None:
    python = bare_environment(tmp_path / "env", str(built[ROOT / "core"].wheel), sdk)
    (tmp_path / "app.py").write_text(asking(sdk), "utf-8")
    recorded = [python, "-I", "-m", "tokentape", "run", "--db", "tape.db", "app.py"]

    said = completed(*recorded, cwd=tmp_path).stderr.splitlines()
    hint = f'tokentape: {sdk} was used, but not recorded; pip install "tokentape[{sdk}]"'
    assert hint in said
    install(python, *shlex.split(hint.partition("pip install ")[2]), built=built)
    said = completed(*recorded, cwd=tmp_path).stderr.splitlines()
    assert said[-1].startswith("1 call, slowest first token ")
    assert run(python, "-I", "-c", READ_BACK, cwd=tmp_path) == f"('{sdk}', 'm', 'completed', '{FINISHED[sdk]}', 2)\n"


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


@pytest.mark.must_run
def test_the_llama_index_adapter_is_found_and_records_a_call_without_any_sdk(
    built: dict[Path, Built], tmp_path: Path
) -> None:
    wheels = [built[ROOT / "core"].wheel, built[ROOT / "adapters" / "llama-index"].wheel]
    python = bare_environment(tmp_path / "env", *map(str, wheels))
    run(python, "-I", "-c", RECORD_LLAMA_INDEX, cwd=tmp_path)
    assert run(python, "-I", "-c", READ_BACK, cwd=tmp_path).startswith("('llama-index', None, 'completed', None, ")


@pytest.mark.must_run
def test_the_pages_are_found_by_datasette_and_serve_by_core(built: dict[Path, Built], tmp_path: Path) -> None:
    wheels = [built[ROOT / folder].wheel for folder in ("core", "adapters/api", "adapters/datasette")]
    python = bare_environment(tmp_path / "env", *map(str, wheels))
    run(python, "-I", "-c", RECORD_BY_HAND.format(sdks=set(SDKS)), cwd=tmp_path)
    for path, shown in (("", "Runs and calls"), ("/calls/1", "lo"), ("/api/v1/runs", '"runs":')):
        page = run(python, "-I", "-m", "datasette", "tape.db", "--get", f"/-/tokentape{path}", cwd=tmp_path)
        assert shown in page
    served = run(python, "-I", "-m", "datasette", "tape.db", "--get", STATIC, cwd=tmp_path)
    assert "--paper" in served
    assert " serve " in run(python, "-I", "-m", "tokentape", "--help", cwd=tmp_path)
    assert "--port N" in run(python, "-I", "-m", "tokentape", "serve", "--help", cwd=tmp_path)
