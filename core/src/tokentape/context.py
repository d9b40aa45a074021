"""What holds where the program is now: run, labels, content level, suppression, and the framework call around us.

Everything lives in context variables, so it follows tasks, and threads only where the program copies its context. A
value is read when a request is sent, never when a chunk arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from .models import CONTENT_LEVELS, ContentLevel
from .settings import text_of

if TYPE_CHECKING:
    from .call import CallRecorder
    from .runs import RunHandle

T = TypeVar("T")

RUN: ContextVar[RunHandle | None] = ContextVar("tokentape_run", default=None)
LABELS: ContextVar[Mapping[str, str]] = ContextVar("tokentape_labels", default=MappingProxyType({}))
CONTENT: ContextVar[ContentLevel | None] = ContextVar("tokentape_content", default=None)
SUPPRESSED: ContextVar[bool] = ContextVar("tokentape_suppressed", default=False)
# The framework's call that requests sent here belong to: set from its start until its first chunk or its end.
PARENT: ContextVar[CallRecorder | None] = ContextVar("tokentape_parent", default=None)
# Frameworks whose generators send the request when they are first read have no context to put their call in: each
# adds a function that tells which of its calls is being read on the stack of this thread.
PARENT_FINDERS: list[Callable[[], CallRecorder | None]] = []


def parent() -> CallRecorder | None:
    """The framework's call that a request sent here belongs to: of several the innermost, begun last."""
    calls = [call for call in (PARENT.get(), *(find() for find in PARENT_FINDERS)) if call and call.takes_children]
    return max(calls, key=lambda call: call.start_ns, default=None)


def forget_parent(token: Token[CallRecorder | None]) -> None:
    """Put the context back as it was before `PARENT` was set.

    Elsewhere than in the context where it was set, nothing is put back: a call that has ended or has begun to answer is
    no parent any more.

    Args:
        token: what `PARENT.set(call)` returned.
    """
    try:
        PARENT.reset(token)
    except ValueError:
        pass


@contextmanager
def setting(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a context variable a value for the length of a block."""
    token = variable.set(value)
    try:
        yield
    finally:
        try:
            variable.reset(token)
        except ValueError:
            # The block was left in another context than it was entered in (an async generator closed by the event loop,
            # say). There the variable was never ours, so there is nothing to restore.
            pass


def label(**labels: Any) -> Any:
    """Put labels on every call made inside the block; nests, the inner value of a key wins.

    Args:
        **labels: text, numbers, or what has a text of its own, such as a UUID.

    Returns:
        A context manager, also usable as a decorator of a plain function.

    Raises:
        TypeError: a value is none of these.
    """
    return setting(LABELS, {**LABELS.get(), **{key: text_of(f"label {key}", value) for key, value in labels.items()}})


def content(level: ContentLevel) -> Any:
    """Choose how much of the calls made inside the block is kept: `full`, `redacted` or `timings`.

    Raises:
        ValueError: there is no such level.
    """
    if level not in CONTENT_LEVELS:
        raise ValueError(f"content level {level!r}: expected one of {', '.join(CONTENT_LEVELS)}")
    return setting(CONTENT, level)


def suppress() -> Any:
    """Record nothing of the calls made inside the block."""
    return setting(SUPPRESSED, True)
