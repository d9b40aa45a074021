"""Reads the events of LangChain's streaming protocol, for models that send nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment

from .chunks import add_block, add_tool, note_finish


class EventReader:
    """Reads the protocol events of one call; blocks are told apart by their index."""

    __slots__ = ("_call", "_tools")

    def __init__(self, call: CallRecorder) -> None:
        self._call = call
        self._tools: dict[Any, Mapping[str, Any]] = {}

    def read(self, event: Any, at_ns: int) -> bool:
        """Append what an event adds.

        Args:
            event: a mapping whose `event` names it.
            at_ns: when it came.

        Returns:
            Whether it belongs to the content, rather than to the frame around it.
        """
        index = event.get("index")
        match event.get("event"):
            case "content-block-start":
                fragments = self._started(event["content"], index)
            case "content-block-delta":
                fragments = self._delta(event["delta"], index)
            case "message-finish":
                note_finish(self._call, event.get("metadata") or {})
                return False
            case _:
                return False
        self._call.add_chunk(at_ns, at_ns, fragments)
        return True

    def _started(self, content: Mapping[str, Any], index: Any) -> list[Fragment]:
        fragments: list[Fragment] = []
        if "tool_call" in content["type"]:
            self._tools[index] = {"index": index, "name": content.get("name"), "id": content.get("id")}
            add_tool(self._call, {**self._tools[index], "args": content.get("args")}, 0, fragments)
        else:
            add_block(self._call, content, index, fragments)
        return fragments

    def _delta(self, delta: Mapping[str, Any], index: Any) -> list[Fragment]:
        fragments: list[Fragment] = []
        match delta["type"]:
            case "text-delta":
                add_block(self._call, {"type": "text", "text": delta["text"]}, index, fragments)
            case "reasoning-delta":
                add_block(self._call, {"type": "reasoning", "reasoning": delta["reasoning"]}, index, fragments)
            case "tool-call-delta":
                tool = self._tools.get(index, {"index": index})
                add_tool(self._call, {**tool, "args": delta["args"]}, 0, fragments)
        return fragments
