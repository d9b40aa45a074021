"""What the readers of every wire format do alike: note ids and usage, and look at fields that may be anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from .call import CallRecorder
from .models import Usage

# Larger numbers are not exact in JSON, and the sum of a few would not fit into a column.
MOST: Final = 2**53
# No provider nests what it says of an answer deeper; what does is read so far. A thousand levels, which JSON may have,
# are more than Python can go down.
DEPTH: Final = 32
# What a program gives to a framework may hold all its objects, and itself: so far it is looked at.
GIVEN_DEPTH: Final = 4


class Reading(ABC):
    """Base of the readers: one object a call; its `read` is called once a chunk on the caller's thread."""

    __slots__ = ("_call", "_extend", "_usage")

    def __init__(self, call: CallRecorder) -> None:
        self._call = call
        # The list is never replaced, so its method can be looked up once.
        self._extend = call.rows.extend
        self._usage: Any = None

    @abstractmethod
    def read(self, chunk: Any, asked_ns: int, at_ns: int) -> None:
        """Read one chunk and append what it adds; see `tokentape.taps.Reader`."""

    @abstractmethod
    def _counts(self, usage: Any) -> Usage | None:
        """What the last usage object that was noted says."""

    def _note_ids(self, response_id: Any, model: Any) -> None:
        call = self._call
        if not call.response_id and isinstance(response_id, str):
            call.response_id = response_id or None
        if not call.response_model and isinstance(model, str):
            call.response_model = model or None

    def _note_usage(self, usage: Any) -> None:
        """Keep the last usage object; some servers send one a chunk, so it is read once, on the writer thread."""
        self._usage = usage
        self._call.late = self._settle

    def _settle(self) -> None:
        self._call.usage_counts = self._counts(self._usage)
        self._usage = None


def text_of(value: Any, depth: int = DEPTH) -> str:
    """The text of a field that should be a string: lists of parts are joined, anything else that is there is shown.

    Args:
        depth: how many lists inside each other are joined.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join(text_of(field(item, "text"), depth - 1) for item in value)
    return shown(value)


def shown(value: Any) -> str:
    """A value of any kind as text; nothing of one that is nested too deeply for that."""
    try:
        return str(value)
    except RecursionError:
        return ""


def unopened(value: Any, depth: int = GIVEN_DEPTH) -> Any:
    """A value of the program as JSON can hold it; an object of the program is neither kept nor asked for its text.

    Args:
        depth: how many levels are kept; of what is below only the type is told.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, UUID):
        return str(value)
    if depth and isinstance(value, Mapping):
        return {str(key): unopened(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [unopened(item, depth - 1) for item in value]
    return f"<{type(value).__qualname__}>"


def string(value: Any) -> str | None:
    """A field that is a string or of no use."""
    return value if isinstance(value, str) else None


def count(value: Any) -> int | None:
    """A field that is a number of tokens, or of an answer, or of no use."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None


def entries(value: Any) -> Sequence[Any]:
    """The entries of a field that should be a list; none where it is anything else."""
    return value if isinstance(value, (list, tuple)) else ()


def field(item: Any, name: str) -> Any:
    """An item of a JSON object or an attribute of an SDK object; None where there is none."""
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
