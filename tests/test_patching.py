"""The SDK is patched once in whatever order things happen, and left as it was found."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from openai import _base_client, _streaming

import tokentape
from openai_surfaces import chat, client_for
from programs import Program
from surfaces import drain, use
from tape_reader import TapeReader
from tokentape import patching, recording
from tokentape.patching import PatchSet, patch_when_imported
from tokentape.testing import Finish, ProviderServer, Script, Text
from tokentape.testing.rig import resolved

SEAMS = {
    "openai._base_client.SyncAPIClient.request",
    "openai._base_client.AsyncAPIClient.request",
    "openai._base_client.BaseClient._build_request",
    "openai._base_client.SyncAPIClient._process_response",
    "openai._base_client.AsyncAPIClient._process_response",
    "openai._base_client.BaseClient._should_retry",
    "openai.Stream.__stream__",
    "openai.AsyncStream.__stream__",
}
ANSWER = Script([Text("Hel"), Text("lo"), Finish("stop")], repeat=True)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Sets that had to stay, because another tool was on top, go with the test."""
    yield
    tokentape.disable()
    patching._sets.clear()


def attributes() -> dict[tuple[type, str], Any]:
    """Everything that the classes of the SDK's two modules hold."""
    found = [value for module in (_base_client, _streaming) for value in vars(module).values()]
    classes = {value for value in found if isinstance(value, type) and value.__module__.startswith("openai")}
    return {(owner, name): value for owner in classes for name, value in vars(owner).items()}


def changed(before: dict[tuple[type, str], Any]) -> set[str]:
    return {
        f"{owner.__module__}.{owner.__qualname__}.{name}"
        for (owner, name), value in attributes().items()
        if value is not before[owner, name]
    }


def read(server: ProviderServer, asynchronous: bool = False) -> None:
    server.add(ANSWER)

    async def ask(client: Any) -> None:
        assert len(await drain(await resolved(chat(client.chat.completions.create)))) == 3

    use(client_for(server, asynchronous), ask)


ORDERS = {
    "recording, SDK, client": "on sdk client",
    "recording twice, SDK, client": "on on sdk client",
    "recording, SDK, recording, client": "on sdk on client",
    "on, off, SDK, on, client": "on off sdk on client",
    "on, off, on, SDK, client": "on off on sdk client",
}
ORDERED = """
import asyncio, os, sys
import tokentape

def on():
    tokentape.enable()

def off():
    tokentape.disable()

def sdk():
    global openai
    assert "openai" not in sys.modules
    import openai

def client():
    global clients
    clients = [kind(base_url=os.environ["SERVER"], api_key="none") for kind in (openai.OpenAI, openai.AsyncOpenAI)]
    # Cached on the client with the first access, as programs have it that keep a bound method.
    global creates
    creates = [client.chat.completions.create for client in clients]

for step in sys.argv[1].split():
    globals()[step]()

asked = {"model": "gpt-x", "messages": [], "stream": True}
for chunk in creates[0](**asked):
    pass

async def read():
    async for chunk in await creates[1](**asked):
        pass

asyncio.run(read())
"""


@pytest.mark.scenario("adapters/Any order")
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_in_any_order_each_chunk_is_recorded_once(order: str, server: ProviderServer, tmp_path: Path) -> None:
    server.add(ANSWER)
    program = Program(tmp_path, f"import sys\nsys.argv.append({order!r})\n{ORDERED}", server=server.url)
    done = program.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    calls = program.rows("select status, chunk_count, event_count from llm_calls")
    assert calls == [{"status": "completed", "chunk_count": 3, "event_count": 2}] * 2
    rows = program.rows("select token from llm_tokens order by call_id, token_index")
    assert [row["token"] for row in rows] == ["Hel", "lo"] * 2


@pytest.mark.scenario("adapters/Restored by identity")
def test_disable_puts_back_the_very_objects(server: ProviderServer, tmp_path: Path) -> None:
    before = attributes()
    for _ in range(3):
        tokentape.enable(db=tmp_path / "tape.db")
        assert changed(before) == SEAMS
        assert set(tokentape.status()["patches"][0]["patched"]) == SEAMS
        tokentape.enable()
        assert set(tokentape.status()["patches"][0]["patched"]) == SEAMS
        tokentape.disable()
        assert changed(before) == set()
        assert tokentape.status()["patches"] == []
    read(server)
    read(server, asynchronous=True)
    assert TapeReader(tmp_path / "tape.db").calls() == []


@pytest.mark.scenario("adapters/Restored by identity")
def test_a_stream_that_is_open_when_recording_stops_goes_on(server: ProviderServer, tape: TapeReader) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        stream = chat(client.chat.completions.create)
        assert next(stream).choices[0].delta.content == "Hel"
        tokentape.disable()
        assert [chunk.choices[0].delta.content for chunk in stream] == ["lo", None]
    assert (tape.call()["status"], tape.text()) == ("abandoned", "Hel")


def test_what_is_patched_looks_as_before() -> None:
    def look() -> dict[str, Any]:
        return {seam: traits(seam) for seam in SEAMS}

    def traits(seam: str) -> Any:
        module, owner, name = seam.rsplit(".", 2)
        value = getattr(getattr(sys.modules[module], owner), name)
        kinds = (
            inspect.isfunction,
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
        return (
            value.__name__,
            value.__qualname__,
            value.__doc__,
            inspect.signature(value),
            [kind(value) for kind in kinds],
        )

    before = look()
    tokentape.enable(db="none")
    assert look() == before


@pytest.mark.scenario("adapters/Seam missing")
def test_a_missing_class_is_named_and_the_others_are_patched(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(_streaming, "AsyncStream")
    tokentape.enable(db=tmp_path / "tape.db")
    # Adapters of other SDKs have patched too, where a test before this one has imported those.
    (patches,) = (entry for entry in tokentape.status()["patches"] if entry["adapter"] == "openai")
    assert patches["missing"] == ["openai._streaming.AsyncStream.__stream__"]
    assert set(patches["patched"]) == SEAMS - {"openai.AsyncStream.__stream__"}
    assert (patches["problem"], patches["wrapped_over"]) == (None, [])
    read(server)
    assert TapeReader(tmp_path / "tape.db").text() == "Hello"
    tokentape.disable()
    assert tokentape.status()["patches"] == []


@pytest.mark.scenario("adapters/Seam missing")
def test_without_the_seam_of_streams_their_bytes_are_read(
    server: ProviderServer, tape: TapeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`__stream__` is there under another name in some later release: what is streamed is then read from the bytes."""
    tokentape.disable()

    class Renamed(openai.Stream[Any]):
        pass

    monkeypatch.setattr(_streaming, "Stream", Renamed)
    tokentape.enable(db=tape.path)
    assert tokentape.status()["patches"][0]["missing"] == ["openai._streaming.Stream.__stream__"]
    read(server)
    assert (tape.call()["http_status"], tape.call()["event_count"]) == (200, 2)
    assert tape.call()["status"] == "completed"


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A made-up SDK that nobody has imported."""
    # Of another name for each test: what was imported once is not imported anew.
    name = f"acme_sdk_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text('__version__ = "1.5"\nclass Client:\n    def ask(self): return "answer"\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def answer(acme: str) -> str:
    """Import the SDK, if that has not been done, and use it."""
    return importlib.import_module(acme).Client().ask()


def test_an_adapter_that_fails_to_patch_costs_the_program_nothing(
    acme: str, lenient: None, caplog: pytest.LogCaptureFixture
) -> None:
    def patch(patches: PatchSet, module: ModuleType) -> None:
        raise AttributeError("Client has moved")

    undo = patch_when_imported("acme", acme, ">=1,<2", patch)
    assert answer(acme) == "answer"
    (report,) = patching.reports()
    assert (report["sdk"], report["problem"], report["patched"]) == (f"{acme} 1.5", "Client has moved", [])
    (record,) = caplog.records
    assert record.getMessage() == (
        f"acme adapter failed (AttributeError: Client has moved); lost: everything that {acme} streams. "
        "The program is not affected."
    )
    undo()
    assert patching.reports() == []


@pytest.mark.parametrize("found", ["1.5", "2.0"])
def test_an_sdk_that_does_not_say_its_version_is_looked_up_as_a_distribution(
    found: str, acme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{acme}.py").write_text('class Client:\n    def ask(self): return "answer"\n')
    info = tmp_path / f"{acme}-{found}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {acme.replace('_', '-')}\nVersion: {found}\n")
    seen: list[str] = []

    undo = patch_when_imported("acme", acme, ">=1,<2", lambda patches, module: seen.append(patches.sdk))
    assert answer(acme) == "answer"
    assert seen == ([f"{acme} 1.5"] if found == "1.5" else [])
    refused = f"acme adapter: supports {acme} >=1,<2, found 2.0: not recording."
    assert [record.getMessage() for record in caplog.records] == ([] if seen else [refused])
    undo()


def test_an_sdk_imported_after_recording_stopped_is_left_alone(acme: str) -> None:
    def patch(patches: PatchSet, module: ModuleType) -> None:
        raise AssertionError("recording is off")

    patch_when_imported("acme", acme, ">=1,<2", patch)()
    assert answer(acme) == "answer"
    assert patching.reports() == []


def test_two_adapters_of_one_sdk_are_undone_each_by_itself(acme: str) -> None:
    def shout(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs).upper()

    def twice(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs) * 2

    first = patch_when_imported("first", acme, ">=1", lambda patches, module: patches.wrap(module, "Client.ask", shout))
    second = patch_when_imported(
        "second", acme, ">=1", lambda patches, module: patches.wrap(module, "Client.ask", twice)
    )
    assert answer(acme) == "ANSWERANSWER"
    first()
    assert answer(acme) == "answeranswer"
    second()
    assert answer(acme) == "answer"


@pytest.mark.scenario("adapters/Restored by identity")
def test_two_plugins_on_one_method_are_both_gone_when_recording_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @tokentape.hookimpl
        def tokentape_install(self) -> Any:
            patches = PatchSet("acme", "openai")
            patches.wrap(_streaming, "Stream.__stream__", lambda wrapped, _, args, kwargs: wrapped(*args, **kwargs))
            return patches.undo

    monkeypatch.setattr(recording, "_registered", [Plugin(), Plugin()])
    before = attributes()
    tokentape.enable(db="none")
    tokentape.disable()
    assert changed(before) == set()


def test_nothing_is_patched_before_recording_is_on(tmp_path: Path) -> None:
    code = """
        import openai, tokentape
        from openai import _base_client, _streaming
        for owner, name in [(_base_client.SyncAPIClient, "request"), (_streaming.Stream, "__stream__")]:
            print(type(vars(owner)[name]).__name__)
        import threading
        print(threading.active_count())
    """
    done = Program(tmp_path, code).run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "function\nfunction\n1\n", "")
    assert not (tmp_path / "tape.db").exists()


OTHER_TOOL = """
import functools as standard, wrapt as library

def functools(method):
    @standard.wraps(method)
    def patched(*args, **kwargs):
        seen.append(method.__name__)
        return method(*args, **kwargs)
    return patched

def wrapt(method):
    def patched(wrapped, instance, args, kwargs):
        seen.append(method.__name__)
        return wrapped(*args, **kwargs)
    return library.FunctionWrapper(method, patched)
"""


@pytest.mark.scenario("adapters/Another tool below")
@pytest.mark.parametrize("how", ["functools", "wrapt"])
def test_a_tool_that_patched_first_is_named_and_works_on(
    how: str, server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tool: dict[str, Any] = {"__name__": "acme_tracing.patches", "seen": []}
    exec(OTHER_TOOL, tool)
    monkeypatch.setattr(_base_client.BaseClient, "_build_request", tool[how](_base_client.BaseClient._build_request))
    caplog.set_level("INFO", "tokentape")

    tokentape.enable(db=tmp_path / "tape.db", plugins=["openai"])
    read(server)
    (patches,) = tokentape.status()["patches"]
    assert patches["patched_before"] == {"openai._base_client.BaseClient._build_request": "acme_tracing"}
    assert set(patches["patched"]) == SEAMS
    (line,) = [record.message for record in caplog.records if "before" in record.message]
    assert line == (
        "openai adapter: acme_tracing had patched openai._base_client.BaseClient._build_request before; "
        "what it calls is recorded, and it works on."
    )
    assert tool["seen"] == ["_build_request"]
    assert [row["token"] for row in TapeReader(tmp_path / "tape.db").tokens()] == ["Hel", "lo"]
