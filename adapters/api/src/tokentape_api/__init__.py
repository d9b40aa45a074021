"""Serves a tape over HTTP, read-only: by itself, inside another FastAPI app, or mounted in any ASGI app."""

from __future__ import annotations

from .app import app_from_environment, create_app, router
from .source import FileSource, TapeSource

__all__ = ["FileSource", "TapeSource", "app_from_environment", "create_app", "router"]

__version__ = "0.1.0"
