"""Other versions of an SDK than the one that is installed, each in a folder that is kept from one run to the next."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from constraints import with_versions

PIP_TIMEOUT_S = 300


def installed(name: str, version: str, cache: pytest.Cache) -> Path:
    """A folder with that version and all it needs, to go first on PYTHONPATH; skips the test where pip cannot get it.

    Args:
        name: the distribution; the versions of what it needs are those of `constraints.txt`.
        cache: pytest's; compiled dependencies belong to one Python, so that is part of the folder's name.
    """
    folder = cache.mkdir("other-versions") / f"{name}-{version}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        # Moved into place when it is complete: an installation that was interrupted is never taken for a whole one.
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            _install(name, version, Path(unfinished))
            (Path(unfinished) / "packages").rename(folder)
    return folder


def _install(name: str, version: str, into: Path) -> None:
    (into / "constraints.txt").write_text(with_versions({name: version}), "utf-8")
    target = ["--target", str(into / "packages"), "--constraint", str(into / "constraints.txt")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", *target, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    if done.returncode:
        pytest.skip(f"{name} {version} could not be installed: {done.stderr.strip()[-500:]}")
