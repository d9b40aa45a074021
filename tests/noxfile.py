"""Versions that cannot share an environment, each in an environment of its own: `make matrix`.

What a session runs is named here file by file, so that nothing is skipped because a package happens to be absent. The
environments stay in `.nox/` for the next time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import nox
from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parent))

from constraints import CONSTRAINTS, with_versions
from distributions import PROJECTS, ROOT

CORE, OPENAI, ANTHROPIC, LLAMA_INDEX = (
    *(ROOT / "core", ROOT / "adapters" / "openai", ROOT / "adapters" / "anthropic", ROOT / "adapters" / "llama-index"),
)

nox.options.envdir = str(ROOT / ".nox")
nox.options.reuse_venv = "yes"


def files(*patterns: str) -> list[str]:
    """Test files of these names; a name that means nothing is a mistake."""
    found = {pattern: sorted((ROOT / "tests").glob(f"{pattern}.py")) for pattern in patterns}
    assert all(found.values()), found
    return [str(path.relative_to(ROOT)) for paths in found.values() for path in paths]


# What leans on the packages that core depends on: click and rich, pluggy, platformdirs, regex, sqlite-utils, wrapt.
OF_CORE = files(
    *("test_cli*", "test_words", "test_plugins", "test_hook*", "test_settings", "test_redaction", "test_schema"),
    *("test_store", "test_tape", "test_views", "test_patching", "test_enable"),
)
OF_OPENAI = files("test_openai_*")
OF_ANTHROPIC = files("test_anthropic_*")
OF_BOTH_SDKS = files("test_sdk_identity", "test_bytes_level")
OF_LANGCHAIN = files("test_langchain_*", "test_totals")
OF_LLAMA_INDEX = files("test_llama_index*")
# Of what reads a tape: fastapi and datasette.
OF_READERS = files(
    *("test_api_answers", "test_api_hosting", "test_api_lists", "test_api_live", "test_api_problems"),
    *("test_api_states", "test_api_tokens"),
    *("test_datasette_guard", "test_datasette_metadata", "test_datasette_pages", "test_datasette_serve"),
)
VERSIONS = files("test_versions")
EVERYTHING = (
    *(*OF_CORE, *OF_OPENAI, *OF_ANTHROPIC, *OF_BOTH_SDKS, *OF_LANGCHAIN, *OF_LLAMA_INDEX, *OF_READERS, *VERSIONS),
)
FOR_EVERYTHING = ("httpx", "langchain", "langchain-openai", "langgraph", "uvicorn")
# Before it traced by itself, the Anthropic SDK looked for no observer.
UNTRACED = "--deselect=tests/test_anthropic_streams.py::test_the_look_for_an_observer_ends_at_the_stand_in"


@nox.session(name="openai-2")
def openai_2(session: nox.Session) -> None:
    """LlamaIndex's integration of OpenAI needs openai 2."""
    install(session, [OPENAI, ANTHROPIC, LLAMA_INDEX], {"openai": "2.54.0"}, "llama-index-llms-openai")
    integration = files("integrations/test_llama_index_openai")
    run_tests(session, *OF_OPENAI, *OF_BOTH_SDKS, *OF_LLAMA_INDEX, *integration, *VERSIONS)


@nox.session(name="anthropic-0")
def anthropic_0(session: nox.Session) -> None:
    """LlamaIndex's integration of Anthropic installs with any version and works with none from 1 on."""
    install(session, [OPENAI, ANTHROPIC, LLAMA_INDEX], {"anthropic": "0.125.0"}, "llama-index-llms-anthropic")
    integration = files("integrations/test_llama_index_anthropic")
    run_tests(session, *OF_ANTHROPIC, UNTRACED, *OF_BOTH_SDKS, *OF_LLAMA_INDEX, *integration, *VERSIONS)


@nox.session
def newest(session: nox.Session) -> None:
    """Whatever is newest, today."""
    majors = ["openai>=3", "anthropic>=2"]
    session.install("--upgrade", "--upgrade-strategy", "eager", *packages(PROJECTS), *FOR_EVERYTHING, *majors)
    run_tests(session, *EVERYTHING)


@nox.session
def oldest(session: nox.Session) -> None:
    """The first version that each distribution says it works with."""
    # The newest that work with openai 2.0.0, pluggy 1.5 and fastapi 0.130.
    versions = lower_bounds() | {"langchain-openai": "1.1.9", "pytest": "9.1.1", "starlette": "0.52.1"}
    install(session, [folder for folder in PROJECTS if folder != CORE], versions, *FOR_EVERYTHING)
    run_tests(session, *EVERYTHING, UNTRACED)


@nox.session(venv_backend="none")
@nox.parametrize("name", [nox.param(folder.name, id=folder.name) for folder in PROJECTS])
def alone(session: nox.Session, name: str) -> None:
    """One distribution in a bare environment, which the tests make."""
    wanted = f"[{name}]" if name != CORE.name else f"[{name}] or [all]"
    run_tests(session, *files("test_alone"), "-m", "", "-k", wanted, python=sys.executable)


def install(session: nox.Session, adapters: Iterable[Path], versions: Mapping[str, str], *requirements: str) -> None:
    """Install core, these adapters and what the tests need: the versions of `constraints.txt`, but for these."""
    file = Path(session.create_tmp(), "constraints.txt")
    file.write_text(with_versions(versions), "utf-8")
    session.install("--constraint", str(file), *packages([CORE, *adapters]), *requirements)


def packages(folders: Iterable[Path]) -> list[str]:
    """Arguments for pip: distributions of ours, and the tools of the tests."""
    ours = (argument for folder in folders for argument in ("--editable", str(folder)))
    group = f"{ROOT / 'pyproject.toml'}:test"
    return ["--quiet", "--build-constraint", str(CONSTRAINTS), "--group", group, *ours]


def lower_bounds() -> dict[str, str]:
    """Of everything that our distributions depend on, the first version that will do."""
    requirements = [Requirement(text) for toml in PROJECTS.values() for text in toml["project"]["dependencies"]]
    names = {toml["project"]["name"] for toml in PROJECTS.values()}
    found: dict[str, str] = {}
    for requirement in requirements:
        if requirement.name not in names:
            (found[requirement.name],) = (s.version for s in requirement.specifier if s.operator == ">=")
    return found


def run_tests(session: nox.Session, *arguments: str, python: str = "python") -> None:
    """Run tests as CI does."""
    session.chdir(ROOT)
    command = [python, "-m", "pytest", "-q", "--numprocesses", "3", "--dist", "loadfile", *arguments, *session.posargs]
    session.run(*command, env={"CI": "true", "TOKENTAPE_STRICT": "1"}, external=python == sys.executable)
