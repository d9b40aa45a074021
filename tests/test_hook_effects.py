"""What each hook is given, when, and what its answer does: one test a hook, named after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tokentape
from tokentape import recording
from tokentape.call import Request
from tokentape.cli import cli
from tokentape.models import Call, FinishedCall, Mark, Run, TokenBatch
from tokentape.plugins import PluginHost
from tokentape.recorder import Recorder
from tokentape.redaction import Pattern

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz012345"


class Witness:
    """Notes what the hooks are called with, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def given(self, hook: str) -> list[Any]:
        return [value for heard, value in self.heard if heard == hook]

    def order(self) -> list[str]:
        """The hooks in the order they were called; without those that come at any time between the others."""
        return [hook for hook, _ in self.heard if hook not in {"flush", "record"}]

    @tokentape.hookimpl
    def tokentape_redactors(self) -> list[Pattern]:
        self.heard.append(("redactors", None))
        return []

    @tokentape.hookimpl
    def tokentape_install(self, recorder: Recorder) -> Callable[[], None]:
        self.heard.append(("install", recorder))
        return lambda: self.heard.append(("undo", None))

    @tokentape.hookimpl
    def tokentape_record(self, call: Call) -> None:
        self.heard.append(("record", call))

    @tokentape.hookimpl
    def tokentape_run_started(self, run: Run) -> None:
        self.heard.append(("run_started", run))

    @tokentape.hookimpl
    def tokentape_call_started(self, call: Call) -> None:
        self.heard.append(("call_started", call))

    @tokentape.hookimpl
    def tokentape_call_labelled(self, call: Call) -> None:
        self.heard.append(("call_labelled", call))

    @tokentape.hookimpl
    def tokentape_tokens(self, call: Call, tokens: TokenBatch) -> None:
        self.heard.append(("tokens", (call, tokens)))

    @tokentape.hookimpl
    def tokentape_call_finished(self, call: FinishedCall) -> None:
        self.heard.append(("call_finished", call))

    @tokentape.hookimpl
    def tokentape_mark(self, mark: Mark) -> None:
        self.heard.append(("mark", mark))

    @tokentape.hookimpl
    def tokentape_run_finished(self, run: Run) -> None:
        self.heard.append(("run_finished", run))

    @tokentape.hookimpl
    def tokentape_flush(self) -> None:
        self.heard.append(("flush", None))

    @tokentape.hookimpl
    def tokentape_shutdown(self) -> None:
        self.heard.append(("shutdown", None))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts recording with these plugins and nothing else; no round of the writer comes by itself."""

    def started(*plugins: object, **settings: Any) -> None:
        monkeypatch.setattr(recording, "_registered", list(plugins))
        tokentape.enable(**{"db": "none", "plugins": (), "flush_ms": 60_000} | settings)

    yield started
    tokentape.disable()


@pytest.fixture
def witness(start: Callable[..., None]) -> Witness:
    """A plugin that is being called."""
    heard = Witness()
    start(heard)
    return heard


def ask(*said: str, model: str = "m") -> None:
    with tokentape.start_llm_stream(model=model, provider="acme") as stream:
        for text in said:
            stream.add_token(text)
        stream.finish("stop")


def test_hook_tokentape_install(witness: Witness) -> None:
    assert witness.order() == ["redactors", "install"]
    (recorder,) = witness.given("install")
    call = recorder.start(Request("acme", "chat", model="m"))
    call.end("completed")
    assert tokentape.flush()
    assert [finished.uid for finished in witness.given("call_finished")] == [call.uid]
    assert "undo" not in witness.order()
    tokentape.disable()
    assert witness.order()[-3:] == ["undo", "run_finished", "shutdown"]


def test_hook_tokentape_record(start: Callable[..., None]) -> None:
    class Chooser:
        def __init__(self, choices: dict[str, str]) -> None:
            self.choices = choices

        @tokentape.hookimpl
        def tokentape_record(self, call: Call) -> str | None:
            return self.choices.get(call.request_model or "")

    witness = Witness()
    # The one added last is asked first.
    start(witness, Chooser({"a": "full", "b": "full"}), Chooser({"a": "timings", "c": "skip"}), content="redacted")
    for model in "abcd":
        ask(f"{KEY} ", model=model)
    tokentape.flush()
    assert [(call.request_model, call.content_level) for call in witness.given("call_started")] == [
        ("a", "timings"), ("b", "full"), ("d", "redacted")
    ]  # fmt: skip
    texts = [[row.token for row in tokens] for _, tokens in witness.given("tokens")]
    assert texts == [[None], [f"{KEY} "], ["[redacted:api_key] "]]


def test_hook_tokentape_run_started(witness: Witness) -> None:
    with tokentape.run("nightly", metadata={"key": KEY}):
        ask("Hel")
    tokentape.flush()
    process, nightly = witness.given("run_started")
    assert (process.parent_uid, nightly.parent_uid) == (None, process.uid)
    assert (nightly.name, nightly.status, nightly.ended_unix_us) == ("nightly", "running", None)
    assert nightly.metadata == {"key": "[redacted:api_key]"}
    assert witness.given("call_started")[0].run_uid == nightly.uid
    assert witness.order()[2:5] == ["run_started", "run_started", "call_started"]


def test_hook_tokentape_call_started(witness: Witness) -> None:
    with tokentape.label(user="17"), tokentape.start_llm_stream(model="m", provider="acme", name=KEY):
        tokentape.flush()
        (call,) = witness.given("call_started")
        assert (type(call), call.request_model, call.provider, call.labels) == (Call, "m", "acme", {"user": "17"})
        assert (call.uid, call.name) == (tokentape.last_call().uid, "[redacted:api_key]")
        assert witness.order()[-1] == "call_started"


def test_hook_tokentape_tokens(witness: Witness) -> None:
    with tokentape.start_llm_stream(model="m") as stream:
        stream.add_token("Hel", n_tokens=1)
        stream.add_token("{}", kind="tool_args", part="0")
        tokentape.flush()
        stream.add_token("lo ")
    tokentape.flush()
    assert witness.order()[-4:] == ["call_started", "tokens", "tokens", "call_finished"]
    rows = [row for _, tokens in witness.given("tokens") for row in tokens]
    assert [(row.part, row.token, row.n_tokens) for row in rows] == [(0, "Hel", 1), (1, "{}", None), (0, "lo ", None)]
    assert [row.offset_us for row in rows] == sorted(row.offset_us for row in rows)
    assert [part.kind for _, tokens in witness.given("tokens") for part in tokens.parts] == ["text", "tool_args"]
    assert {call.uid for call, _ in witness.given("tokens")} == {tokentape.last_call().uid}


def test_hook_tokentape_call_finished(witness: Witness) -> None:
    with pytest.raises(OSError), tokentape.start_llm_stream(model="m") as stream:
        stream.add_token("Hel")
        stream.usage(output_tokens=3)
        raise OSError("connection lost")
    tokentape.flush()
    (call,) = witness.given("call_finished")
    assert (call.status, call.error_type, call.error_message) == ("error", "OSError", "connection lost")
    assert (call.event_count, call.usage.output_tokens, call.metrics.duration_ms > 0) == (1, 3, True)
    assert witness.order()[-3:] == ["call_started", "tokens", "call_finished"]


def test_hook_tokentape_call_labelled(witness: Witness) -> None:
    with tokentape.label(user="17"), tokentape.start_llm_stream(model="gpt-x") as stream:
        stream.add_token("Hel")
        tokentape.flush()
        tokentape.last_call().noted["client"] = "disconnected"
        tokentape.flush()
        tokentape.flush()
        tokentape.last_call().noted["key"] = KEY
    tokentape.flush()
    first, second = witness.given("call_labelled")
    assert first.labels == {"user": "17", "client": "disconnected"}
    assert second.labels == {"user": "17", "client": "disconnected", "key": "[redacted:api_key]"}
    assert witness.given("call_finished")[0].labels == second.labels
    assert witness.order()[-5:] == ["call_started", "tokens", "call_labelled", "call_labelled", "call_finished"]


def test_hook_tokentape_mark(witness: Witness) -> None:
    with tokentape.run("nightly") as run, tokentape.mark("search", kind="tool"):
        ask("Hel")
    tokentape.flush()
    (mark,) = witness.given("mark")
    assert (mark.run_uid, mark.kind, mark.name, mark.duration_us >= 0) == (run.uid, "tool", "search", True)
    assert witness.order()[-3:] == ["call_finished", "mark", "run_finished"]


def test_hook_tokentape_run_finished(witness: Witness) -> None:
    with pytest.raises(OSError), tokentape.run("nightly") as run:
        ask("Hel")
        raise OSError("disk full")
    tokentape.disable()
    nightly, process = witness.given("run_finished")
    assert (nightly.uid, nightly.status, nightly.ended_unix_us >= nightly.started_unix_us) == (run.uid, "error", True)
    assert (process.uid, process.status) == (nightly.parent_uid, "completed")
    assert witness.order()[-4:] == ["call_finished", "run_finished", "run_finished", "shutdown"]


def test_hook_tokentape_flush(witness: Witness) -> None:
    ask("Hel")
    tokentape.flush()
    assert witness.heard[-1][0] == "flush"
    rounds = len(witness.given("flush"))
    tokentape.flush()
    assert len(witness.given("flush")) > rounds
    assert witness.order()[-1] == "call_finished"


def test_hook_tokentape_redactors(start: Callable[..., None]) -> None:
    class Redacting:
        def __init__(self, kind: str, regex: str) -> None:
            self.pattern = Pattern(kind, regex)

        @tokentape.hookimpl
        def tokentape_redactors(self) -> list[Pattern]:
            return [self.pattern]

    witness = Witness()
    start(witness, Redacting("customer", r"\bC-\d{6}\b"), Redacting("order", r"\bO-\d{6}\b"))
    tokentape.register(Redacting("late", r"\bL-\d{6}\b"))
    ask(f"C-123456 O-123456 L-123456 {KEY} .")
    tokentape.flush()
    said = "".join(row.token for _, tokens in witness.given("tokens") for row in tokens)
    assert said == "[redacted:customer] [redacted:order] L-123456 [redacted:api_key] ."


def test_hook_tokentape_register_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Commands:
        @tokentape.hookimpl
        def tokentape_register_commands(self, cli: Any) -> None:
            @cli.command("hello")
            def hello() -> None:
                """Greet."""
                print("Hello!", threading.current_thread() is threading.main_thread())

    def loaded() -> PluginHost:
        host = PluginHost()
        host.register(Commands(), "commands")
        return host

    monkeypatch.setattr("tokentape.cli.plugins.loaded", loaded)
    monkeypatch.setattr(cli, "commands", {})
    monkeypatch.setattr(cli, "_has_asked_plugins", False)
    assert CliRunner().invoke(cli, ["hello"]).output == "Hello! True\n"
    assert "Greet." in CliRunner().invoke(cli, ["--help"]).output


def test_hook_tokentape_shutdown(witness: Witness) -> None:
    ask("Hel")
    tokentape.disable()
    tokentape.disable()
    assert [hook for hook, _ in witness.heard][-2:] == ["flush", "shutdown"]
    assert witness.order()[-3:] == ["call_finished", "run_finished", "shutdown"]
    assert len(witness.given("shutdown")) == 1
