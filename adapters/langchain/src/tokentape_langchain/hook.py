"""Puts the handler where LangChain looks for handlers of its own accord, and takes it away again.

`register_configure_hook` asks for a context variable and can never be told to forget it. LangChain only ever calls its
`get()`, so what is registered, once a process, is a switch with that method: a value that holds in every thread and
task, and that is gone from everything configured after recording has stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import wrapt

from tokentape import faults
from tokentape.patching import PatchSet
from tokentape.recorder import Recorder

from .cancellation import ends_cancelled
from .dispatch import straight_to

if TYPE_CHECKING:
    from .handler import Handler

# LangChain imports it when the first callback manager is made: registering then costs the import of LangChain nothing.
_HOOKS_MODULE: Final = "langchain_core.tracers.context"
_REGISTER: Final = "register_configure_hook"
_MODELS_MODULE: Final = "langchain_core.language_models.chat_models"


class Switch:
    """Holds the handler while recording is on."""

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._recorder: Recorder | None = None
        self._patches: PatchSet | None = None
        self._modules: dict[str, ModuleType] = {}
        self._waits = False
        self._registered = False

    def get(self) -> Handler | None:
        """The handler to add to what is being configured; None while recording is off."""
        return self._handler

    def turn_on(self, recorder: Recorder, patches: PatchSet) -> None:
        """Hand out a handler from now on, or from the moment that LangChain can use one."""
        self._recorder, self._patches = recorder, patches
        for name, module in self._modules.items():
            self._connect(name, module)
        if not self._waits:
            self._waits = True
            for name in (_HOOKS_MODULE, _MODELS_MODULE):
                wrapt.register_post_import_hook(self._imported(name), name)

    def turn_off(self) -> None:
        """Hand out none any more; what still holds the handler calls it in vain."""
        handler, self._handler = self._handler, None
        self._recorder = self._patches = None
        if handler is not None:
            handler.stop()

    def _imported(self, name: str) -> Callable[[ModuleType], None]:
        def imported(module: ModuleType) -> None:
            self._modules[name] = module
            self._connect(name, module)

        return imported

    def _connect(self, name: str, module: ModuleType) -> None:
        recorder, patches = self._recorder, self._patches
        if recorder is None or patches is None:
            return
        with faults.guard("langchain adapter", "everything that langchain_core runs"):
            if name == _MODELS_MODULE:
                patches.wrap(module, "BaseChatModel.agenerate", ends_cancelled(self._end_cancelled))
                patches.wrap(module, "AsyncCallbackManagerForLLMRun.on_llm_new_token", straight_to(self.get))
            else:
                self._hand_out(module, recorder, patches)

    def _hand_out(self, module: ModuleType, recorder: Recorder, patches: PatchSet) -> None:
        register: Any = getattr(module, _REGISTER, None)
        if register is None:
            patches.missing.append(f"{_HOOKS_MODULE}.{_REGISTER}")
            return
        if not self._registered:
            register(self, inheritable=True)
            self._registered = True
        from .handler import Handler

        self._handler = Handler(recorder)

    def _end_cancelled(self, begun: list[UUID], error: BaseException) -> None:
        if self._handler is not None:
            for run_id in begun:
                self._handler.on_llm_error(error, run_id=run_id)


SWITCH: Final = Switch()
