"""Fixtures for all tests: a tape of its own, a server, and nothing left switched on afterwards."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import tokentape
from distributions import Built, build
from recordings import folder, recordings
from tape_reader import TapeReader
from tokentape.testing import ProviderServer
from tokentape.testing.rig import Rig

# How long an example takes says how busy the machine is.
settings.register_profile("tokentape", deadline=None)
settings.load_profile("tokentape")

# A shell starts what it runs in the background with Ctrl-C ignored, `nohup` with the end of the terminal, and the
# programs that tests start would inherit it.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of whoever runs the tests, no tape of theirs, and recording off at the end."""
    for name in [name for name in os.environ if name.startswith("TOKENTAPE_") and name != "TOKENTAPE_RECORDINGS"]:
        if name != "TOKENTAPE_STRICT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    yield
    tokentape.disable()


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """A provider on loopback."""
    with ProviderServer() as server:
        yield server


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[TapeReader]:
    """Recording is on, to a fresh tape that can be read."""
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    yield TapeReader(tmp_path / "tape.db")
    tokentape.disable()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Built]:
    """Our distributions, by their folders."""
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def recordings_here() -> None:
    """Skips the test where the recordings of real providers are not."""
    if not recordings():
        pytest.skip(f"no recordings in {folder()}; set TOKENTAPE_RECORDINGS to their folder")


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Path]]]:
    """A folder in which this process cannot write; the superuser becomes nobody for as long."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs the permissions of POSIX")
    folder = Path(tempfile.mkdtemp()) if os.geteuid() == 0 else tmp_path / "read-only"
    folder.mkdir(exist_ok=True)

    def lock() -> Path:
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)
        return folder

    yield folder, lock
    if os.getuid() == 0:
        os.seteuid(0)
    folder.chmod(0o755)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user's program: a fault of the recording is swallowed."""
    monkeypatch.delenv("TOKENTAPE_STRICT", raising=False)


@pytest.fixture(params=["sync", "async"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Server, fresh tape and OpenAI's chat completions, in each of the two modes."""
    from openai_drivers import ChatDriver

    with Rig(ChatDriver(), tmp_path / "tape.db", request.param == "async").running() as rig:
        yield rig
        await rig.finish()
