"""What each chunk of OpenAI's three formats adds to the tape, as OpenAI and the servers that imitate it send them.

Everything holds for the chunks that the SDK makes, and for the bytes where the program reads those.
"""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

import tokentape
from hostile_chunks import chunk, said
from openai_surfaces import MESSAGES, MODEL, chat, client_for, completion, responses
from surfaces import direct, drain, lines, use
from tape_reader import TapeReader
from tokentape.testing import (
    ErrorEvent,
    Finish,
    Logprob,
    Ping,
    ProviderServer,
    Raw,
    Reasoning,
    Refusal,
    Role,
    Summary,
    Text,
    Usage,
)
from tokentape.testing.rig import resolved

both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
RESOURCES = {
    "chat": (lambda client: client.chat.completions, chat),
    "text_completion": (lambda client: client.completions, completion),
    "responses": (lambda client: client.responses, responses),
}
as_bytes = False


@pytest.fixture(autouse=True, params=[False, True], ids=["chunks", "bytes"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.as_bytes", request.param)


def tool(index: Any, call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    """One entry of `tool_calls`; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    entry = {"index": index, "id": call_id, "type": "function", "function": function}
    return {key: value for key, value in entry.items() if value is not None}


def stream(server: ProviderServer, steps: list[Any], operation: str = "chat", asynchronous: bool = False) -> list[Any]:
    """Read a script to its end; steps that are no events are sent as they are."""
    server.add([step if hasattr(step, "__dataclass_fields__") else Raw(step) for step in steps])

    async def read(client: Any) -> list[Any]:
        resource, ask = RESOURCES[operation]
        if as_bytes:
            return await lines(ask(resource(client).with_streaming_response.create))
        return await direct(ask(resource(client).create))

    return use(client_for(server, asynchronous), read)


def parts(tape: TapeReader) -> list[tuple[Any, ...]]:
    """Parts without their numbers: kind, choice, provider's index, name, id, content."""
    columns = ("kind", "choice", "provider_index", "name", "external_id", "content")
    return [tuple(part[column] for column in columns) for part in tape.parts()]


@pytest.mark.scenario("adapters/Two choices with tools")
def test_two_choices_with_two_tools_each_in_fragments(server: ProviderServer, tape: TapeReader) -> None:
    def piece(choice: int, index: int, arguments: str) -> dict[str, Any]:
        return tool(index, f"call_{choice}{index}", f"tool_{choice}{index}", arguments)

    chunks = [chunk(said("", role="assistant", choice=choice)) for choice in (0, 1)]
    for fragment in ('{"a"', ":", "[1,", '"é"]}'):
        for index in (0, 1):
            chunks += [chunk(said(choice=choice, tool_calls=[piece(choice, index, fragment)])) for choice in (1, 0)]
    chunks.append(chunk(said(choice=1, tool_calls=[piece(1, 1, " "), piece(1, 0, "\t"), piece(1, 1, "\n")])))
    chunks += [chunk(said(choice=choice, finish="tool_calls")) for choice in (0, 1)]
    stream(server, chunks)

    whole = '{"a":[1,"é"]}'
    assert sorted(parts(tape)) == [
        ("tool_args", 0, "0", "tool_00", "call_00", whole),
        ("tool_args", 0, "1", "tool_01", "call_01", whole),
        ("tool_args", 1, "0", "tool_10", "call_10", whole + "\t"),
        ("tool_args", 1, "1", "tool_11", "call_11", whole + " \n"),
    ]
    rows = tape.tokens()
    assert [(row["choice"], row["token"]) for row in rows[-2:]] == [(1, " \n"), (1, "\t")]
    assert rows[-1]["timestamp_ms"] == rows[-2]["timestamp_ms"]
    assert rows[-1]["wait_ms"] == 0
    assert (tape.call()["event_count"], tape.call()["chunk_count"]) == (18, 21)


@pytest.mark.scenario("adapters/Two choices with tools")
def test_a_tool_call_without_arguments_has_its_part(server: ProviderServer, tape: TapeReader) -> None:
    stream(server, [chunk(said(tool_calls=[tool(0, "call_1", "ping", "")])), chunk(said(finish="tool_calls"))])
    assert parts(tape) == [("tool_args", 0, "0", "ping", "call_1", "")]
    assert tape.tokens() == []


def test_tools_without_an_index_are_told_apart_by_id_or_place(server: ProviderServer, tape: TapeReader) -> None:
    whole = [tool(None, "call_a", "first", '{"x":1}'), tool(None, "call_b", "second", "{}")]
    nameless = [tool(None, None, "third", "[]"), tool(None, None, "fourth", "[2]")]
    stream(server, [chunk(said(tool_calls=whole)), chunk(said(tool_calls=nameless))])
    assert parts(tape) == [
        ("tool_args", 0, "call_a", "first", "call_a", '{"x":1}'),
        ("tool_args", 0, "call_b", "second", "call_b", "{}"),
        ("tool_args", 0, "0", "third", None, "[]"),
        ("tool_args", 0, "1", "fourth", None, "[2]"),
    ]


def test_an_id_that_is_a_number_and_a_name_that_is_a_list_cost_no_part(
    server: ProviderServer, tape: TapeReader
) -> None:
    odd: Any = [tool(0, None, None, "{}") | {"id": 7}, tool([1], None, None, "[]")]
    odd[1]["function"]["name"] = ["no", "name"]
    stream(server, [chunk(said(tool_calls=odd)), chunk(said(finish="tool_calls"))])
    assert parts(tape) == [("tool_args", 0, "0", None, "7", "{}"), ("tool_args", 0, "[1]", None, None, "[]")]


def test_custom_tools_and_the_old_function_call_are_tool_arguments(server: ProviderServer, tape: TapeReader) -> None:
    custom = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    stream(
        server,
        [
            chunk(said(tool_calls=[custom])),
            chunk(said(function_call={"name": "old", "arguments": "{"})),
            chunk(said(function_call={"arguments": "}"})),
        ],
    )
    assert parts(tape) == [
        ("tool_args", 0, "0", "sh", "call_1", "ls"),
        ("tool_args", 0, "function_call", "old", None, "{}"),
    ]


@pytest.mark.scenario("adapters/Reasoning under any name")
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_chat_is_a_part_of_its_own(field: str, server: ProviderServer, tape: TapeReader) -> None:
    stream(server, [Role(), Reasoning("hm ", field), Reasoning("ah", field), Text("so"), Finish("stop")])
    assert parts(tape) == [("reasoning", 0, None, None, None, "hm ah"), ("text", 0, None, None, None, "so")]


@pytest.mark.scenario("adapters/Reasoning under any name")
def test_reasoning_sent_twice_under_two_names_counts_once(server: ProviderServer, tape: TapeReader) -> None:
    details = [{"type": "reasoning.text", "text": "hm"}]
    stream(
        server,
        [chunk(said(None, reasoning="hm", reasoning_content="hm", reasoning_details=details)), chunk(said("so"))],
    )
    assert parts(tape) == [("reasoning", 0, None, None, None, "hm"), ("text", 0, None, None, None, "so")]


@pytest.mark.scenario("adapters/Reasoning under any name")
def test_reasoning_of_responses_and_each_summary_are_parts_of_their_own(
    server: ProviderServer, tape: TapeReader
) -> None:
    steps = [
        Reasoning("hm "),
        Reasoning("ah"),
        Summary(0, "First"),
        Summary(0, " part"),
        Summary(1, "Second"),
        Text("so"),
    ]
    stream(server, [*steps, Finish("stop")], "responses")
    assert [part[:4] + part[5:] for part in parts(tape)] == [
        ("reasoning", 0, "0/0", None, "hm ah"),
        ("reasoning", 0, "0/0", "summary", "First part"),
        ("reasoning", 0, "0/1", "summary", "Second"),
        ("text", 0, "1/0", None, "so"),
    ]


@pytest.mark.scenario("adapters/Reasoning under any name")
def test_reasoning_in_a_list_of_content_parts(server: ProviderServer, tape: TapeReader) -> None:
    """As Mistral's reasoning models send it."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm "}, {"type": "text", "text": "ah"}]}
    stream(server, [chunk(said([thinking])), chunk(said([{"type": "text", "text": "so"}])), chunk(said(" be it"))])
    assert parts(tape) == [("reasoning", 0, None, None, None, "hm ah"), ("text", 0, None, None, None, "so be it")]


@pytest.mark.scenario("adapters/Hostile chunks")
@pytest.mark.parametrize("logprobs", [5, "five", {"content": 5}, {"content": [5, None]}, {"tokens": 5}])
@pytest.mark.parametrize("operation", ["chat", "text_completion"])
def test_text_beside_unreadable_log_probabilities_is_kept(
    logprobs: Any, operation: str, server: ProviderServer, tape: TapeReader, caplog: pytest.LogCaptureFixture
) -> None:
    choice = {"index": 0, "delta": {"content": "a"}, "text": "a", "logprobs": logprobs}
    stream(server, [chunk(choice), Text("b"), Finish("stop")], operation)
    assert (tape.text(), caplog.records) == ("ab", [])


def test_a_whole_answers_finish_reasons_are_in_order_of_choice(server: ProviderServer, tape: TapeReader) -> None:
    choices = [{"index": 1, "finish_reason": "length"}, {"index": 0, "finish_reason": "stop"}, None, 5]
    server.add([Raw({"id": "chatcmpl-1", "choices": choices})])

    async def ask(client: Any) -> None:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)

    use(client_for(server, False), ask)
    assert tape.call()["finish_reason"] == '["stop", "length"]'


def test_frames_of_azure_and_padding_add_nothing(server: ProviderServer, tape: TapeReader) -> None:
    filters = {"hate": {"filtered": False, "severity": "safe"}}
    prompt = {"prompt_index": 0, "content_filter_results": filters}
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [prompt]}
    late = {
        "index": 0,
        "finish_reason": None,
        "content_filter_offsets": {"start_offset": 1},
        "content_filter_results": filters,
    }
    stream(
        server,
        [
            first,
            chunk(said("", role="assistant", refusal=None), obfuscation="kdjf83"),
            Ping("OPENROUTER PROCESSING"),
            chunk(said("Hel"), obfuscation="a"),
            chunk(late),
            chunk(said("lo", role=None), obfuscation="Xx9"),
            chunk(said(finish="stop")),
        ],
    )
    call = tape.call()
    assert parts(tape) == [("text", 0, None, None, None, "Hello")]
    assert (call["response_id"], call["response_model"], call["finish_reason"]) == ("chatcmpl-1", "gpt-x", "stop")
    assert (call["chunk_count"], call["event_count"]) == (6, 2)


@pytest.mark.parametrize("operation", ["chat", "responses"])
def test_a_refusal_is_a_part_of_its_own(operation: str, server: ProviderServer, tape: TapeReader) -> None:
    stream(server, [Text("Well, "), Refusal("I can"), Refusal("not"), Finish("stop")], operation)
    assert [(part[0], part[5]) for part in parts(tape)] == [("text", "Well, "), ("refusal", "I cannot")]


def test_a_transcript_is_kept_and_audio_is_not(server: ProviderServer, tape: TapeReader) -> None:
    audio = [{"id": "a1"}, {"transcript": "Good "}, {"data": "UklGRg=="}, {"transcript": "day", "data": "AAAA"}]
    stream(server, [*(chunk(said(audio=piece)) for piece in audio), chunk(said(finish="stop"))])
    assert parts(tape) == [("audio_transcript", 0, None, None, None, "Good day")]


DELTA_EVENTS = [
    ("function_call", "function_call_arguments", "delta", {}),
    ("mcp_call", "mcp_call_arguments", "delta", {}),
    ("mcp_call", "mcp_call.arguments", "delta", {}),
    ("custom_tool_call", "custom_tool_call_input", "delta", {}),
    ("code_interpreter_call", "code_interpreter_call_code", "delta", {}),
    ("code_interpreter_call", "code_interpreter_call.code", "delta", {}),
    ("apply_patch_call", "apply_patch_call_operation_diff", "delta", {}),
    ("shell_call", "shell_call_command", "delta", {"command_index": 0}),
]


@pytest.mark.parametrize(("item", "event", "field", "more"), DELTA_EVENTS, ids=[event for _, event, *_ in DELTA_EVENTS])
def test_what_tools_are_given_is_tool_arguments(
    item: str, event: str, field: str, more: dict[str, Any], server: ProviderServer, tape: TapeReader
) -> None:
    place = {"output_index": 2, "item_id": "item_1"} | more
    announced = {"type": item, "id": "item_1", "call_id": "call_1", "name": "look"}
    stream(
        server,
        [
            {"type": "response.output_item.added", "output_index": 2, "item": announced},
            *({"type": f"response.{event}.delta", **place, field: piece} for piece in ("ls ", "-l")),
            {"type": f"response.{event}.done", **place, "arguments": "ls -l", "input": "ls -l", "code": "ls -l"},
            Finish("stop"),
        ],
        "responses",
    )
    index = "2/0" if more else "2"
    assert parts(tape) == [("tool_args", 0, index, "look", "call_1", "ls -l")]


def test_arguments_that_come_whole_without_a_delta_are_kept(server: ProviderServer, tape: TapeReader) -> None:
    place = {"output_index": 0, "item_id": "fc_1"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}
    stream(
        server,
        [
            {"type": "response.output_item.added", "output_index": 0, "item": call},
            {"type": "response.function_call_arguments.done", **place, "arguments": "{}"},
            Finish("stop"),
        ],
        "responses",
    )
    assert parts(tape) == [("tool_args", 0, "0", "look", "call_1", "{}")]


def test_encrypted_content_images_audio_and_citations_are_no_text(server: ProviderServer, tape: TapeReader) -> None:
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAsecret"}
    stream(
        server,
        [
            {"type": "response.output_item.added", "output_index": 0, "item": reasoning},
            {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
            {"type": "response.image_generation_call.partial_image", **place, "partial_image_b64": "iVBOR"},
            {"type": "response.audio.delta", "delta": "UklGRg=="},
            {"type": "response.audio.transcript.delta", "delta": "Good day", "output_index": 1},
            {"type": "response.output_text.annotation.added", **place, "annotation": {"url": "https://example.com"}},
            Text("so"),
            Finish("stop"),
        ],
        "responses",
    )
    assert [(part[0], part[5]) for part in parts(tape)] == [("audio_transcript", "Good day"), ("text", "so")]
    on_tape = json.dumps(tape.rows("select * from llm_calls")) + json.dumps(tape.parts())
    assert not [word for word in ("gAAAA", "iVBOR", "UklGRg", "example.com") if word in on_tape]


def test_text_of_two_messages_of_one_response_is_two_parts(server: ProviderServer, tape: TapeReader) -> None:
    stream(server, [Text("a", 0), Text("b", 1), Text("c", 0), Text("d", 1), Finish("stop")], "responses")
    assert [(part[2], part[5]) for part in parts(tape)] == [("0/0", "ac"), ("1/0", "bd")]


HALVES = (Logprob("\\xc3", -0.1, b"\xc3"), Logprob("\\xa9", -0.2, b"\xa9", top=(("e", -3.0),)))


@pytest.mark.parametrize("operation", ["chat", "responses"])
def test_log_probabilities_say_how_many_tokens_an_event_holds(
    operation: str, server: ProviderServer, tmp_path: Any
) -> None:
    tokentape.enable(db=tmp_path / "full.db", content="full")
    one = Logprob("a", -0.5)
    stream(server, [Text("a", logprobs=(one,)), Text("é", logprobs=HALVES), Text("b"), Finish("stop")], operation)
    tape = TapeReader(tmp_path / "full.db")
    rows = tape.rows("select token, n_tokens from llm_tokens order by token_index")
    assert [tuple(row.values()) for row in rows] == [("a", 1), ("é", 2), ("b", None)]
    kept = {
        row["token_index"]: json.loads(row["logprobs_json"]) for row in tape.rows("select * from llm_token_logprobs")
    }
    assert kept.keys() == {0, 1}
    assert [(entry["token"], entry["logprob"], entry["bytes"]) for entry in kept[1]] == [
        ("\\xc3", -0.1, [0xC3]),
        ("\\xa9", -0.2, [0xA9]),
    ]
    assert kept[1][1]["top_logprobs"][0]["token"] == "e"
    # One event came without: then nobody knows how many tokens the answer has.
    assert (tape.call()["token_count"], tape.call()["token_count_source"]) == (None, None)


def test_log_probabilities_of_legacy_completions(server: ProviderServer, tmp_path: Any) -> None:
    tokentape.enable(db=tmp_path / "full.db", content="full")
    pair = (Logprob("a", -0.5), Logprob("b", -0.25))
    stream(server, [Text("ab", logprobs=pair), Finish("stop")], "text_completion")
    tape = TapeReader(tmp_path / "full.db")
    assert [row["n_tokens"] for row in tape.rows("select n_tokens from llm_tokens")] == [2]
    (kept,) = [json.loads(row["logprobs_json"]) for row in tape.rows("select * from llm_token_logprobs")]
    assert (kept[0]["tokens"], kept[0]["token_logprobs"]) == (["a", "b"], [-0.5, -0.25])


@both
@pytest.mark.scenario("adapters/Usage only when it comes")
def test_usage_is_kept_only_where_the_program_asked_for_it(
    asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    answer = [Text("a"), Finish("stop")]
    server.add(
        answer,
        [*answer, Usage(25, 9, cached=5, cache_write=2, reasoning=4)],
        answer,
        [*answer, Usage(7, 3, reasoning=1)],
    )
    asked: list[Any] = [None, {"include_usage": True}, {"include_usage": False}]

    async def ask(client: Any) -> None:
        for options in asked:
            given = {"stream_options": options} if options else {}
            create = client.chat.completions.create
            await drain(await resolved(create(model=MODEL, messages=MESSAGES, stream=True, **given)))
        await drain(await resolved(responses(client.responses.create)))

    use(client_for(server, asynchronous), ask)
    assert [request.json.get("stream_options") for request in server.requests[:3]] == asked
    names = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    assert [tuple(call[name] for name in names) for call in tape.calls()] == [
        (None,) * 5,
        (25, 5, 2, 9, 4),
        (None,) * 5,
        (7, 0, 0, 3, 1),
    ]
    assert [call["usage_json"] is None for call in tape.calls()] == [True, False, True, False]


@pytest.mark.scenario("adapters/Usage on every chunk")
def test_of_usage_on_every_chunk_the_last_is_kept(server: ProviderServer, tape: TapeReader) -> None:
    def usage(count: int) -> dict[str, Any]:
        return {"prompt_tokens": 30, "completion_tokens": count, "total_tokens": 30 + count, "cost": 0.5 * count}

    stream(
        server, [chunk(said(f"w{n} "), usage=usage(n)) for n in range(1, 6)] + [chunk(said(finish="stop"), usage=None)]
    )
    call = tape.call()
    assert (call["input_tokens"], call["output_tokens"], call["token_count"]) == (30, 5, 5)
    assert json.loads(call["usage_json"]).items() >= usage(5).items()
    assert (call["event_count"], tape.text()) == (5, "w1 w2 w3 w4 w5 ")


def test_usage_where_groq_puts_it(server: ProviderServer, tape: TapeReader) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 4, "total_time": 0.01}
    stream(server, [chunk(said("a")), chunk(said(finish="stop"), x_groq={"id": "req_1", "usage": usage})])
    assert (tape.call()["input_tokens"], tape.call()["output_tokens"]) == (11, 4)


@pytest.mark.scenario("adapters/Several finish reasons")
@pytest.mark.parametrize("operation", ["chat", "text_completion"])
def test_finish_reasons_are_listed_in_order_of_choice(operation: str, server: ProviderServer, tape: TapeReader) -> None:
    two = [Text("a", 0), Text("b", 1), Finish("length", 1), Finish("stop", 0)]
    stream(server, two, operation)
    stream(server, [Text("a"), Finish("length")], operation)
    assert [call["finish_reason"] for call in tape.calls()] == ['["stop", "length"]', "length"]


@pytest.mark.scenario("adapters/Terminal events of Responses")
@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([Finish("stop")], "completed", "completed"),
        ([Finish("length")], "completed", "max_output_tokens"),
        ([Finish("content_filter")], "completed", "content_filter"),
        ([Finish("failed")], "error", "failed"),
        ([{"type": "response.cancelled", "response": {"id": "r", "status": "cancelled"}}], "cancelled", "cancelled"),
        ([ErrorEvent("server_error", "it broke", "overloaded")], "error", None),
    ],
    ids=["completed", "incomplete", "filtered", "failed", "cancelled", "error"],
)
@both
def test_the_terminal_event_of_a_response_decides(
    steps: list[Any], status: str, reason: str | None, asynchronous: bool, server: ProviderServer, tape: TapeReader
) -> None:
    try:
        stream(server, [Text("a"), *steps], "responses", asynchronous)
    except openai.APIError:
        assert isinstance(steps[0], ErrorEvent)
    call = tape.call()
    assert (call["status"], call["finish_reason"], call["event_count"]) == (status, reason, 1)
    assert (call["error_type"] is not None) is (status == "error")


def test_what_a_failed_response_says_is_kept(server: ProviderServer, tape: TapeReader) -> None:
    stream(server, [Text("a"), Finish("failed")], "responses")
    assert (tape.call()["error_type"], tape.call()["error_message"]) == ("server_error", "scripted failure")


@pytest.mark.parametrize("finishes", [1, 2])
def test_of_two_choices_both_have_to_finish(finishes: int, server: ProviderServer, tape: TapeReader) -> None:
    """A reader that leaves after every choice's finish reason has the whole answer."""
    server.add(
        [Text("a", 0), Text("b", 1), *(Finish("stop", n) for n in range(finishes)), Text("more"), (5.0, Text("late"))]
    )

    async def leave(client: Any) -> None:
        with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, n=2) as chunks:
            for _ in range(2 + finishes):
                next(chunks)

    use(client_for(server, False), leave)
    assert tape.call()["status"] == ("abandoned" if finishes == 1 else "completed")
