"""The hooks: where adapters connect a framework, and where outputs receive what was recorded.

What was recorded is handed over on the writer thread, in batches, never inside the loop that reads a stream. A hook
that raises is named once in the log and in `tokentape.status()`; the other plugins go on. An implementation may take
fewer arguments than its specification. `docs/hooks.md` has an example of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from .models import Call, FinishedCall, Mark, Run, TokenBatch
    from .recorder import Recorder
    from .redaction import Pattern, Redactor

PROJECT = "tokentape"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def tokentape_install(recorder: Recorder) -> Callable[[], None] | None:
    """Connect a framework: patch its SDK, now or when it is imported. Called once, when recording starts.

    Args:
        recorder: opens calls; keep it for as long as recording is on.

    Returns:
        A function that undoes everything, called when recording stops.
    """


@hookspec(firstresult=True)
def tokentape_record(call: Call) -> str | None:
    """Decide how much of one call is kept. Called on the caller's thread, before the request is sent: be quick.

    Returns:
        `full`, `redacted`, `timings` or `skip`; None to leave it to the next plugin. The first answer wins.
    """


@hookspec
def tokentape_run_started(run: Run) -> None:
    """A run was opened. Called before any of its calls."""


@hookspec
def tokentape_call_started(call: Call) -> None:
    """A request was sent. Called before any of the call's tokens."""


@hookspec
def tokentape_call_labelled(call: Call) -> None:
    """A running call got more labels: its client has gone, say. Called with all that it has, before it is finished."""


@hookspec
def tokentape_tokens(call: Call, tokens: TokenBatch) -> None:
    """Token events of one call arrived since the last batch, in order, after redaction. Never called per token."""


@hookspec
def tokentape_call_finished(call: FinishedCall) -> None:
    """A call ended, with its outcome, usage, parts, stalls and metrics. Called once, after its last tokens."""


@hookspec
def tokentape_mark(mark: Mark) -> None:
    """A span of time between calls ended."""


@hookspec
def tokentape_run_finished(run: Run) -> None:
    """A run was closed, with its final status."""


@hookspec
def tokentape_flush() -> None:
    """A batch is complete: write what you hold. Called after each round of the hooks above, also an empty one."""


@hookspec
def tokentape_redactors() -> Iterable[Pattern | Redactor]:
    """Add what has to be masked, beside the built-in patterns. Called once, when recording starts."""
    return ()


@hookspec
def tokentape_register_commands(cli: click.Group) -> None:
    """Add commands to the `tokentape` command line."""


@hookspec
def tokentape_shutdown() -> None:
    """Recording stopped; everything was flushed. Release what you hold. Called by whoever stops recording."""


def spec_names() -> tuple[str, ...]:
    """Names of all hooks, in the order they are declared."""
    found: dict[str, Any] = globals()
    return tuple(name for name in found if name.startswith("tokentape_"))
