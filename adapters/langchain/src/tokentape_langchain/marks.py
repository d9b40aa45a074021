"""Spans of time between calls: tools, retrievers and graph nodes, from their callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from tokentape import context
from tokentape.models import Mark
from tokentape.recorder import Recorder

# LangGraph tags the run of a node, and nothing that runs inside the node, with its step.
_NODE_TAG: Final = "graph:step:"


class _Open(NamedTuple):
    """A span that has begun; which run it belongs to is decided here."""

    run_uid: str
    unix_us: int
    start_ns: int
    kind: str
    name: str


class Marks:
    """Spans that are open, by LangChain's run id.

    Args:
        recorder: takes the marks; None to note nothing.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._open: dict[UUID, _Open] = {}

    def begin(self, run_id: UUID, kind: str, name: str) -> None:
        """A span begins, unless recording is suppressed here."""
        recorder = self._recorder
        if recorder is None or context.SUPPRESSED.get():
            return
        run = context.RUN.get() or recorder.process_run()
        clock = recorder.clock
        self._open[run_id] = _Open(run.uid, clock.unix_ns() // 1000, clock.monotonic_ns(), kind, name)

    def end(self, run_id: UUID) -> None:
        """The span with this id, if there is one, is over."""
        span, recorder = self._open.pop(run_id, None), self._recorder
        if span is not None and recorder is not None:
            took_us = (recorder.clock.monotonic_ns() - span.start_ns) // 1000
            recorder.put("mark", Mark(span.run_uid, None, span.unix_us, took_us, span.kind, span.name))


def step_name(serialized: Any, told: Mapping[str, Any]) -> str:
    """What a tool or retriever is called: as the program named this run of it, else by its own name."""
    own = serialized.get("name") if isinstance(serialized, Mapping) else None
    return str(told.get("name") or own or "unnamed")


def node_name(told: Mapping[str, Any]) -> str | None:
    """Name of the graph node that a runnable is; None for any other runnable."""
    if any(isinstance(tag, str) and tag.startswith(_NODE_TAG) for tag in told.get("tags") or ()):
        name = (told.get("metadata") or {}).get("langgraph_node")
        return name if isinstance(name, str) else None
    return None
