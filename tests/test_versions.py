"""Old and new versions of an SDK are recorded alike, and those of which nothing is known are left alone."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dropped_streams import DRIVERS
from other_versions import installed
from programs import Program, read
from tokentape.errors import UnsupportedSDK
from tokentape.patching import require
from tokentape.testing import Finish, ProviderServer, Text

HERE = Path(__file__).parent


@dataclass(frozen=True)
class SDK:
    """An SDK whose versions are compared.

    Attributes:
        supported: the range that the adapter states.
        older: the first version of the range, and the last one of each older major. They are compared with the one that
            is installed.
        beyond: a version behind the range.
    """

    name: str
    supported: str
    older: tuple[str, ...]
    beyond: str

    @property
    def outside(self) -> str:
        return f"{self.name} adapter: supports {self.name} {self.supported}, found {self.beyond}: not recording.\n"


SDKS = [
    SDK("openai", ">=2,<4", ("2.0.0", "2.54.0"), "4.0.1"),
    SDK("anthropic", ">=0.125,<3", ("0.125.0", "1.17.0"), "3.0.1"),
]
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
each_older = pytest.mark.parametrize(
    ("sdk", "version"), [pytest.param(s, version, id=f"{s.name} {version}") for s in SDKS for version in s.older]
)


def printed(program: str, *arguments: str | Path, packages: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a program says, with what is in these folders instead of what is installed."""
    path = os.pathsep.join(map(str, [*packages, HERE]))
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def present_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[SDK], dict[str, Any]]:
    """What an SDK's installed version leaves on a tape, recorded once."""

    @cache
    def present(sdk: SDK) -> dict[str, Any]:
        return printed("same_streams.py", sdk.name, tmp_path_factory.mktemp(sdk.name) / "tape.db")

    return present


@pytest.mark.must_run
@pytest.mark.scenario("adapters/Oldest and newest")
@each_older
def test_old_and_new_versions_leave_the_same_on_the_tape(
    sdk: SDK,
    version: str,
    present_of: Callable[[SDK], dict[str, Any]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    packages = (installed(sdk.name, version, request.config.cache),)
    older = printed("same_streams.py", sdk.name, tmp_path / "tape.db", packages=packages)
    present = present_of(sdk)
    assert older["version"] == version
    assert older["calls"].keys() == present["calls"].keys()
    assert len(present["calls"]) > 50
    assert older["calls"] == present["calls"]


@pytest.mark.must_run
@pytest.mark.scenario("adapters/Dropped Anthropic stream")
@each_older
def test_an_older_versions_dropped_stream_is_released_as_without_recording(
    sdk: SDK, version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    released_alike(sdk, tmp_path, installed(sdk.name, version, request.config.cache))


@pytest.mark.scenario("adapters/Dropped Anthropic stream")
@each_sdk
def test_a_dropped_stream_is_released_as_without_recording(sdk: SDK, tmp_path: Path) -> None:
    released_alike(sdk, tmp_path)


def released_alike(sdk: SDK, folder: Path, *packages: Path) -> None:
    plain = printed("dropped_streams.py", sdk.name, packages=packages)
    recorded = printed("dropped_streams.py", sdk.name, folder / "tape.db", packages=packages)
    at_once = releases_at_once(sdk.name, plain["version"])
    for kind in ("sync", "async"):
        assert [stream["released"] for stream in plain[kind]] == [[at_once, True]] * 2
        assert [stream["released"] for stream in recorded[kind]] == [[at_once, True]] * 2
        seen = "abandoned" if at_once else "running"
        assert [stream["status"] for stream in recorded[kind]] == [[seen, "abandoned"]] * 2


def releases_at_once(sdk: str, version: str) -> bool:
    """Whether an SDK needs no collector for it: elsewhere a stream and its iterator refer to each other."""
    return sdk == "anthropic" and [int(number) for number in version.split(".")[:2]] >= [1, 17]


@each_sdk
def test_the_oldest_version_is_the_one_at_which_the_range_begins(sdk: SDK) -> None:
    assert sdk.supported == importlib.import_module(f"tokentape_{sdk.name}").SUPPORTED
    begins = sdk.supported.split(",")[0]
    assert f"{begins}.0.0".startswith(f">={sdk.older[0]}")


UNTOUCHED = """
import os, {sdk}, tokentape
from {sdk} import _base_client, _streaming
from {sdk}_drivers import {driver} as Driver

originals = {{
    owner: dict(vars(owner))
    for module in (_base_client, _streaming)
    for owner in vars(module).values() if isinstance(owner, type) and owner.__module__ == module.__name__
}}
{sdk}.__version__ = "{beyond}"
tokentape.enable()
changed = [
    name for owner, was in originals.items() for name, value in vars(owner).items() if was.get(name) is not value
]
driver = Driver()
print(changed, "".join(map(driver.text, driver.send(driver.client(os.environ["SERVER"], False)))))
(patches,) = [patches for patches in tokentape.status()["patches"] if patches["adapter"] == "{sdk}"]
print(patches["sdk"], patches["patched"], patches["problem"])
"""


@each_sdk
@pytest.mark.scenario("adapters/Outside the range")
def test_a_version_outside_the_range_is_left_alone(sdk: SDK, server: ProviderServer, tmp_path: Path) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    code = UNTOUCHED.format(sdk=sdk.name, driver=DRIVERS[sdk.name], beyond=sdk.beyond)
    program = Program(tmp_path, code, server=server.url, environment={"PYTHONPATH": str(HERE)})
    done = program.run()
    assert (done.returncode, done.stderr) == (0, sdk.outside)
    assert done.stdout == f"[] Hello\n{sdk.name} {sdk.beyond} [] {sdk.outside}"
    assert read(program.tape, "select count(*) as calls from llm_calls") == [{"calls": 0}]


@each_sdk
@pytest.mark.scenario("adapters/Outside the range")
def test_a_version_outside_the_range_is_left_alone_when_it_is_imported_later(sdk: SDK, tmp_path: Path) -> None:
    package = tmp_path / sdk.name
    package.mkdir()
    (package / "__init__.py").write_text(f'__version__ = "{sdk.beyond}"\n')
    code = f"import tokentape\ntokentape.enable()\nprint('before')\nimport {sdk.name}\nprint({sdk.name}.__version__)\n"
    done = Program(tmp_path, code).run()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"before\n{sdk.beyond}\n", sdk.outside)


@pytest.mark.parametrize("found", ["2", "2.0.0", "2.54.0", "3.0.0rc1", "3.54.0"])
def test_versions_in_the_range(found: str) -> None:
    require("openai", "openai", found, ">=2,<4")


@pytest.mark.parametrize("found", ["0.28.1", "1.109.1", "4", "4.0.0b1", "4.0.1", "10.0.0", "unknown", ""])
def test_versions_outside_the_range(found: str) -> None:
    with pytest.raises(UnsupportedSDK, match=re.escape(f"supports openai >=2,<4, found {found}: not recording.")):
        require("openai", "openai", found, ">=2,<4")
