"""Ends the calls of an `ainvoke` that was cancelled: LangChain, which gathers the answers, tells no callback of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from tokentape.patching import Wrapper

# The model runs that began inside the `agenerate` around us.
_BEGUN: ContextVar[list[UUID] | None] = ContextVar("tokentape_langchain_begun", default=None)


def note_begun(run_id: UUID) -> None:
    """A model run begins here."""
    begun = _BEGUN.get()
    if begun is not None:
        begun.append(run_id)


def ends_cancelled(end: Callable[[list[UUID], BaseException], None]) -> Wrapper:
    """Make a wrapper of `BaseChatModel.agenerate`.

    Args:
        end: given the runs that began inside a call that was cancelled, and the exception; some may have ended.
    """

    async def agenerate(wrapped: Any, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begun: list[UUID] = []
        token = _BEGUN.set(begun)
        try:
            return await wrapped(*args, **kwargs)
        except asyncio.CancelledError as cancelled:
            end(begun, cancelled)
            raise
        finally:
            _BEGUN.reset(token)

    return agenerate
