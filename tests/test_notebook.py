"""A notebook's kernel: interrupted, restarted and killed, it loses no more than any other process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from programs import CLIENT, eventually, read
from tokentape.tape import Tape
from tokentape.testing import Finish, ProviderServer, Text, WaitFor

jupyter_client = pytest.importorskip("jupyter_client")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="interrupts as POSIX has them"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
]

WORDS = [Text(f"word{i} ") for i in range(5)]
CALLS = "select c.status, c.event_count from llm_calls c order by c.id"


class Notebook:
    """A kernel of its own, and what its cells say; a context manager."""

    def __init__(self, folder: Path, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tape = folder / "tape.db"
        for name, value in {
            "SERVER": provider.url,
            "TOKENTAPE_DB": str(self.tape),
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"),
        }.items():
            monkeypatch.setenv(name, value)
        self.kernel = jupyter_client.KernelManager()
        self.kernel.start_kernel(cwd=str(folder))
        self._open()

    def _open(self) -> None:
        self.client = self.kernel.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, cell: str, *, until: Callable[[], Any] | None = None) -> str:
        """Run a cell, and interrupt it once `until` returns; what it printed, or the name of its error."""
        said: list[str] = []

        def heard(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])

        interrupter = threading.Thread(target=lambda: (until and until(), until and self.kernel.interrupt_kernel()))
        interrupter.start()
        reply = self.client.execute_interactive(cell, output_hook=heard, timeout=60)
        interrupter.join(60)
        return str(reply["content"].get("ename") or "".join(said))

    def restart(self) -> None:
        self.client.stop_channels()
        self.kernel.restart_kernel(now=False)
        self._open()

    def stop(self, *, kill: bool = False) -> None:
        self.client.stop_channels()
        self.kernel.shutdown_kernel(now=kill)

    def calls(self) -> list[tuple[str, int]]:
        return [(row["status"], row["event_count"]) for row in read(self.tape, CALLS)]


@pytest.fixture
def notebook(server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    notebook = Notebook(tmp_path, server, monkeypatch)
    yield notebook
    if notebook.kernel.is_alive():
        notebook.stop(kill=True)


@pytest.mark.scenario("capture/Notebook")
def test_a_kernel_is_interrupted_restarted_and_killed(server: ProviderServer, notebook: Notebook) -> None:
    never = threading.Event()
    whole = [*WORDS, Finish("stop")]
    hanging = [*WORDS, WaitFor(never, timeout=60)]

    def four_are_on_the_tape() -> None:
        eventually(notebook.calls, lambda calls: calls[-1:] == [("running", 5)], within=30)

    assert notebook.run(CLIENT + "tokentape.enable(flush_ms=20)\nprint('on')") == "on\n"
    server.add(hanging)
    assert notebook.run("for chunk in ask(): pass", until=four_are_on_the_tape) == "KeyboardInterrupt"
    eventually(notebook.calls, lambda calls: calls == [("abandoned", 5)], within=30)
    assert notebook.calls() == [("abandoned", 5)]

    # Cells may await: there is a loop already.
    server.add(whole)
    asynchronous = (
        "several = openai.AsyncOpenAI(base_url=os.environ['SERVER'], api_key='none', max_retries=0)\n"
        "stream = await several.chat.completions.create(model='gpt-x', messages=[], stream=True)\n"
        "print(len([chunk async for chunk in stream]))"
    )
    assert notebook.run(asynchronous) == "6\n"

    server.add(whole)
    assert notebook.run("half_read = ask()\ntake(half_read, 3)\nprint('three')") == "three\n"
    notebook.restart()
    assert notebook.calls() == [("abandoned", 5), ("completed", 5), ("abandoned", 3)]

    server.add(hanging)
    assert notebook.run(CLIENT + "tokentape.enable(flush_ms=20)\nhalf_read = ask()\ntake(half_read, 5)") == ""
    four_are_on_the_tape()
    notebook.stop(kill=True)
    with Tape.open(notebook.tape) as tape:
        assert tape.mark_lost() == 1
    assert notebook.calls() == [("abandoned", 5), ("completed", 5), ("abandoned", 3), ("lost", 5)]
    assert read(notebook.tape, "select count(*) as n from processes") == [{"n": 2}]
    assert read(notebook.tape, "pragma integrity_check") == [{"integrity_check": "ok"}]
