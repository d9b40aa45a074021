"""Our distributions as they would be uploaded, and bare environments to install them in."""

from __future__ import annotations

import os
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

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = {
    path.parent: tomllib.loads(path.read_text("utf-8"))
    for path in [ROOT / "core" / "pyproject.toml", *sorted(ROOT.glob("adapters/*/pyproject.toml"))]
}


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


def build(into: Path) -> dict[Path, Built]:
    """Each distribution, by its folder; its wheel is made from its sdist, as an installer without the wheel would."""
    found = {}
    for folder in PROJECTS:
        out = into / folder.name
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder))
        found[folder] = Built(*out.glob("*.whl"), *out.glob("*.tar.gz"))
    return found


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a command printed; its errors are the test's."""
    return completed(*command, cwd=cwd).stdout


def completed(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command printed, on both streams; its errors are the test's."""
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", check=False)
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
