"""The parts of the suite put together."""

from __future__ import annotations

from .content import Content
from .contexts import Contexts
from .endings import Endings
from .faults import Faults
from .fidelity import Fidelity
from .patches import Patches
from .stalls import Stalls
from .timing import Timing
from .volume import Volume


class FormatConformance(Endings, Fidelity, Content, Timing):
    """What depends on what is streamed: for each further API or format of an SDK whose adapter passes everything."""


class AdapterConformance(FormatConformance, Stalls, Contexts, Faults, Patches, Volume):
    """Everything, for an adapter of one SDK."""
