"""Every scenario of the specs is named by a test, and every scenario that a test names is in a spec."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST_FOLDERS = ("tests", "core/src/tokentape/testing")
SCENARIO = re.compile(r"^#### Scenario: *(.+?) *$", re.MULTILINE)


def spec_files(root: Path) -> list[Path]:
    """Specs of what is and of what is being changed; the archive keeps words that no longer hold."""
    specs = root / "openspec" / "specs"
    changes = root / "openspec" / "changes"
    active = [path for path in changes.glob("*/specs/**/spec.md") if path.relative_to(changes).parts[0] != "archive"]
    return sorted([*specs.glob("**/spec.md"), *active])


def scenario_names(spec: Path) -> list[str]:
    """Names of the scenarios of one spec, in its order."""
    return SCENARIO.findall(spec.read_text("utf-8"))


def specified_scenarios(root: Path) -> set[str]:
    """All scenarios of the specs, as `capability/Scenario name`."""
    return {f"{path.parent.name}/{name}" for path in spec_files(root) for name in scenario_names(path)}


def promised_scenarios(root: Path) -> set[str]:
    """Scenarios that must have a test: those of what is, and of changes whose tasks are all done.

    A change that is under way says in its tasks what is still missing.
    """
    under_way = [
        change
        for change in (root / "openspec" / "changes").glob("*/")
        if (change / "tasks.md").is_file() and "- [ ]" in (change / "tasks.md").read_text("utf-8")
    ]
    files = [path for path in spec_files(root) if not any(path.is_relative_to(change) for change in under_way)]
    return {f"{path.parent.name}/{name}" for path in files for name in scenario_names(path)}


def named_scenarios(root: Path) -> dict[str, list[str]]:
    """What `@pytest.mark.scenario("capability/Scenario name", …)` names, each with its places as `file:line`."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for folder in TEST_FOLDERS for path in (root / folder).rglob("*.py")):
        for name, line in _markers(ast.parse(path.read_text("utf-8"), str(path))):
            found.setdefault(name, []).append(f"{path.relative_to(root)}:{line}")
    return found


def _markers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and line of each marker: on functions and classes, in `pytestmark`, in `pytest.param(marks=…)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.scenario":
            for argument in node.args:
                yield ast.literal_eval(argument), argument.lineno


def _listed(headline: str, lines: list[str]) -> str:
    return "\n  ".join([f"{headline} ({len(lines)}):", *lines])


def test_every_scenario_is_named_by_a_test() -> None:
    missing = sorted(promised_scenarios(ROOT) - named_scenarios(ROOT).keys())
    assert not missing, _listed("scenarios without a test", missing)


def test_every_marker_names_an_existing_scenario() -> None:
    known = specified_scenarios(ROOT)
    unknown = [f"{name}  ({', '.join(places)})" for name, places in named_scenarios(ROOT).items() if name not in known]
    assert not unknown, _listed("markers that name no scenario", unknown)


def test_scenario_names_are_unique_within_a_spec() -> None:
    names = {path: Counter(scenario_names(path)) for path in spec_files(ROOT)}
    twice = [f"{path.relative_to(ROOT)}: {name}" for path, count in names.items() for name in count if count[name] > 1]
    assert not twice, _listed("scenario names used twice", twice)


def test_specs_and_changes_are_read_and_the_archive_is_not(tmp_path: Path) -> None:
    for folder in ("specs/capture", "changes/add-x/specs/cli", "changes/archive/2026-11-23-old/specs/storage"):
        spec = tmp_path / "openspec" / folder / "spec.md"
        spec.parent.mkdir(parents=True)
        spec.write_text(f"### Requirement: R\n\n#### Scenario: In {spec.parent.name} \n- **WHEN** …\n", "utf-8")

    assert specified_scenarios(tmp_path) == {"capture/In capture", "cli/In cli"}


def test_a_change_under_way_promises_nothing_until_its_tasks_are_done(tmp_path: Path) -> None:
    change = tmp_path / "openspec" / "changes" / "add-x"
    (change / "specs" / "cli").mkdir(parents=True)
    (change / "specs" / "cli" / "spec.md").write_text("#### Scenario: New\n", "utf-8")

    (change / "tasks.md").write_text("- [x] 1.1 Done\n- [ ] 1.2 Open\n", "utf-8")
    assert promised_scenarios(tmp_path) == set()
    (change / "tasks.md").write_text("- [x] 1.1 Done\n- [x] 1.2 Done\n", "utf-8")
    assert promised_scenarios(tmp_path) == {"cli/New"}


def test_markers_are_found_wherever_pytest_takes_them(tmp_path: Path) -> None:
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "tests" / "deep" / "test_x.py").write_text(
        "import pytest\n"
        'pytestmark = [pytest.mark.scenario("a/One")]\n'
        '@pytest.mark.scenario("a/Two", "a/Three")\n'
        "class TestX:\n"
        '    @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.scenario("a/One"))])\n'
        "    def test_x(self, x): \"pytest.mark.scenario('a/Text')\"\n",
        "utf-8",
    )

    place = "tests/deep/test_x.py"
    assert named_scenarios(tmp_path) == {
        "a/One": [f"{place}:2", f"{place}:5"],
        "a/Two": [f"{place}:3"],
        "a/Three": [f"{place}:3"],
    }
