"""Reads blocks of tools that the provider runs itself, which LangChain leaves in the content as they were sent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, Final

from tokentape.reading import field

# Type of a block: where its input stands. Anthropic's comes piece by piece after a block that announces the tool,
# OpenAI's whole, once the tool has run.
_INPUTS: Final[Mapping[Any, tuple[str, ...]]] = {
    "server_tool_use": (),
    "mcp_tool_use": (),
    "input_json_delta": ("partial_json",),
    "mcp_call": ("arguments",),
    "code_interpreter_call": ("code",),
    "apply_patch_call": ("operation", "diff"),
}


def provider_tool(block: Any) -> Mapping[str, Any] | None:
    """What a content block adds to such a tool's arguments, in the form of LangChain's own tool call chunks.

    Returns:
        None for any other block.
    """
    where = _INPUTS.get(block.get("type")) if isinstance(block, Mapping) else None
    if where is None:
        return None
    return {
        "index": block.get("index"),
        "name": block.get("name"),
        "id": block.get("call_id") or block.get("id"),
        "args": reduce(field, where, block),
    }
