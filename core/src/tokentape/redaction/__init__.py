"""Masks secrets in recorded text, on the writer thread, between the capture and every output."""

from __future__ import annotations

from .events import CallRedactor
from .gate import Gate
from .patterns import Pattern, Redactor, chosen
from .rules import BUILT_IN, Rules, redact_json, redact_text

__all__ = ["BUILT_IN", "CallRedactor", "Gate", "Pattern", "Redactor", "Rules", "chosen", "redact_json", "redact_text"]
