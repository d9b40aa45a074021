"""Puts the handler where LangChain looks for handlers of its own accord, and takes it away again.

`register_configure_hook` asks for a context variable and can never be told to forget it. LangChain only ever calls its
`get()`, so what is registered, once a process, is a switch with that method: a value that holds in every thread and
task, and that is gone from everything configured after recording has stopped.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import wrapt

from tokentape import faults
from tokentape.patching import PatchSet
from tokentape.recorder import Recorder

if TYPE_CHECKING:
    from .handler import Handler

# LangChain imports it when the first callback manager is made: registering then costs the import of LangChain nothing.
_HOOKS_MODULE: Final = "langchain_core.tracers.context"
_REGISTER: Final = "register_configure_hook"


class Switch:
    """Holds the handler while recording is on."""

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._recorder: Recorder | None = None
        self._patches: PatchSet | None = None
        self._waits = False
        self._registered = False

    def get(self) -> Handler | None:
        """The handler to add to what is being configured; None while recording is off."""
        return self._handler

    def turn_on(self, recorder: Recorder, patches: PatchSet) -> None:
        """Hand out a handler from now on, or from the moment that LangChain can use one."""
        self._recorder, self._patches = recorder, patches
        if self._registered:
            self._connect()
        elif not self._waits:
            self._waits = True
            wrapt.register_post_import_hook(self._register, _HOOKS_MODULE)

    def turn_off(self) -> None:
        """Hand out none any more; what still holds the handler calls it in vain."""
        handler, self._handler, self._recorder = self._handler, None, None
        if handler is not None:
            handler.stop()

    def _register(self, module: ModuleType) -> None:
        with faults.guard("langchain adapter", "everything that langchain_core runs"):
            register: Any = getattr(module, _REGISTER, None)
            if register is None:
                self._miss(f"{_HOOKS_MODULE}.{_REGISTER}")
                return
            register(self, inheritable=True)
            self._registered = True
            self._connect()

    def _connect(self) -> None:
        if self._recorder is not None:
            from .handler import Handler

            self._handler = Handler(self._recorder)

    def _miss(self, target: str) -> None:
        if self._patches is not None:
            self._patches.missing.append(target)


SWITCH: Final = Switch()
