"""Versions that cannot share an environment, each in an environment of its own: `make matrix`.

What a session runs is named here file by file, so that nothing is skipped because a package happens to be absent. The
environments stay in `.nox/` for the next time.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import nox
from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parent))

from constraints import CONSTRAINTS, with_versions

ROOT = Path(__file__).resolve().parents[1]
CORE, OPENAI, ANTHROPIC, LANGCHAIN, LLAMA_INDEX = DISTRIBUTIONS = (
    *("core", "adapters/openai", "adapters/anthropic", "adapters/langchain", "adapters/llama-index"),
)
SDKS = ("openai", "anthropic", "langchain-core", "llama-index-core")

nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_venv = "yes"


def files(*patterns: str) -> list[str]:
    """Test files of these names; a name that means nothing is a mistake."""
    found = {pattern: sorted((ROOT / "tests").glob(f"{pattern}.py")) for pattern in patterns}
    assert all(found.values()), found
    return [str(path.relative_to(ROOT)) for paths in found.values() for path in paths]


# What leans on the packages that core depends on: click and rich, pluggy, platformdirs, regex, sqlite-utils, wrapt.
OF_CORE = files(
    *("test_cli*", "test_plugins", "test_hooks", "test_settings", "test_redaction", "test_schema", "test_store"),
    *("test_tape", "test_views", "test_patching", "test_enable"),
)
OF_OPENAI = files("test_openai_*")
OF_ANTHROPIC = files("test_anthropic_*")
OF_LANGCHAIN = files("test_langchain_*", "test_totals")
OF_LLAMA_INDEX = files("test_llama_index*")
VERSIONS = files("test_versions")
# Before it traced by itself, the Anthropic SDK looked for no observer.
UNTRACED = "--deselect=tests/test_anthropic_streams.py::test_the_look_for_an_observer_ends_at_the_stand_in"


@nox.session(name="openai-2")
def openai_2(session: nox.Session) -> None:
    """LlamaIndex's integration of OpenAI needs openai 2."""
    install(session, [OPENAI, LLAMA_INDEX], {"openai": "2.54.0"}, "llama-index-llms-openai")
    run_tests(session, *OF_OPENAI, *OF_LLAMA_INDEX, *files("integrations/test_llama_index_openai"))
    run_tests(session, *VERSIONS, "-k", "openai")


@nox.session(name="anthropic-0")
def anthropic_0(session: nox.Session) -> None:
    """LlamaIndex's integration of Anthropic installs with any version and works with none from 1 on."""
    adapters = [OPENAI, ANTHROPIC, LLAMA_INDEX]
    install(session, adapters, {"anthropic": "0.125.0"}, "llama-index-llms-anthropic")
    run_tests(session, *OF_ANTHROPIC, UNTRACED, *OF_LLAMA_INDEX, *files("integrations/test_llama_index_anthropic"))
    run_tests(session, *VERSIONS, "-k", "anthropic")


@nox.session
def newest(session: nox.Session) -> None:
    """Whatever is newest, today."""
    wanted = ["langchain", "langchain-openai", "langgraph", "openai>=3", "anthropic>=2"]
    session.install("--upgrade", "--upgrade-strategy", "eager", *packages(DISTRIBUTIONS), *wanted)
    run_tests(session, *OF_CORE, *OF_OPENAI, *OF_ANTHROPIC, *OF_LANGCHAIN, *OF_LLAMA_INDEX, *VERSIONS)


@nox.session
def oldest(session: nox.Session) -> None:
    """The first version that each distribution says it works with."""
    # The newest that work with openai 2.0.0, and with pluggy 1.5.
    versions = lower_bounds() | {"langchain-openai": "1.1.9", "pytest": "9.1.1"}
    install(session, DISTRIBUTIONS[1:], versions, "langchain", "langchain-openai", "langgraph")
    run_tests(session, *OF_CORE, *OF_OPENAI, *OF_ANTHROPIC, UNTRACED, *OF_LANGCHAIN, *OF_LLAMA_INDEX, *VERSIONS)


@nox.session(venv_backend="none")
@nox.parametrize("distribution", [nox.param(Path(folder).name, id=Path(folder).name) for folder in DISTRIBUTIONS])
def alone(session: nox.Session, distribution: str) -> None:
    """One wheel in a bare environment, which the tests make."""
    run_tests(session, *files("test_alone"), "-k", f"[{distribution}]", python=sys.executable)


def install(session: nox.Session, adapters: Iterable[str], versions: Mapping[str, str], *requirements: str) -> None:
    """Install core, these adapters and what the tests need: the versions of `constraints.txt`, but for these."""
    file = Path(session.create_tmp(), "constraints.txt")
    file.write_text(with_versions(versions), "utf-8")
    session.install("--constraint", str(file), *packages([CORE, *adapters]), *requirements)


def packages(folders: Iterable[str]) -> list[str]:
    """Arguments for pip: distributions of ours, and the tools of the tests."""
    ours = (argument for folder in folders for argument in ("--editable", str(ROOT / folder)))
    group = f"{ROOT / 'pyproject.toml'}:test"
    return ["--quiet", "--build-constraint", str(CONSTRAINTS), "--group", group, *ours]


def lower_bounds() -> dict[str, str]:
    """Of everything that our distributions depend on, the first version that will do."""
    found: dict[str, str] = {}
    for folder in DISTRIBUTIONS:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
        for requirement in map(Requirement, project["dependencies"]):
            if not requirement.name.startswith("tokentape"):
                (found[requirement.name],) = (s.version for s in requirement.specifier if s.operator == ">=")
    return found


def run_tests(session: nox.Session, *arguments: str, python: str = "python") -> None:
    """Run tests as CI does."""
    session.chdir(ROOT)
    command = [python, "-m", "pytest", "-q", *arguments, *session.posargs]
    session.run(*command, env={"CI": "true", "TOKENTAPE_STRICT": "1"}, external=python == sys.executable)
