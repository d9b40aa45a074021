"""LlamaIndex's integration of OpenAI, which needs openai 2."""

from __future__ import annotations

from typing import Any

from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index_suite import LlamaIndexSuite

from tokentape.testing import ProviderServer

OPTIONS = {"model": "gpt-4o", "api_key": "none", "max_retries": 0}


class TestChatCompletions(LlamaIndexSuite):
    adapter = "openai"

    def model(self, server: ProviderServer) -> Any:
        return OpenAI(api_base=server.url, **OPTIONS)


class TestResponses(LlamaIndexSuite):
    adapter = "openai"

    def model(self, server: ProviderServer) -> Any:
        return OpenAIResponses(api_base=server.url, **OPTIONS)
