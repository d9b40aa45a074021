"""Connects LangChain and LangGraph to tokentape: every model they call, and what happens between the calls."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import tokentape

if TYPE_CHECKING:
    from tokentape.patching import PatchSet
    from tokentape.recorder import Recorder

__version__ = "0.1.0"

SUPPORTED = ">=1.7,<2"


@tokentape.hookimpl
def tokentape_install(recorder: Recorder) -> Callable[[], None]:
    """Let LangChain add our handler to everything it runs, once the program has imported it."""
    from tokentape.patching import patch_when_imported

    from .hook import SWITCH

    def connect(patches: PatchSet, langchain_core: ModuleType) -> None:
        SWITCH.turn_on(recorder, patches)

    undo_import = patch_when_imported("langchain", "langchain_core", SUPPORTED, connect)

    def undo() -> None:
        SWITCH.turn_off()
        undo_import()

    return undo
