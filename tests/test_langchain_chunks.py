"""What LangChain's integrations put into chunks and events ends up in the right part, whoever the provider is."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

import tokentape
from scripted_chat_model import NativeChatModel, ScriptedChatModel, SilentChatModel, chunk
from tape_reader import TapeReader

pytestmark = pytest.mark.filterwarnings("ignore:.*is in beta")

SUMMARY = {"type": "reasoning", "index": 0, "summary": [{"index": 1, "type": "summary_text", "text": "so"}]}
TOOL = {"type": "tool_call_chunk", "name": "look", "id": "c1", "index": 0, "args": '{"a'}
REST = {"type": "tool_call_chunk", "name": None, "id": None, "index": 0, "args": '":1}'}


def parts(tape: TapeReader) -> list[tuple[Any, ...]]:
    return [(p["kind"], p["provider_index"], p["name"], p["content"]) for p in tape.parts()]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([chunk("Hel"), chunk("lo")], [("text", None, None, "Hello")]),
        ([chunk(["Hel", "lo"])], [("text", None, None, "Hello")]),
        (
            [chunk([{"type": "text", "text": "Hel", "index": 0}]), chunk([{"type": "text", "text": "lo", "index": 1}])],
            [("text", "0", None, "Hel"), ("text", "1", None, "lo")],
        ),
        (
            [
                chunk([{"type": "thinking", "thinking": "hm", "index": 0}]),
                chunk([{"type": "thinking", "signature": "c2ln", "index": 0}]),
                chunk([{"type": "text", "text": "so", "index": 1}]),
            ],
            [("reasoning", "0", None, "hm"), ("text", "1", None, "so")],
        ),
        ([chunk([{"type": "reasoning", "reasoning": "hm", "index": 0}])], [("reasoning", "0", None, "hm")]),
        ([chunk([SUMMARY])], [("reasoning", "0/1", "summary", "so")]),
        ([chunk(additional_kwargs={"reasoning_content": "hm"})], [("reasoning", None, None, "hm")]),
        ([chunk(additional_kwargs={"refusal": "no"})], [("refusal", None, None, "no")]),
        ([chunk([{"type": "refusal", "refusal": "no", "index": 0}])], [("refusal", "0", None, "no")]),
        ([chunk(additional_kwargs={"audio": {"transcript": "hi"}})], [("audio_transcript", None, None, "hi")]),
        (
            [chunk(additional_kwargs={"function_call": {"name": "look", "arguments": "{}"}})],
            [("tool_args", "function_call", "look", "{}")],
        ),
        (
            [chunk(tool_call_chunks=[TOOL]), chunk(tool_call_chunks=[REST])],
            [("tool_args", "0", "look", '{"a":1}')],
        ),
        # A block that LangChain also gives apart is no second event.
        (
            [chunk([{"type": "function_call", "arguments": '{"a'}], tool_call_chunks=[TOOL])],
            [("tool_args", "0", "look", '{"a')],
        ),
        (
            [
                chunk(
                    tool_call_chunks=[
                        {**TOOL, "index": None, "args": "{}"},
                        {**TOOL, "index": None, "id": "c2", "args": "[]"},
                    ]
                )
            ],
            [("tool_args", "c1", "look", "{}"), ("tool_args", "c2", "look", "[]")],
        ),
        ([chunk(tool_call_chunks=[{**TOOL, "args": ""}])], [("tool_args", "0", "look", "")]),
        (
            [chunk([{"type": "server_tool_call_chunk", "name": "web", "id": "s", "index": 2, "args": "{}"}])],
            [("tool_args", "2", "web", "{}")],
        ),
        # Tools that the provider runs: Anthropic's piece by piece, OpenAI's whole.
        (
            [
                chunk([{"type": "server_tool_use", "name": "web", "id": "s", "input": {}, "index": 1}]),
                chunk([{"type": "input_json_delta", "partial_json": '{"q"', "index": 1}]),
                chunk([{"type": "input_json_delta", "partial_json": ":1}", "index": 1}]),
            ],
            [("tool_args", "1", "web", '{"q":1}')],
        ),
        (
            [
                chunk([{"type": "tool_use", "name": "look", "id": "c1", "index": 0}], tool_call_chunks=[TOOL]),
                chunk(
                    [{"type": "input_json_delta", "partial_json": REST["args"], "index": 0}], tool_call_chunks=[REST]
                ),
            ],
            [("tool_args", "0", "look", '{"a":1}')],
        ),
        (
            [chunk([{"type": "mcp_call", "name": "ask", "id": "m", "arguments": "{}", "output": "no", "index": 3}])],
            [("tool_args", "3", "ask", "{}")],
        ),
        (
            [chunk([{"type": "code_interpreter_call", "code": "1 + 1", "index": 0}])],
            [("tool_args", "0", None, "1 + 1")],
        ),
        (
            [chunk([{"type": "apply_patch_call", "operation": {"type": "update_file", "diff": "+x"}, "index": 0}])],
            [("tool_args", "0", None, "+x")],
        ),
        # As Mistral's reasoning models send it.
        (
            [chunk([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])],
            [("reasoning", None, None, "hm")],
        ),
        (
            [chunk([{"type": "image", "base64": "aGk="}, {"type": "never heard of"}]), chunk("so")],
            [("text", None, None, "so")],
        ),
    ],
)
def test_each_shape_of_content_has_its_part(chunks: list[Any], expected: list[Any], tape: TapeReader) -> None:
    list(ScriptedChatModel(chunks=chunks).stream("hi"))
    assert parts(tape) == expected
    assert (tape.call()["status"], tape.call()["chunk_count"]) == ("completed", len(chunks))


def test_log_probabilities_count_the_tokens(tape: TapeReader) -> None:
    def told(*tokens: str) -> dict[str, Any]:
        return {"logprobs": {"content": [{"token": token, "logprob": -0.5} for token in tokens]}}

    list(
        ScriptedChatModel(
            chunks=[chunk("ab", generation_info=told("a", "b")), chunk("c", generation_info=told("c"))]
        ).stream("hi")
    )
    assert (tape.call()["token_count"], tape.call()["token_count_source"]) == (3, "logprobs")
    assert [row["n_tokens"] for row in tape.rows("select n_tokens from llm_tokens")] == [2, 1]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"stop_reason": "end_turn"}, "end_turn"),
        ({"done_reason": "load"}, "load"),
        ({"object": "response", "status": "completed"}, "completed"),
        (
            {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
        ),
    ],
)
def test_each_providers_finish_reason_is_kept(said: dict[str, Any], reason: str, tape: TapeReader) -> None:
    stream = ScriptedChatModel(chunks=[chunk("so"), chunk(response_metadata=said), chunk("more")]).stream("hi")
    for piece in stream:
        if piece.response_metadata:
            break
    stream.close()
    # It had been said that the answer is complete when the reader left.
    assert (tape.call()["finish_reason"], tape.call()["status"]) == (reason, "completed")


def test_a_finish_reason_that_is_said_twice_is_one(tape: TapeReader) -> None:
    said = {"finish_reason": "stop"}
    list(ScriptedChatModel(chunks=[chunk("so", generation_info=said), chunk(generation_info=said)]).stream("hi"))
    assert tape.call()["finish_reason"] == "stop"


def test_usage_and_ids_come_from_the_end(tape: TapeReader) -> None:
    details = {"input_token_details": {"cache_read": 3, "cache_creation": 2}, "output_token_details": {"reasoning": 4}}
    usage = {"input_tokens": 20, "output_tokens": 9, "total_tokens": 29, **details}
    last = {"model_name": "scripted-2026", "service_tier": "priority", "finish_reason": "stop"}
    list(
        ScriptedChatModel(chunks=[chunk("so", id="msg_1"), chunk(usage_metadata=usage, response_metadata=last)]).stream(
            "hi"
        )
    )
    call = tape.call()
    columns = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    assert [call[column] for column in columns] == [20, 3, 2, 9, 4]
    assert json.loads(call["usage_json"]) == usage
    assert (call["response_id"], call["response_model"]) == ("msg_1", "scripted-2026")
    assert json.loads(call["response_meta_json"]) == {"service_tier": "priority"}
    assert (call["provider"], call["request_model"], call["parent_id"]) == ("scriptedchatmodel", "scripted", None)


@pytest.mark.parametrize("kind", [ScriptedChatModel, SilentChatModel])
def test_a_model_heard_twice_is_recorded_once(kind: Any, tape: TapeReader) -> None:
    model = kind(chunks=[chunk("Hel"), chunk(tool_call_chunks=[TOOL]), chunk("lo"), chunk(tool_call_chunks=[REST])])
    assert list(model.stream_events("hi", version="v3").text) == ["Hel", "lo"]
    assert [(row["kind"], row["token"]) for row in tape.tokens()] == [
        ("text", "Hel"),
        ("tool_args", '{"a'),
        ("text", "lo"),
        ("tool_args", '":1}'),
    ]
    assert (tape.call()["streaming"], tape.call()["status"]) == (1, "completed")


def test_a_model_that_speaks_the_protocol_itself_is_recorded(tape: TapeReader) -> None:
    events: list[dict[str, Any]] = [
        {"event": "message-start", "role": "ai", "id": "m1"},
        {"event": "content-block-start", "index": 0, "content": {"type": "reasoning", "reasoning": ""}},
        {"event": "content-block-delta", "index": 0, "delta": {"type": "reasoning-delta", "reasoning": "hm"}},
        {"event": "content-block-finish", "index": 0, "content": {"type": "reasoning", "reasoning": "hm"}},
        {"event": "content-block-start", "index": 1, "content": {"type": "text", "text": "Hel"}},
        {"event": "content-block-delta", "index": 1, "delta": {"type": "text-delta", "text": "lo"}},
        {"event": "content-block-finish", "index": 1, "content": {"type": "text", "text": "Hello"}},
        {"event": "content-block-start", "index": 2, "content": {**TOOL, "args": ""}},
        {"event": "content-block-delta", "index": 2, "delta": {"type": "tool-call-delta", "args": "{}"}},
        {
            "event": "content-block-finish",
            "index": 2,
            "content": {"type": "tool_call", "id": "c1", "name": "look", "args": {}},
        },
        {"event": "message-finish", "metadata": {"finish_reason": "stop"}},
    ]
    stream = NativeChatModel(chunks=[], events=events).stream_events("hi", version="v3")
    assert stream.output.text == "Hello"
    assert parts(tape) == [
        ("reasoning", "0", None, "hm"),
        ("text", "1", None, "Hello"),
        ("tool_args", "2", "look", "{}"),
    ]
    assert (tape.call()["finish_reason"], tape.call()["streaming"]) == ("stop", 1)


@pytest.mark.parametrize("prompts", [False, True])
def test_nothing_of_langchains_is_kept(prompts: bool, tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db", prompts=prompts)
    asked = [HumanMessage("hi"), AIMessage("yes?")]
    model = ScriptedChatModel(chunks=[chunk(f"{i} ") for i in range(5)])
    chunks = list(model.stream(asked))
    seen = [weakref.ref(item) for item in (*asked, *chunks)]
    del asked, model, chunks
    gc.collect()
    assert [ref() for ref in seen if ref() is not None] == []
