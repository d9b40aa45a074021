"""LlamaIndex's integration of Anthropic, which works with anthropic before 1."""

from __future__ import annotations

from typing import Any

from llama_index.llms.anthropic import Anthropic
from llama_index_suite import LlamaIndexSuite

from tokentape.testing import ProviderServer


class TestMessages(LlamaIndexSuite):
    adapter = "anthropic"

    def model(self, server: ProviderServer) -> Any:
        return Anthropic(model="claude-sonnet-4-0", base_url=server.origin, api_key="none", max_retries=0)
