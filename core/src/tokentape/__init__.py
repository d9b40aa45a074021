"""Keeps every token event of the LLM streams of a program: text, order, arrival time, and whose pause it was.

    import tokentape

    tokentape.enable()

Importing this package costs what importing pluggy costs; everything else is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl, hookspec

if TYPE_CHECKING:
    from .context import content, label, suppress
    from .recording import LogFilter, disable, enable, flush, register, status
    from .runs import current_run, last_call, mark, run
    from .streams import record_stream, start_llm_stream

__version__ = "0.1.0"

__all__ = [
    "LogFilter",
    "__version__",
    "content",
    "current_run",
    "disable",
    "enable",
    "flush",
    "hookimpl",
    "hookspec",
    "label",
    "last_call",
    "mark",
    "record_stream",
    "register",
    "run",
    "start_llm_stream",
    "status",
    "suppress",
]

_HOME = {
    **dict.fromkeys(("content", "label", "suppress"), "context"),
    **dict.fromkeys(("LogFilter", "disable", "enable", "flush", "register", "status"), "recording"),
    **dict.fromkeys(("current_run", "last_call", "mark", "run"), "runs"),
    **dict.fromkeys(("record_stream", "start_llm_stream"), "streams"),
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
