"""Plugins are found, called in order and apart from each other, and a broken one is named and stops nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openai
import pytest

import tokentape
from programs import Program
from tape_reader import TapeReader
from tokentape import recording
from tokentape.plugins import PluginHost
from tokentape.testing import Finish, ProviderServer, Text, Usage

ACME = """
import tokentape

calls = []

@tokentape.hookimpl
def tokentape_call_started(call):
    calls.append(call.uid)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path into which `install` puts distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(folder: Path, name: str, code: str) -> None:
    """A distribution with one module and one entry point."""
    (folder / f"{name}_plugin.py").write_text(code)
    info = folder / f"tokentape_{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tokentape-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[tokentape]\n{name} = {name}_plugin\n")
    sys.modules.pop(f"{name}_plugin", None)


def report_of(name: str) -> dict[str, Any] | None:
    return next((plugin for plugin in tokentape.status()["plugins"] if plugin["name"] == name), None)


def stream_by_hand(*texts: str) -> None:
    with tokentape.start_llm_stream(model="m", provider="acme") as stream:
        for text in texts:
            stream.add_token(text)


def stream_openai(server: ProviderServer, *texts: str) -> None:
    server.add([*map(Text, texts), Finish("stop"), Usage(3, len(texts))])
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        for _ in client.chat.completions.create(model="gpt-x", messages=[], stream=True):
            pass


@pytest.mark.scenario("adapters/Found by entry point")
@pytest.mark.parametrize(("value", "active"), [(None, True), ("", False), ("acme", True), ("other", False)])
def test_an_installed_plugin_is_found_by_its_entry_point(
    value: str | None, active: bool, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, "acme", ACME)
    install(installed, "other", ACME)
    if value is not None:
        monkeypatch.setenv("TOKENTAPE_PLUGINS", value)
    tokentape.enable(db=tmp_path / "tape.db")
    stream_by_hand("a")
    tape = TapeReader(tmp_path / "tape.db")
    assert [row["token"] for row in tape.tokens()] == ["a"]
    expected = {
        "name": "acme",
        "version": "1.2",
        "hooks": ["tokentape_call_started"],
        "state": "active",
        "reason": None,
    }
    assert report_of("acme") == (expected if active else None)
    assert (report_of("other") is not None) is (value in (None, "other"))
    seen = sys.modules["acme_plugin"].calls if "acme_plugin" in sys.modules else []
    assert seen == ([tape.call()["uid"]] if active else [])


@pytest.mark.scenario("adapters/Named but not installed")
def test_a_plugin_that_is_named_but_not_installed(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_PLUGINS", "acmee,openai")
    tokentape.enable(db=tmp_path / "tape.db")
    stream_openai(server, "a")
    reason = "no plugin of this name is installed; pip install tokentape-acmee"
    assert [record.getMessage() for record in caplog.records] == [f"plugin acmee: not loaded: {reason}"]
    report = report_of("acmee")
    assert report is not None
    assert (report["state"], report["reason"]) == ("skipped", reason)
    assert TapeReader(tmp_path / "tape.db").text() == "a"


@pytest.mark.scenario("adapters/SDK never imported")
def test_an_sdk_that_the_program_does_not_import_is_not_imported(tmp_path: Path) -> None:
    code = """
        import sys, tokentape
        tokentape.enable()
        with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("a")
        tokentape.flush()
        print(sorted({"openai", "httpx", "httpx2"} & set(sys.modules)), tokentape.status()["patches"])
    """
    program = Program(tmp_path, code)
    done = program.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] []\n", "")
    assert program.rows("select token from llm_tokens") == [{"token": "a"}]


class Output:
    """Notes every hook it is called with, and on which thread."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.threads: set[int] = set()

    def _hear(self, hook: str, value: Any = None) -> None:
        self.threads.add(threading.get_ident())
        self.heard.append((hook, value))

    @tokentape.hookimpl
    def tokentape_call_started(self, call: Any) -> None:
        self._hear("started", call)

    @tokentape.hookimpl
    def tokentape_tokens(self, call: Any, tokens: Any) -> None:
        self._hear("tokens", list(tokens))

    @tokentape.hookimpl
    def tokentape_call_finished(self, call: Any) -> None:
        self._hear("finished", call)

    @tokentape.hookimpl
    def tokentape_shutdown(self) -> None:
        self.heard.append(("shutdown", None))

    def values(self, hook: str) -> list[Any]:
        return [value for heard, value in self.heard if heard == hook]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers plugin objects for one test."""
    monkeypatch.setattr(recording, "_registered", [])
    yield tokentape.register
    tokentape.disable()


@pytest.mark.scenario("adapters/Seen by an output")
@pytest.mark.parametrize("early", [True, False], ids=["before enable()", "after enable()"])
def test_an_output_hears_everything_in_order(
    early: bool, registered: Any, server: ProviderServer, tmp_path: Path
) -> None:
    output = Output()
    if early:
        registered(output)
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    registered(output)
    texts = [f"word{i} " for i in range(98)] + ["sk-proj-abcdefghijklmnopqrstuvwxyz012345 ", "end"]
    stream_openai(server, *texts)
    row = TapeReader(tmp_path / "tape.db").call()
    tokentape.disable()

    order = [hook for hook, _ in output.heard]
    batches = output.values("tokens")
    assert order == ["started", *["tokens"] * len(batches), "finished", "shutdown"]
    assert len(batches) < 100
    events = [event for batch in batches for event in batch]
    text = "".join(event.token for event in events)
    assert len(events) == 100
    assert text.startswith("".join(texts[:98]))
    assert text.endswith("end")
    assert "abcdefghijkl" not in text
    assert [event.offset_us for event in events] == sorted(event.offset_us for event in events)
    (call,) = output.values("finished")
    assert (call.uid, call.status, call.usage.output_tokens) == (row["uid"], "completed", 100)
    assert asdict(call.metrics) == {name: row[name] for name in asdict(call.metrics)}
    assert len(output.threads) == 1
    assert threading.get_ident() not in output.threads


def install_broken(folder: Path) -> None:
    install(folder, "broken", "raise RuntimeError('no such service')")


@pytest.mark.scenario("adapters/Fails to load")
def test_a_plugin_that_fails_to_load_is_named_and_the_others_record(
    installed: Path, server: ProviderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install_broken(installed)
    tokentape.enable(db=tmp_path / "tape.db")
    stream_openai(server, "a")
    assert TapeReader(tmp_path / "tape.db").text() == "a"
    assert report_of("broken") == {
        "name": "broken",
        "version": None,
        "hooks": [],
        "state": "skipped",
        "reason": "RuntimeError: no such service",
    }
    assert [record.getMessage() for record in caplog.records] == [
        "plugin broken: not loaded: RuntimeError: no such service"
    ]


@pytest.mark.scenario("adapters/Fails to load")
def test_the_command_line_names_a_plugin_that_fails_to_load(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_broken(installed)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    command = [str(Path(sys.executable).parent / "tokentape"), "plugins"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    states = {plugin["name"]: (plugin["state"], plugin["reason"]) for plugin in json.loads(done.stdout)}
    assert states["broken"] == ("skipped", "RuntimeError: no such service")
    assert states["openai"] == ("active", None)


@pytest.mark.scenario("adapters/Fails in every batch")
def test_a_plugin_that_fails_in_every_batch_costs_no_row(
    registered: Any, server: ProviderServer, tmp_path: Path, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        times = 0

        @tokentape.hookimpl
        def tokentape_tokens(self) -> None:
            self.times += 1
            raise OSError("disk of somebody else")

    failing, output = Failing(), Output()
    registered(output)
    registered(failing)
    tokentape.enable(db=tmp_path / "tape.db", flush_ms=20)
    for _ in range(3):
        stream_openai(server, "a", "b")
    tape = TapeReader(tmp_path / "tape.db")
    assert (len(tape.calls()), len(tape.tokens())) == (3, 6)
    assert len(output.values("finished")) == 3
    assert failing.times >= 3
    (record,) = caplog.records
    name = next(plugin["name"] for plugin in tokentape.status()["plugins"] if "Failing" in plugin["name"])
    assert name in record.getMessage()
    report = report_of(name)
    assert report is not None
    assert (report["state"], report["reason"]) == ("failed", "tokentape_tokens: OSError: disk of somebody else")


def test_a_plugin_that_fails_to_connect_is_named_and_the_others_record(
    registered: Any, server: ProviderServer, tmp_path: Path, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        @tokentape.hookimpl
        def tokentape_install(self) -> None:
            raise ImportError("no module named acme")

    registered(Failing())
    tokentape.enable(db=tmp_path / "tape.db")
    registered(Failing())
    stream_openai(server, "a")
    assert TapeReader(tmp_path / "tape.db").text() == "a"
    assert len(caplog.records) == 2
    assert all("ImportError: no module named acme" in record.getMessage() for record in caplog.records)
    assert [p["state"] for p in tokentape.status()["plugins"] if "Failing" in p["name"]] == ["failed", "failed"]


def test_a_plugin_with_a_hook_of_another_shape_is_named_and_the_others_record(
    registered: Any, server: ProviderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Shapeless:
        heard = 0

        @tokentape.hookimpl
        def tokentape_call_started(self) -> None:
            self.heard += 1

        @tokentape.hookimpl
        def tokentape_tokens(self, call: Any, chunks: Any) -> None:
            self.heard += 1

    early, late = Shapeless(), Shapeless()
    registered(early)
    tokentape.enable(db=tmp_path / "tape.db")
    registered(late)
    stream_openai(server, "a")
    assert TapeReader(tmp_path / "tape.db").text() == "a"
    assert (early.heard, late.heard) == (0, 0)
    assert [p["state"] for p in tokentape.status()["plugins"] if "Shapeless" in p["name"]] == ["skipped", "skipped"]
    assert len(caplog.records) == 2
    assert all("chunks" in record.getMessage() for record in caplog.records)


def test_a_plugin_registered_while_recording_is_connected_and_disconnected(registered: Any, tmp_path: Path) -> None:
    heard = []

    class Connecting:
        @tokentape.hookimpl
        def tokentape_install(self) -> Any:
            heard.append("connected")
            return lambda: heard.append("disconnected")

    tokentape.enable(db=tmp_path / "tape.db")
    plugin = Connecting()
    registered(plugin)
    registered(plugin)
    assert heard == ["connected"]
    tokentape.disable()
    assert heard == ["connected", "disconnected"]


def test_the_first_plugin_of_a_name_stays() -> None:
    host, first, second = PluginHost(), Output(), Output()
    host.register(first, "acme")
    host.register(second, "acme")
    host.call("tokentape_shutdown")
    assert (first.values("shutdown"), second.heard) == ([None], [])


def test_one_module_under_two_names_is_loaded_once(caplog: pytest.LogCaptureFixture) -> None:
    host, output = PluginHost(), Output()
    host.add(output, "acme")
    host.add(output, "acme2")
    host.call("tokentape_shutdown")
    assert output.heard == [("shutdown", None)]
    assert [(report.name, report.state) for report in host.reports()] == [("acme", "active"), ("acme2", "skipped")]


def test_a_hook_that_does_not_exist_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Misspelled:
        @tokentape.hookimpl
        def tokentape_token(self) -> None: ...

    PluginHost().register(Misspelled(), "acme")
    assert [record.getMessage() for record in caplog.records] == [
        "plugin acme: unknown hook tokentape_token; it is never called."
    ]
