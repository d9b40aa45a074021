"""Reads the event stream of an agent session: messages, as deltas where the program asked for those, and tool calls."""

from __future__ import annotations

from typing import Any, Final

from tokentape.call import CallRecorder
from tokentape.fragments import Fragment
from tokentape.reading import Reading, entries, field, string, text_of

# The agent asks for a tool in one event, with its arguments as an object: there is no text to keep.
_TOOL_USES: Final = frozenset({"agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"})
# A session can go on after it was idle; a stream that is left in between has still told a whole answer.
_AT_REST: Final = frozenset({"session.status_idle", "session.status_terminated", "session.deleted"})
_FINAL_RETRIES: Final = frozenset({"exhausted", "terminal"})


class SessionReader(Reading):
    """Reads `BetaManagedAgentsStreamSessionEvents` objects.

    A session's usage counts all of its turns, and so says nothing of what this stream brought: it is not kept.
    """

    __slots__ = ("_previewed",)

    def __init__(self, call: CallRecorder) -> None:
        super().__init__(call)
        self._previewed: set[str] = set()

    def read(self, event: Any, asked_ns: int, at_ns: int) -> None:
        """Read one event of a session."""
        fragments: list[Fragment] = []
        kind = text_of(getattr(event, "type", None))
        if kind == "event_delta":
            self._read_delta(event, fragments)
        elif kind == "agent.message":
            self._read_message(event, fragments)
        elif kind in _TOOL_USES:
            event_id = string(getattr(event, "id", None))
            self._call.part("tool_args", 0, event_id, string(getattr(event, "name", None)), event_id)
        elif kind.startswith("session."):
            self._read_state(kind, event)
        self._call.add_chunk(asked_ns, at_ns, fragments)

    def _read_delta(self, event: Any, fragments: list[Fragment]) -> None:
        delta, event_id = getattr(event, "delta", None), text_of(getattr(event, "event_id", None))
        self._previewed.add(event_id)
        self._add(event_id, field(delta, "index") or 0, field(delta, "content"), fragments)

    def _read_message(self, event: Any, fragments: list[Fragment]) -> None:
        """Take from a whole message only what no delta has brought."""
        event_id = text_of(getattr(event, "id", None))
        if event_id not in self._previewed:
            for index, content in enumerate(entries(getattr(event, "content", None))):
                self._add(event_id, index, content, fragments)

    def _add(self, event_id: str, index: int, content: Any, fragments: list[Fragment]) -> None:
        text = text_of(field(content, "text"))
        if text:
            fragments.append(Fragment(self._call.part("text", 0, f"{event_id}/{index}", None, event_id), text))

    def _read_state(self, kind: str, event: Any) -> None:
        call = self._call
        if kind == "session.error":
            error = getattr(event, "error", None)
            if field(field(error, "retry_status"), "type") in _FINAL_RETRIES:
                call.judge("error", text_of(field(error, "type")) or kind, text_of(field(error, "message")))
        elif kind.startswith("session.status_") or kind in _AT_REST:
            call.terminal = kind in _AT_REST
            reason = field(getattr(event, "stop_reason", None), "type")
            if isinstance(reason, str):
                call.finish_reasons[0] = reason

    def _counts(self, usage: Any) -> None:
        return None
