"""`tokentape plugins`: what is installed, whether it works, and if not, why."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import asdict
from typing import Any, Final

import click

from .. import __version__, patching, settings
from ..errors import SettingsError, UnsupportedSDK
from ..hookspecs import spec_names
from ..plugins import GROUP, PluginHost, PluginReport
from ..recording import KNOWN_SDKS
from .options import db_option, example, json_option
from .terminal import print_json

_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?(?P<range>[^;)]*)")


@click.command("plugins", epilog=example("tokentape plugins"))
@db_option
@json_option
def command(db: str | None, as_json: bool) -> None:
    """Print the plugins as JSON.

    Of each: name, version, hooks, state, reason, and the SDK that it connects with its version.

    States: active; unsupported (the SDK is not installed, or outside the range the adapter supports); skipped (it could
    not be loaded); failed (it raised an error); missing (the SDK is installed, its adapter is not).
    """
    print_json(report())


def loaded() -> PluginHost:
    """A host with the plugins that recording would load; a setting that is wrong does not keep plugins from loading."""
    try:
        wanted = settings.resolve().plugins
    except SettingsError:
        wanted = None
    host = PluginHost()
    host.load(wanted)
    return host


def report() -> list[dict[str, Any]]:
    """Every plugin, built-in or installed, and every adapter that is missing, with its state; imports no SDK."""
    plugins = loaded().reports()
    names = {plugin.name for plugin in plugins}
    plugins += [_left_out(point) for point in importlib.metadata.entry_points(group=GROUP) if point.name not in names]
    rows = [_builtin(), *(_with_sdk(asdict(plugin)) for plugin in plugins)]
    return rows + _missing({row["name"] for row in rows})


def _builtin() -> dict[str, Any]:
    from ..store.plugin import SQLiteStore

    hooks = [hook for hook in spec_names() if hasattr(SQLiteStore, hook)]
    return {**asdict(PluginReport("sqlite", __version__, hooks)), "sdk": None, "sdk_version": None}


def _left_out(point: importlib.metadata.EntryPoint) -> PluginReport:
    version = point.dist.version if point.dist is not None else None
    return PluginReport(point.name, version, [], "skipped", "TOKENTAPE_PLUGINS does not name it")


def _with_sdk(row: dict[str, Any]) -> dict[str, Any]:
    """Add what the plugin connects: its first requirement other than tokentape, and whether its version will do."""
    sdk, supported = _requirement(row["name"])
    found = _installed_version(sdk) if sdk is not None else None
    row |= {"sdk": sdk, "sdk_version": found}
    if sdk is not None and row["state"] == "active":
        if found is None:
            return row | {"state": "unsupported", "reason": f'{sdk} is not installed; pip install "{sdk}{supported}"'}
        try:
            patching.require(row["name"], sdk, found, supported)
        except UnsupportedSDK as problem:
            row |= {"state": "unsupported", "reason": str(problem)}
    return row


def _missing(present: set[str]) -> list[dict[str, Any]]:
    """A row for each SDK that is installed without the adapter that there is for it."""
    rows: list[dict[str, Any]] = []
    for sdk, distribution in KNOWN_SDKS.items():
        name, found = distribution.removeprefix("tokentape-"), _installed_version(sdk)
        if name not in present and found is not None:
            reason = f'{sdk} is not recorded; pip install "tokentape[{name}]"'
            rows.append(
                {"name": name, "version": None, "hooks": [], "state": "missing", "reason": reason}
                | {"sdk": sdk, "sdk_version": found}
            )
    return rows


def _requirement(plugin: str) -> tuple[str | None, str]:
    """Name and supported range of the SDK that a plugin's distribution requires; of the range, what we can check."""
    points = importlib.metadata.entry_points(group=GROUP, name=plugin)
    requires = next((point.dist.requires or [] for point in points if point.dist is not None), [])
    for text in requires:
        match = _REQUIREMENT.match(text)
        if match is not None and match["name"] != "tokentape" and "extra ==" not in text:
            bounds = [bound.replace(" ", "") for bound in match["range"].split(",")]
            return match["name"], ",".join(sorted((b for b in bounds if re.match(r">=|<(?!=)", b)), reverse=True))
    return None, ""


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
