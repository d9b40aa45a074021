"""Connects LlamaIndex to tokentape: every model it asks, and what happens between the calls."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import tokentape

if TYPE_CHECKING:
    from tokentape.patching import PatchSet
    from tokentape.recorder import Recorder

__version__ = "0.1.0"

SUPPORTED = ">=0.14.25,<0.15"


@tokentape.hookimpl
def tokentape_install(recorder: Recorder) -> Callable[[], None]:
    """Listen at LlamaIndex's root dispatcher, once the program has imported LlamaIndex."""
    from tokentape.patching import patch_when_imported

    undone: list[Callable[[], None]] = []

    def connect(patches: PatchSet, core: ModuleType) -> None:
        from .hook import listen

        undone.append(listen(recorder))

    undone.append(patch_when_imported("llama-index", "llama_index.core", SUPPORTED, connect))

    def undo() -> None:
        for step in reversed(undone):
            step()

    return undo
