"""Endpoints that belong to no model call: the script's `Raw` is the body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..events import Event
from .openai_common import OpenAIWire


class Plain(OpenAIWire):
    """Any other endpoint, such as `/models`; used only by scripts that name it with `path=`."""

    path = ""
    carries = ()

    @classmethod
    def endpoint(cls, path: str) -> str:
        """The path below the version."""
        return "/" + path.removeprefix("/openai").removeprefix("/v1").lstrip("/")

    @property
    def streams(self) -> bool:
        """Never."""
        return False

    def frames(self, event: Event) -> Iterator[bytes]:
        """Nothing is streamed."""
        return iter(())

    def end(self) -> Iterable[bytes]:
        """Nothing is streamed."""
        return ()

    def body(self) -> dict[str, Any]:
        """An empty object, where the script holds no `Raw`."""
        return {}
