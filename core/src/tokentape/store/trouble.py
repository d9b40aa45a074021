"""What is wrong with a tape that is written to: said once, and again when it is over; set aside if it is damaged."""

from __future__ import annotations

import logging
import shlex
import time
from pathlib import Path
from typing import Final

from ..errors import TapeError
from . import files, schema

logger = logging.getLogger(__name__)

# That a tape cannot be written is said at most so often.
SAY_EVERY_S: Final = 60.0
# A tape that is damaged again so soon is not set aside again: something damages whatever is there.
ASIDE_EVERY_S: Final = 60.0


class Trouble:
    """What one process knows to be wrong with its tape.

    Args:
        path: the tape.

    Attributes:
        error: what keeps it from being written at the moment; None if nothing does.
        aside: damaged files that this process has set aside.
    """

    def __init__(self, path: Path) -> None:
        self.error: str | None = None
        self.aside: list[Path] = []
        self._path = path
        self._is_said = False
        self._said_s = self._aside_s = float("-inf")

    def begin(self, error: Exception) -> None:
        """It cannot be written."""
        # Of an error that only adds the path to what SQLite says, what SQLite says.
        reason = error.__cause__ if type(error) is TapeError and error.__cause__ is not None else error
        if not self._is_said and time.monotonic() - self._said_s > SAY_EVERY_S:
            self._is_said, self._said_s = True, time.monotonic()
            logger.warning(
                "%s cannot be written (%s); what is recorded is held until it can. The program goes on.",
                self._path,
                reason,
            )
        self.error = str(reason)

    def end(self) -> None:
        """It can be written."""
        self.error = None
        if self._is_said:
            self._is_said = False
            logger.warning("%s can be written again.", self._path)

    def say_gone(self) -> None:
        """Another file is at its path now."""
        logger.warning(
            "%s was deleted or replaced while it was recorded to; recording goes on to the one that is there now, "
            "without what was on the other.",
            self._path,
        )

    def set_aside(self, seen: files.Identity, error: Exception) -> bool:
        """Set a damaged file aside, unless that was done a moment ago; connections to it are closed afterwards.

        Args:
            seen: which file it is: what is at the path now may be another one already.
            error: how SQLite found that it is damaged.

        Returns:
            Whether another file, or none, is at the path now.
        """
        if not schema.is_damage(error) or time.monotonic() - self._aside_s < ASIDE_EVERY_S:
            return False
        try:
            target = files.set_aside(self._path, seen)
        except OSError:
            return False
        if target is not None:
            self._aside_s = time.monotonic()
            self.aside.append(target)
            logger.warning(
                "%s was damaged (%s) and is set aside as %s; recording goes on to a new tape. "
                "Save what can be read of the old one with: tokentape recover %s",
                self._path,
                error.__cause__ or error,
                target.name,
                shlex.quote(str(target)),
            )
        return True
