"""Old and new versions of the OpenAI SDK are recorded alike, and those of which nothing is known are left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from other_versions import installed
from programs import CLIENT, Program, read
from tokentape.errors import UnsupportedSDK
from tokentape.patching import require
from tokentape.testing import Finish, ProviderServer, Text
from tokentape_openai import SUPPORTED

HERE = Path(__file__).parent
# The first version of the range, and the last one of the older major. They are compared with the one that is installed.
OLDER = ["2.0.0", "2.54.0"]


def recorded(tape: Path, *packages: Path) -> dict[str, Any]:
    """What is on the tape after the same streams, with what is in these folders instead of what is installed."""
    path = os.pathsep.join(map(str, [*packages, HERE]))
    command = [sys.executable, str(HERE / "same_streams.py"), str(tape)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.must_run
@pytest.mark.parametrize("version", OLDER)
@pytest.mark.scenario("adapters/Oldest and newest")
def test_old_and_new_versions_leave_the_same_on_the_tape(
    version: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    older = recorded(tmp_path / "older.db", installed("openai", version, request.config.cache))
    present = recorded(tmp_path / "present.db")
    assert older["openai"] == version
    assert older["calls"].keys() == present["calls"].keys()
    assert len(present["calls"]) > 70
    assert older["calls"] == present["calls"]


def test_the_oldest_version_is_the_one_at_which_the_range_begins() -> None:
    assert SUPPORTED.split(",")[0] == f">={OLDER[0].removesuffix('.0.0')}"


OUTSIDE = "openai adapter: supports openai >=2,<4, found 4.0.1: not recording.\n"
UNTOUCHED = """
from openai import _base_client, _streaming
originals = {
    owner: dict(vars(owner))
    for module in (_base_client, _streaming)
    for owner in vars(module).values() if isinstance(owner, type) and owner.__module__ == module.__name__
}
openai.__version__ = "4.0.1"
tokentape.enable()
changed = [
    name for owner, was in originals.items() for name, value in vars(owner).items() if was.get(name) is not value
]
print(changed, "".join(chunk.choices[0].delta.content or "" for chunk in ask()))
(patches,) = tokentape.status()["patches"]
print(patches["sdk"], patches["patched"], patches["problem"])
"""


@pytest.mark.scenario("adapters/Outside the range")
def test_a_version_outside_the_range_is_left_alone(server: ProviderServer, tmp_path: Path) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    program = Program(tmp_path, CLIENT + UNTOUCHED, server=server.url)
    done = program.run()
    assert (done.returncode, done.stderr) == (0, OUTSIDE)
    assert done.stdout == f"[] Hello\nopenai 4.0.1 [] {OUTSIDE}"
    assert read(program.tape, "select count(*) as calls from llm_calls") == [{"calls": 0}]


@pytest.mark.scenario("adapters/Outside the range")
def test_a_version_outside_the_range_is_left_alone_when_it_is_imported_later(tmp_path: Path) -> None:
    package = tmp_path / "openai"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "4.0.1"\n')
    code = "import tokentape\ntokentape.enable()\nprint('before')\nimport openai\nprint(openai.__version__)\n"
    done = Program(tmp_path, code).run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\n4.0.1\n", OUTSIDE)


@pytest.mark.parametrize("found", ["2", "2.0.0", "2.54.0", "3.0.0rc1", "3.54.0"])
def test_versions_in_the_range(found: str) -> None:
    require("openai", "openai", found, ">=2,<4")


@pytest.mark.parametrize("found", ["0.28.1", "1.109.1", "4", "4.0.0b1", "4.0.1", "10.0.0", "unknown", ""])
def test_versions_outside_the_range(found: str) -> None:
    with pytest.raises(UnsupportedSDK, match=re.escape(f"supports openai >=2,<4, found {found}: not recording.")):
        require("openai", "openai", found, ">=2,<4")
