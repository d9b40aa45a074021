"""The LlamaIndex adapter passes the suite that every adapter must pass, as far as LlamaIndex's events go."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llama_index_drivers import LlamaIndexDriver
from tokentape.testing.conformance import AdapterConformance

pytestmark = pytest.mark.scenario("adapters/Conformance of every adapter")


class TestLlamaIndex(AdapterConformance):
    """LlamaIndex."""

    driver = LlamaIndexDriver()
    plugins = ("llama-index",)
    not_possible: ClassVar = {}
