"""What LangChain's callbacks call a tool, a retriever or a graph node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# LangGraph tags the run of a node, and nothing that runs inside the node, with its step.
_NODE_TAG: Final = "graph:step:"


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
