"""What every adapter must pass, synchronous and asynchronous from one list. Subclass it and name a driver:

    from tokentape.testing.conformance import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        driver = MyDriver()

Needs pytest. Everything runs against a real server on loopback; times are compared with generous room for a busy
machine.
"""

from __future__ import annotations

import pkgutil

import pytest

# Before they are imported: a scenario that fails then shows what it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{part.name}" for part in pkgutil.iter_modules(__path__)))

from .adapter import AdapterConformance, FormatConformance  # noqa: E402

__all__ = ["AdapterConformance", "FormatConformance"]
