"""What every adapter must pass, synchronous and asynchronous from one list. Subclass it and name a driver:

    from tokentape.testing.conformance import AdapterConformance

    class TestMyAdapter(AdapterConformance):
        driver = MyDriver()

Needs pytest. Everything runs against a real server on loopback; times are compared with generous room for a busy
machine.
"""

from __future__ import annotations

import pytest

# Before they are imported: a scenario that fails shows what it compared.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in ("content", "contexts", "endings", "faults", "fidelity", "patches", "suite", "timing", "volume")
    )
)

from .content import Content
from .contexts import Contexts
from .endings import Endings
from .faults import Faults
from .fidelity import Fidelity
from .patches import Patches
from .suite import BOTH, Suite, scenario
from .timing import Timing
from .volume import Volume

__all__ = ["BOTH", "AdapterConformance", "FormatConformance", "Suite", "scenario"]


class FormatConformance(Endings, Fidelity, Content, Timing):
    """What depends on what an SDK streams: for each further format or API of one whose adapter passes everything."""


class AdapterConformance(FormatConformance, Contexts, Faults, Patches, Volume):
    """Everything, for an adapter of one SDK."""
