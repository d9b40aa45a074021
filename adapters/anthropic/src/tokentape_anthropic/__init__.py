"""Connects the Anthropic SDK to tokentape: messages, streamed or not, and the event streams of agent sessions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import tokentape

if TYPE_CHECKING:
    from tokentape.patching import PatchSet
    from tokentape.recorder import Recorder

__version__ = "0.1.0"

SUPPORTED = ">=0.125,<3"


@tokentape.hookimpl
def tokentape_install(recorder: Recorder) -> Callable[[], None]:
    """Patch the SDK when it is imported."""
    from tokentape.patching import patch_when_imported

    def patch(patches: PatchSet, anthropic: ModuleType) -> None:
        from anthropic import _base_client, _streaming

        from tokentape.stainless import Seams

        from .surface import SURFACE

        Seams(recorder, SURFACE).patch(patches, _base_client, _streaming)

    return patch_when_imported("anthropic", "anthropic", SUPPORTED, patch)
