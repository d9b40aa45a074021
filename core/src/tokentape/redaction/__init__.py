"""Masks secrets in recorded text, on the writer thread, between the capture and every output."""

from __future__ import annotations

from .events import CallRedactor
from .patterns import Pattern, Redactor, chosen
from .rules import BUILT_IN, Rules, redact_json, redact_text

__all__ = ["BUILT_IN", "CallRedactor", "Pattern", "Redactor", "Rules", "chosen", "redact_json", "redact_text"]
