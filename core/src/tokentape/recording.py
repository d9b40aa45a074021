"""Turning recording on and off: wires recorder, writer and plugins together, once per process."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from . import faults, patching, process, recorder, settings
from .clock import SYSTEM_CLOCK, Clock
from .errors import TokentapeError
from .models import Process
from .plugins import PluginHost
from .recorder import Recorder
from .redaction import Redactor, Rules, chosen, redact_text
from .runs import RunHandle
from .writer import Writer

# How long leaving the program may take at the most when the database does not answer.
EXIT_TIMEOUT_S: Final = 5.0
# SDKs and frameworks an adapter exists for, by the module that a program imports.
KNOWN_SDKS: Final[Mapping[str, str]] = {
    "openai": "tokentape-openai",
    "anthropic": "tokentape-anthropic",
    "langchain_core": "tokentape-langchain",
    "llama_index.core": "tokentape-llama-index",
}

_lock = threading.RLock()
_session: _Session | None = None
_registered: list[object] = []
_refused: str | None = None


class _Session:
    """Everything that exists while recording is on."""

    def __init__(self, chosen: settings.Settings, clock: Clock) -> None:
        self.settings = chosen
        self.host = PluginHost()
        self.store = self._open_store()
        self._process_run: RunHandle | None = None
        self._inherits_run = False
        self.host.load(chosen.plugins)
        for plugin in _registered:
            self.host.add(plugin, _plugin_name(plugin))
        self.writer = Writer(
            self.host,
            flush_ms=chosen.flush_ms,
            stall_ms=chosen.stall_ms,
            holding=self._is_holding,
            has_work_left=self._has_work_left,
            rules=self._rules(),
            stop_recording=disable,
        )
        self.recorder = Recorder(
            process_run=self._run_of_process,
            notify=self.writer.notify,
            clock=clock,
            labels=chosen.labels,
            content=chosen.content,
            keep_prompts=chosen.prompts,
            decide=self.host.decide if self.host.has("tokentape_record") else None,
            sample=_sampler(chosen.sample_rate),
        )
        self.writer.recorder = self.recorder
        self.undo: list[Any] = []

    def start(self) -> None:
        """Patch: from here on calls are recorded."""
        recorder.activate(self.recorder)
        self.install()

    def install(self, only: str | None = None) -> None:
        """Let every plugin, or only the one of this name, connect what it records."""
        for _, undo in self.host.each("tokentape_install", only=only, recorder=self.recorder):
            if undo is not None:
                self.undo.append(undo)

    def stop(self) -> None:
        """Restore every SDK, end what is still open, write everything, release the database."""
        for undo in reversed(self.undo):
            with faults.guard("disable", "nothing; an SDK may still be patched"):
                undo()
        for call in list(self.recorder.open):
            with faults.guard("disable", "how a call ended"):
                call.end("abandoned")
        self.end_run()
        recorder.activate(None)
        self.writer.stop(EXIT_TIMEOUT_S)
        self.host.call("tokentape_shutdown")

    def end_run(self) -> None:
        """Close the run of the process, unless it is another's; what is recorded later gets a new one."""
        # An inherited run goes on after this process; whoever opened it closes it.
        if self._process_run is not None and not self._inherits_run:
            ended, self._process_run = self._process_run, None
            ended.end("completed")

    def forked(self) -> None:
        """Start anew in a forked child, without thread, queue and connection of the parent."""
        self.recorder.forget()
        self.writer.forget()
        self._process_run = None
        if self.store is not None:
            self.store.after_fork(_this_process())

    def _open_store(self) -> Any:
        if self.settings.db is None:
            return None
        from .store.plugin import SQLiteStore

        store = SQLiteStore(
            self.settings.db,
            _this_process(),
            max_buffer=self.settings.max_buffer,
            max_mb=self.settings.max_mb,
        )
        self.host.register(store, "sqlite")
        return store

    def _rules(self) -> Rules:
        added: list[Redactor] = [*chosen(self.settings.redact)]
        for name, found in self.host.each("tokentape_redactors"):
            with faults.guard(f"plugin {name}", "what its patterns mask"):
                for redactor in found or ():
                    Rules([redactor])  # one that is no redactor keeps none but itself out
                    added.append(redactor)
        return Rules(added)

    def _is_holding(self) -> bool:
        return self.store is not None and bool(self.store.is_holding)

    def _has_work_left(self) -> bool:
        return self.store is not None and bool(self.store.has_work_left)

    def _run_of_process(self) -> RunHandle:
        # Looked at without the lock first: who stops recording holds it for as long as the last writes take.
        return self._process_run or self._open_process_run()

    def _open_process_run(self) -> RunHandle:
        with _lock:
            if self._process_run is None:
                inherited = os.environ.get("TOKENTAPE_RUN") or None
                self._inherits_run = inherited is not None
                opened = RunHandle(_script_name(), uid=inherited)
                opened.start(None)
                self._process_run = opened
            return self._process_run


def enable(*, clock: Clock = SYSTEM_CLOCK, **keywords: Any) -> None:
    """Record from here on every SDK that an installed adapter connects.

    Args:
        clock: where times come from; for tests.
        **keywords: settings, see `docs/settings.md`; each falls back on its environment variable, then its default.

    Raises:
        SettingsError: a keyword is unknown or its value cannot be used. A mistake in the environment raises nothing: it
            is logged, and the program runs on unrecorded.
    """
    global _session, _refused
    if settings.is_disabled():
        return
    with _lock:
        if _session is not None:
            _warn_about_other_values(_session.settings, keywords)
            return
        faults.forget()
        settings.resolve(keywords, {})
        try:
            session = _Session(settings.resolve(keywords), clock)
        except TokentapeError as refusal:
            _refused = str(refusal)
            faults.logger.error("tokentape: not recording: %s", refusal)
            return
        except Exception as fault:
            _refused = f"{type(fault).__name__}: {fault}"
            faults.report("enable", fault, "everything")
            return
        _refused = None
        _session = session
        session.start()
        _register_process_hooks()


def disable() -> None:
    """Stop recording: restore every SDK, end the calls that are still open, write everything."""
    global _session
    with _lock:
        session, _session = _session, None
        if session is not None:
            session.stop()


def flush(timeout: float = EXIT_TIMEOUT_S) -> bool:
    """Wait until everything recorded so far is on disk. Calls that are still open stay open.

    Args:
        timeout: seconds to wait at the most.

    Returns:
        Whether it is; also True when recording is off.
    """
    session = _session
    return session.writer.flush(timeout) if session is not None else True


def finish_serving() -> None:
    """A server has done its work, and the process may end without exit handlers: close its run, write everything."""
    with _lock:
        session = _session
        if session is not None:
            session.end_run()
    flush()


def register(plugin: object) -> None:
    """Add a plugin object: its hooks are called from now on, or from the next `enable()`.

    Args:
        plugin: a module or object with methods marked `tokentape.hookimpl`.
    """
    with _lock:
        if plugin in _registered:
            return
        _registered.append(plugin)
        if _session is None:
            return
        name = _plugin_name(plugin)
        _session.host.add(plugin, name)
        _session.recorder.decide_with(_session.host.decide if _session.host.has("tokentape_record") else None)
        _session.install(only=name)


def status() -> dict[str, Any]:
    """What is being recorded, where to, and what is wrong, as plain values."""
    session = _session
    report: dict[str, Any] = {
        "recording": session is not None,
        "reason": None if session is not None else _why_not(),
        "patches": patching.reports(),
        "faults": faults.summary(),
        "missing_adapters": missing_adapters(),
    }
    if session is not None:
        report["settings"] = {**asdict(session.settings), "db": str(session.settings.db or "none")}
        report["store"] = session.store.health() if session.store is not None else None
        report["plugins"] = [asdict(plugin) for plugin in session.host.reports()]
        report["open_calls"] = len(session.recorder.open)
        report["writer_latest_ms"] = session.writer.latest_ns / 1e6
    return report


def missing_adapters() -> list[dict[str, str]]:
    """SDKs that this program has imported and that no loaded adapter connects, with the line that installs one.

    Empty while nothing is recorded: then no adapter connects anything, installed or not.
    """
    if _session is None:
        return []
    connected = {patches["sdk"].split()[0] for patches in patching.reports()}
    return [
        {"sdk": sdk, "install": f'pip install "tokentape[{distribution.removeprefix("tokentape-")}]"'}
        for sdk, distribution in KNOWN_SDKS.items()
        if sdk in sys.modules and sdk not in connected
    ]


def _why_not() -> str:
    if settings.is_disabled():
        return "TOKENTAPE_DISABLED is set"
    return _refused or "tokentape.enable() has not been called"


def _warn_about_other_values(stays: settings.Settings, keywords: Mapping[str, Any]) -> None:
    asked = settings.resolve(keywords, {})
    given = [name for name, value in keywords.items() if value is not None]
    other = [name for name in given if getattr(asked, name) != getattr(stays, name)]
    if other:
        named = ", ".join(f"{name}: {getattr(stays, name)} stays, {getattr(asked, name)} is ignored" for name in other)
        faults.logger.warning("tokentape is already recording; %s. Call disable() first to change settings.", named)


def _sampler(rate: float) -> Any:
    if rate >= 1.0:
        return lambda uid: True
    import zlib

    # A hash of the uid, so that every process that meets the call decides alike.
    return lambda uid: zlib.crc32(uid.encode()) / 2**32 < rate


def _plugin_name(plugin: object) -> str:
    return str(getattr(plugin, "__name__", None) or f"{type(plugin).__qualname__}-{id(plugin):x}")


def _this_process() -> Process:
    return process.this_process(redact_text(_script_name()))


def _script_name() -> str:
    """Base name of what is running, never its folder or arguments."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name.removesuffix(".__main__"))
    if sys.argv[:1] == ["-m"] and "-m" in sys.orig_argv[:-1]:
        # Python is still starting up: which module it will run stands nowhere else.
        return sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"


_process_hooks = False


def _register_process_hooks() -> None:
    global _process_hooks
    if _process_hooks:
        return
    _process_hooks = True
    atexit.register(disable)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_forking, after_in_parent=_has_forked, after_in_child=_forked)


def _forking() -> None:
    if _session is not None and _session.store is not None:
        _session.store.before_fork()


def _has_forked() -> None:
    if _session is not None and _session.store is not None:
        _session.store.after_fork_in_parent()


def _forked() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    if _session is not None:
        _session.forked()


class LogFilter:
    """Adds the current run and call to log records, as `%(tokentape_run)s` and `%(tokentape_call)s`."""

    def filter(self, record: Any) -> bool:
        """Add the attributes; never drops a record."""
        from .runs import current_run, last_call

        run, call = current_run(), last_call()
        record.tokentape_run = run.uid if run is not None else None
        record.tokentape_call = call.uid if call is not None else None
        return True
