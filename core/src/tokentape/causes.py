"""What an exception that ended a stream says of how it ended."""

from __future__ import annotations

import sys
from typing import Final

from .models import Status

# What anyio cancels with tells of its own objects, with addresses and paths, and nothing of why.
_CANCEL_SCOPE: Final = ("Cancelled by cancel scope", "Cancelled via cancel scope")


def status_of(exc: BaseException) -> Status:
    """The status of a call that an exception ended: `cancelled`, `error`, or `abandoned` for what is no failure."""
    # asyncio is imported by whoever raises its CancelledError; looking it up keeps it out of our import.
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(exc, asyncio.CancelledError):
        return "cancelled"
    return "error" if isinstance(exc, Exception) else "abandoned"


def message_of(exc: BaseException) -> str | None:
    """What it says; None where that is nothing about the stream."""
    message = str(exc)
    return None if not message or message.startswith(_CANCEL_SCOPE) else message


def cancellation() -> BaseException | None:
    """The exception of the running task where somebody has asked for its end."""
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    task = asyncio.current_task(loop) if asyncio is not None and loop is not None else None
    return asyncio.CancelledError() if asyncio is not None and task is not None and task.cancelling() else None
