"""LlamaIndex's integrations of OpenAI and Anthropic, which need an older SDK than the newest, are linked to it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_index.llms.openai")
pytest.importorskip("llama_index.llms.anthropic")

from llama_index.core.llms import ChatMessage
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI, OpenAIResponses

from tape_reader import TapeReader
from tokentape.testing import Finish, ProviderServer, Reasoning, Text, ToolArgs, ToolCall, Usage

ASKED = [ChatMessage(role="user", content="hi")]
ANSWER = [Text("Hel"), Text("lo"), Finish("stop"), Usage(12, 2, cached=3)]
TOOL = [
    Reasoning("hm"),
    Text("so"),
    ToolCall(0, "call_1", "look"),
    ToolArgs(0, '{"q":'),
    ToolArgs(0, "1}"),
    Finish("tool_calls"),
    Usage(5, 5),
]


def model(kind: Any, server: ProviderServer) -> Any:
    if kind is Anthropic:
        url = server.url.removesuffix("/v1")
        return Anthropic(model="claude-sonnet-4-0", base_url=url, api_key="none", max_retries=0)
    return kind(model="gpt-4o", api_base=server.url, api_key="none", max_retries=0)


def linked(tape: TapeReader) -> tuple[dict[str, Any], dict[str, Any]]:
    outer, inner = tape.calls()
    assert (outer["layer"], inner["layer"], inner["parent_id"]) == ("framework", "sdk", outer["id"])
    columns = ("status", "streaming", "finish_reason", "event_count", "input_tokens", "output_tokens", "provider")
    assert [outer[column] for column in columns] == [inner[column] for column in columns]
    return outer, inner


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses, Anthropic])
@pytest.mark.parametrize("method", ["stream_chat", "stream_complete", "chat", "complete"])
def test_both_layers_hold_the_same_answer(kind: Any, method: str, server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    answer = getattr(model(kind, server), method)(ASKED if "chat" in method else "hi")
    if "stream" in method:
        list(answer)
    outer, inner = linked(tape)
    assert [row["token"] for row in tape.tokens(outer["id"])] == [row["token"] for row in tape.tokens(inner["id"])]


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses, Anthropic])
def test_reasoning_and_tools_are_parts(kind: Any, server: ProviderServer, tape: TapeReader) -> None:
    server.add(TOOL)
    # Not asynchronously: there OpenAI's integration leaves out a first chunk without text or tools.
    list(model(kind, server).stream_chat(ASKED))
    outer, _ = linked(tape)
    assert [(p["kind"], p["name"], p["external_id"], p["content"]) for p in tape.parts(outer["id"])] == [
        ("reasoning", None, None, "hm"),
        ("text", None, None, "so"),
        ("tool_args", "look", "call_1", '{"q":1}'),
    ]
