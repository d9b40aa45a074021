"""What each event of Anthropic's messages and sessions adds to the tape, as Anthropic and its imitators send them.

Everything holds for the events that the SDK makes, and for the bytes where the program reads those.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from anthropic_surfaces import client_for, stream
from surfaces import direct, lines, use
from tape_reader import TapeReader
from tokentape.testing import Finish, Ping, ProviderServer, Raw, Reasoning, Text, ToolArgs, ToolCall, Usage
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
BEGIN = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "content": []}}
as_bytes = False


@pytest.fixture(autouse=True, params=[False, True], ids=["events", "bytes"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.as_bytes", request.param)


async def read_whole(resource: Any, ask: Callable[[Any], Any], method: str = "create") -> list[Any]:
    """All events of the answer to what is asked with this method of a resource."""
    if as_bytes:
        return await lines(ask(getattr(resource.with_streaming_response, method)))
    return await direct(ask(getattr(resource, method)))


def block(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind} | fields}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind} | fields}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None, **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}} | ({"usage": usage} if usage else {})


def begin(**usage: Any) -> dict[str, Any]:
    return {**BEGIN, "message": {**BEGIN["message"], "usage": usage}}


LAST = {"type": "message_stop"}


def read(server: ProviderServer, steps: list[Any], asynchronous: bool = False, limit: int | None = None) -> list[Any]:
    """Read a script to its end, or leave it after so many events; steps that are no events are sent as they are."""
    server.add([step if hasattr(step, "__dataclass_fields__") else Raw(step) for step in steps])

    async def ask(client: Any) -> list[Any]:
        if limit is None:
            return await read_whole(client.messages, stream)
        events = await resolved(stream(client.messages.create))
        with events:
            return [next(events) for _ in range(limit)]

    return use(client_for(server, asynchronous), ask)


def parts(tape: TapeReader) -> list[tuple[Any, ...]]:
    """Parts without their numbers: kind, provider's index, name, id, content."""
    columns = ("kind", "provider_index", "name", "external_id", "content")
    return [tuple(part[column] for column in columns) for part in tape.parts()]


@pytest.mark.scenario("adapters/Thinking, text and a tool")
@both
def test_thinking_text_and_tools_are_parts_of_their_own(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    steps = [Reasoning("hm, "), Reasoning("well"), Text("Let me "), Text("look."), ToolCall(0, "toolu_1", "look")]
    steps += [ToolArgs(0, ""), ToolArgs(0, '{"a":'), ToolArgs(0, "1}"), ToolCall(1, "toolu_2", "ping"), Ping()]
    read(server, [*steps, Finish("tool_calls"), Usage(9, 30, reasoning=12)], asynchronous)
    assert parts(tape) == [
        ("reasoning", "0", None, None, "hm, well"),
        ("text", "1", None, None, "Let me look."),
        ("tool_args", "2", "look", "toolu_1", '{"a":1}'),
        ("tool_args", "3", "ping", "toolu_2", ""),
    ]
    call = tape.call()
    assert [row["token"] for row in tape.tokens()] == ["hm, ", "well", "Let me ", "look.", '{"a":', "1}"]
    assert (call["finish_reason"], call["reasoning_tokens"], call["status"]) == ("tool_use", 12, "completed")


def test_blocks_that_interleave_are_kept_apart(server: ProviderServer, tape: TapeReader) -> None:
    steps = [BEGIN, block(0, "text", text=""), block(1, "tool_use", id="toolu_1", name="look", input={})]
    for i in range(3):
        steps += [delta(0, "text_delta", text=f"t{i}"), delta(1, "input_json_delta", partial_json=f"[{i}]")]
    read(server, [*steps, LAST])
    # The tool call was announced before there was any text.
    assert parts(tape) == [
        ("tool_args", "1", "look", "toolu_1", "[0][1][2]"),
        ("text", "0", None, None, "t0t1t2"),
    ]


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use", "tool_use", "a_new_tool_use"])
def test_tools_of_every_kind_are_announced_with_name_and_id(
    kind: str, server: ProviderServer, tape: TapeReader
) -> None:
    read(server, [BEGIN, block(0, kind, id="t_1", name="search", input={}), stop(0), end("tool_use"), LAST])
    assert parts(tape) == [("tool_args", "0", "search", "t_1", "")]
    assert tape.tokens() == []


def test_what_the_model_does_not_say_is_no_text(server: ProviderServer, tape: TapeReader) -> None:
    found = [{"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "x"}]
    steps = [
        BEGIN,
        block(0, "redacted_thinking", data="c2VjcmV0"),
        stop(0),
        block(1, "web_search_tool_result", tool_use_id="t_1", content=found),
        stop(1),
        block(2, "compaction", content="what was said"),
        delta(2, "compaction_delta", content="before"),
        stop(2),
        block(3, "thinking", thinking="", signature=""),
        delta(3, "signature_delta", signature="c2lnbmVk"),
        stop(3),
        block(4, "text", text="", citations=[]),
        delta(4, "citations_delta", citation={"type": "char_location", "cited_text": "quoted", "document_index": 0}),
        delta(4, "text_delta", text="said"),
        stop(4),
        end("end_turn"),
        LAST,
    ]
    seen = read(server, steps)
    assert len(seen) == len(steps)
    assert parts(tape) == [("text", "4", None, None, "said")]
    assert (tape.call()["chunk_count"], tape.call()["event_count"]) == (len(steps), 1)


def test_text_that_comes_with_the_block_is_not_lost(server: ProviderServer, tape: TapeReader) -> None:
    steps = [block(0, "thinking", thinking="hm "), delta(0, "thinking_delta", thinking="yes"), stop(0)]
    read(server, [BEGIN, *steps, block(1, "text", text="Hel"), delta(1, "text_delta", text="lo"), LAST])
    assert parts(tape) == [("reasoning", "0", None, None, "hm yes"), ("text", "1", None, None, "Hello")]


def test_a_refusal_is_the_finish_reason(server: ProviderServer, tape: TapeReader) -> None:
    read(server, [Text("I "), Finish("content_filter"), Usage(5, 1)])
    assert (tape.call()["status"], tape.call()["finish_reason"], tape.text()) == ("completed", "refusal", "I ")


@pytest.mark.scenario("adapters/Usage only when it comes")
def test_cumulative_usage_is_overwritten_and_never_added(server: ProviderServer, tape: TapeReader) -> None:
    at_first = begin(input_tokens=25, cache_read_input_tokens=100, cache_creation_input_tokens=None, output_tokens=1)
    words = [block(0, "text", text=""), delta(0, "text_delta", text="a")]
    on_the_way = end(None, output_tokens=5, input_tokens=None)
    at_last = end("end_turn", output_tokens=9, output_tokens_details={"thinking_tokens": 4})
    read(server, [at_first, *words, on_the_way, delta(0, "text_delta", text="b"), at_last, LAST])
    call = tape.call()
    assert [call[name] for name in ("input_tokens", "cached_input_tokens", "cache_write_tokens")] == [125, 100, None]
    assert (call["output_tokens"], call["reasoning_tokens"], call["token_count"]) == (9, 4, 9)
    assert json.loads(call["usage_json"]) == {
        "input_tokens": 25,
        "cache_read_input_tokens": 100,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }


def test_a_stream_left_early_has_its_input_but_no_output_count(server: ProviderServer, tape: TapeReader) -> None:
    words = [delta(0, "text_delta", text=text) for text in "abc"]
    read(server, [begin(input_tokens=25, output_tokens=1), block(0, "text", text=""), *words, LAST], limit=4)
    call = tape.call()
    assert (call["status"], tape.text()) == ("abandoned", "ab")
    assert (call["input_tokens"], call["output_tokens"], call["token_count"]) == (25, None, None)


def test_the_count_before_the_first_word_is_never_the_answers(server: ProviderServer, tape: TapeReader) -> None:
    read(server, [begin(input_tokens=25, output_tokens=1), delta(0, "text_delta", text="a"), end("end_turn"), LAST])
    call = tape.call()
    assert (call["status"], call["input_tokens"], call["output_tokens"]) == ("completed", 25, None)


def test_a_stream_left_after_its_last_event_is_complete(server: ProviderServer, tape: TapeReader) -> None:
    read(server, [BEGIN, block(0, "text", text=""), delta(0, "text_delta", text="a"), end("end_turn"), LAST], limit=5)
    assert tape.call()["status"] == "completed"


def session(server: ProviderServer, events: list[dict[str, Any]], asynchronous: bool, thread: bool = False) -> Any:
    path = "/sessions/sesn_1/threads/sthr_1/stream" if thread else "/sessions/sesn_1/events/stream"
    body = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    server.add([Raw(body)], path=path)

    async def ask(client: Any) -> list[Any]:
        resource = client.beta.sessions
        if thread:
            return await read_whole(resource.threads.events, lambda ask: ask("sthr_1", session_id="sesn_1"), "stream")
        return await read_whole(resource.events, lambda ask: ask("sesn_1", event_deltas=["agent.message"]), "stream")

    return use(client_for(server, asynchronous), ask)


def content_delta(event_id: str, text: str, index: int = 0) -> dict[str, Any]:
    content = {"type": "content_delta", "index": index, "content": {"type": "text", "text": text}}
    return {"type": "event_delta", "event_id": event_id, "delta": content}


def message(event_id: str, *texts: str) -> dict[str, Any]:
    return {"type": "agent.message", "id": event_id, "content": [{"type": "text", "text": text} for text in texts]}


IDLE = {"type": "session.status_idle", "id": "e_9", "stop_reason": {"type": "end_turn"}}


@both
@pytest.mark.parametrize("thread", [False, True], ids=["session", "thread"])
def test_a_session_is_recorded_delta_by_delta(
    thread: bool, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    events = [
        {"type": "session.status_running", "id": "e_0"},
        {"type": "event_start", "event": {"type": "agent.message", "id": "e_1"}},
        content_delta("e_1", "Hel"),
        content_delta("e_1", "lo"),
        content_delta("e_1", "again", 1),
        message("e_1", "Hello", "again"),
        {"type": "agent.tool_use", "id": "e_2", "name": "bash", "input": {"command": "ls"}},
        message("e_3", "Done."),
        IDLE,
    ]
    seen = session(server, events, asynchronous, thread)
    call = tape.call()
    assert [event.type for event in seen] == [event["type"] for event in events]
    assert parts(tape) == [
        ("text", "e_1/0", None, "e_1", "Hello"),
        ("text", "e_1/1", None, "e_1", "again"),
        ("tool_args", "e_2", "bash", "e_2", ""),
        ("text", "e_3/0", None, "e_3", "Done."),
    ]
    assert [row["token"] for row in tape.tokens()] == ["Hel", "lo", "again", "Done."]
    assert (call["operation"], call["streaming"], call["status"], call["finish_reason"]) == (
        *("session", 1, "completed", "end_turn"),
    )
    assert (call["request_model"], call["output_tokens"], call["chunk_count"]) == (None, None, len(events))


@pytest.mark.parametrize(("retry", "status"), [("retrying", "completed"), ("exhausted", "error")])
def test_a_session_error_counts_once_nothing_is_tried_again(
    retry: str, status: str, server: ProviderServer, tape: TapeReader
) -> None:
    error = {"type": "model_overloaded_error", "message": "Overloaded", "retry_status": {"type": retry}}
    session(server, [{"type": "session.error", "id": "e_1", "error": error}, IDLE], False)
    call = tape.call()
    assert (call["status"], call["error_type"]) == (status, "model_overloaded_error" if status == "error" else None)
