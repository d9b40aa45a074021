"""Loads plugins, calls their hooks one by one so that a broken one stops nobody else, and reports on them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pluggy

from . import faults, hookspecs
from .models import CONTENT_LEVELS

GROUP: Final = hookspecs.PROJECT


@dataclass(slots=True)
class PluginReport:
    """What is known of one plugin, for `tokentape plugins` and `status()`.

    Attributes:
        state: `active`, `failed` (it raised) or `skipped` (it was not loaded).
        reason: why it is not active.
    """

    name: str
    version: str | None
    hooks: list[str]
    state: str = "active"
    reason: str | None = None


class PluginHost:
    """Holds the plugins of this process."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reports: dict[str, PluginReport] = {}

    def load(self, wanted: Sequence[str] | None = None) -> None:
        """Load the installed plugins.

        Args:
            wanted: names of entry points; None for all. A name that nothing answers to is reported.
        """
        found = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
        for name in wanted if wanted is not None else sorted(found):
            if name in found:
                self._load_one(found[name])
            else:
                self._skip(name, f"no plugin of this name is installed; pip install tokentape-{name}")

    def add(self, plugin: object, name: str, version: str | None = None) -> None:
        """Register a plugin; one that cannot be is reported as skipped."""
        try:
            self.register(plugin, name, version)
        except Exception as fault:
            self._skip(name, f"{type(fault).__name__}: {fault}")

    def register(self, plugin: object, name: str, version: str | None = None) -> None:
        """Add a plugin object; a name that is already there stays with the plugin that has it.

        Raises:
            PluginValidationError: a hook implementation takes arguments that its specification does not have.
        """
        if self._manager.has_plugin(name):
            return
        try:
            self._manager.register(plugin, name)
        except Exception:
            # pluggy keeps the hooks it came to before the one that is wrong.
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        hooks = [caller.name for caller in self._manager.get_hookcallers(plugin) or ()]
        self._reports[name] = PluginReport(name, version, hooks)
        unknown = [hook for hook in hooks if hook not in hookspecs.spec_names()]
        if unknown:
            faults.logger.warning("plugin %s: unknown hook %s; it is never called.", name, ", ".join(unknown))

    def unregister(self, name: str) -> None:
        """Take a plugin away."""
        self._manager.unregister(name=name)
        self._reports.pop(name, None)

    def has(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def each(self, hook: str, *, only: str | None = None, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call a hook plugin by plugin, the one registered last first; yields each plugin's name and its result.

        Args:
            hook: which one.
            only: name of the one plugin to call; None for all.
            **arguments: those of the hook's specification; an implementation is given the ones it takes.
        """
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            if only not in (None, name):
                continue
            try:
                yield name, implementation.function(*(arguments[a] for a in implementation.argnames))
            except Exception as fault:
                self._failed(name, hook, fault)

    def call(self, hook: str, **arguments: Any) -> None:
        """Call a hook plugin by plugin, for its effect."""
        for _ in self.each(hook, **arguments):
            pass

    def decide(self, call: Any) -> str | None:
        """First answer of `tokentape_record` that is one of those it may give."""
        for name, answer in self.each("tokentape_record", call=call):
            if answer in (*CONTENT_LEVELS, "skip"):
                return str(answer)
            if answer is not None:
                self._failed(name, "tokentape_record", ValueError(f"unknown answer {answer!r}"))
        return None

    def reports(self) -> list[PluginReport]:
        """All plugins that are loaded, failed or were skipped."""
        return list(self._reports.values())

    def _load_one(self, point: importlib.metadata.EntryPoint) -> None:
        try:
            plugin = point.load()
        except Exception as fault:
            self._skip(point.name, f"{type(fault).__name__}: {fault}")
        else:
            self.add(plugin, point.name, point.dist.version if point.dist else None)

    def _skip(self, name: str, reason: str) -> None:
        self._reports[name] = PluginReport(name, None, [], "skipped", reason)
        faults.logger.warning("plugin %s: not loaded: %s", name, reason)

    def _failed(self, name: str, hook: str, fault: Exception) -> None:
        report = self._reports.get(name)
        if report is not None:
            report.state, report.reason = "failed", f"{hook}: {type(fault).__name__}: {fault}"
        faults.report(f"plugin {name}", fault, f"what {hook} does with it")
