"""What servers may send and should not, in each wire format: every level of it may be missing or of another type."""

from __future__ import annotations

from typing import Any


def chunk(*choices: Any, **fields: Any) -> dict[str, Any]:
    """A chunk of chat completions."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x"}
    return head | {"choices": list(choices)} | fields


def said(text: Any = None, choice: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A choice of such a chunk."""
    return {"index": choice, "delta": delta | ({} if text is None else {"content": text}), "finish_reason": finish}


NOT_A_CHUNK = [5, "text", [], [chunk(said("x"))], True, {}, {"id": None}]
KEPT_ALIVE = b": kept alive\n\n"
CHAT = [
    chunk(),
    chunk(choices=None),
    {"id": "chatcmpl-1", "object": "chat.completion.chunk"},
    chunk({}),
    chunk({"index": 0}),
    chunk({"index": 0, "delta": None, "finish_reason": None}),
    chunk({"index": None, "delta": {}}),
    chunk({"index": 0, "delta": "no delta", "finish_reason": 7}),
    chunk(None),
    chunk(5),
    chunk(choices={"index": 0}),
    chunk(choices=5),
    chunk(said([])),
    chunk(said([5, None, {"type": "image_url"}])),
    chunk(said(tool_calls=[])),
    chunk(said(tool_calls=[None])),
    chunk(said(tool_calls=5)),
    chunk(said(audio={"id": "a"})),
    chunk(said(logprobs=5)),
    chunk({"index": 0, "delta": {"content": ""}, "logprobs": {"content": 5}}),
    chunk(usage=5),
    chunk(x_groq=5, service_tier=["no", "tier"]),
    *NOT_A_CHUNK,
    KEPT_ALIVE,
]
COMPLETIONS = [
    {"choices": None},
    {"choices": [None, 5, {}, {"text": None}, {"text": "", "index": "first"}, {"index": 0, "logprobs": 5}]},
    {"choices": 5},
    {"usage": 5},
    *NOT_A_CHUNK,
    KEPT_ALIVE,
]
RESPONSES = [
    {"type": "response.of_tomorrow.delta", "delta": "not ours"},
    {"type": "response.of_tomorrow"},
    {"type": None},
    {"type": ["list"]},
    {"type": "response.output_text.delta"},
    {"type": "response.output_text.delta", "delta": None},
    {"type": "response.output_text.done", "text": None},
    {"type": "response.output_item.added"},
    {"type": "response.output_item.added", "item": None, "output_index": None},
    {"type": "response.output_item.added", "item": {"type": "function_call"}},
    {"type": "response.created", "response": None},
    {"type": "response.created", "response": {"usage": 5, "service_tier": 5}},
    *NOT_A_CHUNK,
    KEPT_ALIVE,
]
MESSAGES = [
    {"type": "a_new_event", "index": 0, "delta": {"text": "no text"}},
    {"type": "content_block_delta", "index": 0},
    {"type": "content_block_delta", "index": 0, "delta": None},
    {"type": "content_block_delta", "index": None, "delta": {"type": "text_delta", "text": None}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "a_new_delta", "text": "no text"}},
    {"type": "content_block_start", "index": 7},
    {"type": "content_block_start", "index": 7, "content_block": None},
    {"type": "message_start", "message": None},
    {"type": "message_delta"},
    {"type": "message_delta", "delta": {"stop_reason": 7}, "usage": "much"},
    {"type": "ping"},
    *NOT_A_CHUNK,
    KEPT_ALIVE,
]
