"""Text as SQLite can hold it: whole characters only, although providers cut between any two code units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Final

_HIGH_SURROGATES: Final = range(0xD800, 0xDC00)


def storable(text: str) -> str:
    """The text with surrogate pairs joined and each unpaired surrogate replaced by U+FFFD."""
    if _is_whole(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class CallText:
    """The text of one call as its events arrive: makes each storable, and keeps what each part adds up to."""

    __slots__ = ("_carried", "_pieces")

    def __init__(self) -> None:
        self._carried: dict[int, str] = {}
        self._pieces: dict[int, list[str]] = {}

    def take(self, part: Sequence[int], token: Sequence[str | None]) -> Sequence[str | None]:
        """Take one batch of events, in order.

        Args:
            part: number of the part each event belongs to.
            token: the text of each event; None where there is none.

        Returns:
            The texts to store. A high surrogate at the end of one has moved to the next of its part.
        """
        try:
            # One look at the whole batch: almost always there is nothing to mend.
            mended = token if not self._carried and _is_whole("".join(token)) else None  # type: ignore[arg-type]
        except TypeError:
            mended = None
        if mended is None:
            mended = [self._mend(*event) for event in zip(part, token, strict=True)]
        self._collect(part, mended)
        return mended

    def rest(self) -> list[int]:
        """Parts that ended with half a character, which their last event now has to end with, as U+FFFD."""
        halves, self._carried = list(self._carried), {}
        for part in halves:
            self._pieces.setdefault(part, []).append("\ufffd")
        return halves

    def content(self, part: int) -> str:
        """What the events of a part add up to."""
        return "".join(self._pieces.get(part, ()))

    def _mend(self, part: int, token: object) -> str | None:
        if token is None:
            return None
        # An adapter that hands over something else than text loses that text, not the event.
        text = self._carried.pop(part, "") + (token if isinstance(token, str) else "\ufffd")
        if text and ord(text[-1]) in _HIGH_SURROGATES:
            self._carried[part] = text[-1]
            text = text[:-1]
        return storable(text)

    def _collect(self, part: Sequence[int], token: Sequence[str | None]) -> None:
        for number in set(part):
            own = token if part.count(number) == len(part) else compress(token, map(number.__eq__, part))
            self._pieces.setdefault(number, []).append("".join(filter(None, own)))


def _is_whole(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
