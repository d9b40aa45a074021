"""Searches with patterns that others wrote: they end, and what they leave undecided counts as secret.

A pattern of a user's or a plugin's may take for ever on some text, or raise. It is then named once, in the log and in
`status()`; what it was searching is masked whole, and so is what it would search while it rests. So nothing that it may
have found gets out, and all such searches together take a twentieth of the writer's time at the most.
"""

from __future__ import annotations

import time
from operator import not_
from typing import TYPE_CHECKING, Any, Final

from regex import Pattern as Compiled

from .. import faults

if TYPE_CHECKING:
    from .patterns import Redactor

# So long a search may keep the interpreter from the program's threads. Beyond it they run beside the search.
HELD_S: Final = 0.001
# So long all searches of one text may take, and a little longer if the text is long.
LIMIT_S: Final = 0.05
LIMIT_S_PER_CHAR: Final = 5e-7
# After a text that it could not be done with, a pattern is left alone so long.
REST_S: Final = 20 * LIMIT_S


class GaveUp(Exception):
    """A search was not brought to its end, or not begun."""


class Guarded:
    """A redactor that others wrote; see `Redactor`.

    Raises:
        TypeError: it is none.
    """

    def __init__(self, redactor: Redactor) -> None:
        if not isinstance(getattr(redactor, "pattern", None), Compiled):
            kind = getattr(redactor, "kind", redactor)
            raise TypeError(f"redactor {kind!r}: its pattern has to be one that the regex library has compiled")
        self.kind = str(redactor.kind)
        self._redactor = redactor
        self._rests_until = 0.0

    def searches(self, text: str) -> Searches:
        """Begin to search a text.

        Raises:
            GaveUp: the pattern rests.
        """
        if time.monotonic() < self._rests_until:
            raise GaveUp
        return Searches(self.kind, self._redactor, len(text))

    def note(self, fault: Exception) -> None:
        """Name what a search has failed of, and leave the pattern alone for a while."""
        where = f"redaction pattern {self.kind!r}"
        if isinstance(fault, GaveUp):
            return
        self._rests_until = time.monotonic() + REST_S
        if isinstance(fault, TimeoutError):
            faults.mention(where, "a search did not end in time, what it was searching is masked whole; correct it")
        else:
            faults.report(where, fault, "what it was searching, which is masked whole")


class Searches:
    """The searches of one text, within one limit."""

    may_go_on = staticmethod(not_)

    def __init__(self, kind: str, redactor: Redactor, size: int) -> None:
        self.kind = kind
        self._redactor = redactor
        self._left_s = LIMIT_S + LIMIT_S_PER_CHAR * size

    def find(self, text: str, start: int, *, partial: bool) -> Any:
        """The next match.

        Raises:
            TimeoutError: the limit is reached.
        """
        began = time.thread_time()
        try:
            return self._find(text, start, partial)
        finally:
            self._left_s -= time.thread_time() - began

    def is_secret(self, match: str) -> bool:
        """Ask the redactor about a match."""
        return bool(self._redactor.is_secret(match))

    def _find(self, text: str, start: int, partial: bool) -> Any:
        if self._left_s <= 0:
            raise TimeoutError
        search = self._redactor.pattern.search
        try:
            return search(text, start, partial=partial, concurrent=False, timeout=min(HELD_S, self._left_s))
        except TimeoutError:
            return search(text, start, partial=partial, concurrent=True, timeout=self._left_s)
