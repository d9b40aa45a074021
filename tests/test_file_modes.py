"""The files of a tape are private from their first byte, and one that is not is named with what closes it."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import tokentape
from tokentape.cli import cli
from tokentape.store import schema
from tokentape.tape import Tape

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")

LOGGER = "tokentape.store.plugin"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Whoever makes a file without saying more makes it for everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.scenario("retention/Private from the first byte")
@pytest.mark.usefixtures("open_umask")
def test_no_file_of_a_tape_is_ever_open_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    seen: dict[str, set[int]] = {}
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for path in (folder, *(folder.iterdir() if folder.exists() else ())):
                try:
                    seen.setdefault(path.name, set()).add(mode(path))
                except FileNotFoundError:
                    pass

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(5):
            tokentape.enable(db=folder / f"tape-{number}.db", flush_ms=5, plugins=())
            with tokentape.start_llm_stream(model="m") as stream:
                stream.add_token("Hi")
            assert tokentape.flush(10)
            with Tape.open(folder / f"tape-{number}.db") as tape:
                assert len(tape.calls()) == 1
            tokentape.disable()
    finally:
        done.set()
        watcher.join()
    assert seen.pop("data") == {0o700}
    assert {name.partition(".")[2] for name in seen} >= {"db", "db-wal", "db-shm"}
    assert {name: modes for name, modes in seen.items() if modes != {0o600}} == {}


@pytest.mark.scenario("retention/Found open to others")
@pytest.mark.parametrize(
    ("changed", "to", "command"),
    [
        ("tape.db", 0o640, "chmod 600 '{}/tape.db'"),
        ("tape.db", 0o604, "chmod 600 '{}/tape.db'"),
        ("", 0o770, "chmod 700 '{}'"),
        ("", 0o702, "chmod 700 '{}'"),
    ],
)
def test_a_tape_that_others_can_read_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: str, to: int, command: str
) -> None:
    folder = tmp_path / "my data"
    path = folder / "tape.db"
    schema.open_for_writing(path).close()
    (folder / changed).chmod(to)
    command = command.format(folder)

    tokentape.enable(db=path, plugins=())
    tokentape.flush()

    said = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert said == [f"{path} is open to others on this machine; close it with: {command}"]
    assert command in tokentape.status()["store"]["open_to_others"]
    shown = CliRunner().invoke(cli, ["status", "--db", str(path)]).stdout
    assert f"It is open to others on this machine; close it with: {command}\n" in shown

    # What SQLite had made beside it was as open as it.
    for closing in tokentape.status()["store"]["open_to_others"]:
        subprocess.run(closing, shell=True, check=True)
    assert tokentape.status()["store"]["open_to_others"] == []
    tokentape.disable()


def test_what_lies_beside_it_counts_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tape.db"
    connection = schema.open_for_writing(path)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        tokentape.enable(db=path, plugins=())
    assert sorted(record.getMessage().rpartition(" ")[2] for record in caplog.records) == [
        f"{path}-shm",
        f"{path}-wal",
    ]
    tokentape.disable()
    connection.close()


@pytest.mark.parametrize("folder_mode", [0o755, 0o1777])
def test_a_folder_in_which_others_can_only_look_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder_mode: int
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    folder.chmod(folder_mode)
    tokentape.enable(db=folder / "tape.db", plugins=())
    assert caplog.records == []
    assert tokentape.status()["store"]["open_to_others"] == []
    tokentape.disable()


def test_our_own_folder_is_to_be_closed_altogether(tmp_path: Path) -> None:
    program = "import json, tokentape; tokentape.enable(plugins=()); print(json.dumps(tokentape.status()['store']))"
    folder = tmp_path / "data" / "tokentape"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["open_to_others"] == [f"chmod 700 {folder}"]
    assert done.stderr == f"{folder / 'tape.db'} is open to others on this machine; close it with: chmod 700 {folder}\n"
