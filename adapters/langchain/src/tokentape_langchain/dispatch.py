"""Hands a token straight to our handler where nobody else listens.

LangChain's asynchronous dispatch costs several times what recording a token does, even to a handler that does nothing;
a program that listens to none itself would pay it for us alone.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tokentape.patching import Wrapper


def straight_to(ours: Callable[[], Any]) -> Wrapper:
    """Make a wrapper of `AsyncCallbackManagerForLLMRun.on_llm_new_token`.

    Args:
        ours: the handler that is handed out at the time, or None.
    """

    def on_llm_new_token(
        wrapped: Any, manager: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, None]:
        handlers = manager.handlers
        if len(handlers) != 1 or handlers[0] is not ours():
            told: Coroutine[Any, Any, None] = wrapped(*args, **kwargs)
            return told
        return _tell(handlers[0], manager.run_id, args, kwargs)

    return on_llm_new_token


async def _tell(handler: Any, run_id: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What is awaited in place of LangChain's dispatch; like that, it does nothing before."""
    handler.on_llm_new_token(*args, run_id=run_id, **kwargs)
