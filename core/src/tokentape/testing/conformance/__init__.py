"""What every adapter must pass, synchronous and asynchronous from one list. Subclass it and name a driver:

    from tokentape.testing.conformance import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        driver = MyDriver()

Needs pytest. Everything runs against a real server on loopback; times are compared with generous room for a busy
machine.
"""

from __future__ import annotations

from .adapter import AdapterConformance, FormatConformance

__all__ = ["AdapterConformance", "FormatConformance"]
