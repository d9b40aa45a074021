"""The wire formats of the provider server, read by the real OpenAI SDK and its stricter stream helpers."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tokentape.testing import (
    ErrorEvent,
    Finish,
    Logprob,
    ProviderServer,
    Reasoning,
    Refusal,
    Role,
    Summary,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)

TOOLS = [
    Role(),
    ToolCall(0, "call_a", "add"),
    ToolArgs(0, '{"x":'),
    ToolCall(1, "call_b", "sub"),
    ToolArgs(1, '{"y":2}'),
    ToolArgs(0, "1}"),
    Finish("tool_calls"),
    Usage(20, 9),
]
THOUGHTFUL = [
    Role(),
    Summary(0, "First "),
    Summary(0, "part"),
    Summary(1, "Second"),
    Text("Hel"),
    Text("lo"),
    Finish(),
    Usage(12, 30, cached=4, reasoning=20),
]
E_ACUTE = (Logprob("\\xc3", -0.5, b"\xc3", top=(("e", -1.5),)), Logprob("\\xa9", -0.25, b"\xa9"))


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def client(server: ProviderServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=20) as client:
        yield client


def chat(client, **more):
    return client.chat.completions.create(model="m", messages=[], **more)


def test_chat_chunks_are_those_of_the_script_one_by_one(server, client):
    server.add([Role(), Text("Hel"), Text("lo"), Finish("length"), Usage(12, 2, cached=3)])

    chunks = [chunk.model_dump(exclude_unset=True) for chunk in chat(client, stream=True)]

    head = {
        "id": "chatcmpl-000001",
        "object": "chat.completion.chunk",
        "created": 1_793_000_000,
        "model": "m",
        "system_fingerprint": "fp_scripted",
    }
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
    assert chunks == [
        {**head, "choices": [{**choice, "delta": {"role": "assistant", "content": "", "refusal": None}}]},
        {**head, "choices": [{**choice, "delta": {"content": "Hel"}}]},
        {**head, "choices": [{**choice, "delta": {"content": "lo"}}]},
        {**head, "choices": [{**choice, "delta": {}, "finish_reason": "length"}]},
        {**head, "choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 3}}},
    ]


def test_usage_is_sent_only_where_the_script_says_so(server, client):
    server.add([Text("Hi"), Finish()])

    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))

    assert [chunk.usage for chunk in chunks] == [None, None]


def test_chat_helper_assembles_parallel_tool_calls_from_interleaved_arguments(server, client):
    server.add(TOOLS)

    with client.chat.completions.stream(model="m", messages=[]) as stream:
        completion = stream.get_final_completion()

    (choice,) = completion.choices
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert calls == [("call_a", "add", '{"x":1}'), ("call_b", "sub", '{"y":2}')]
    assert (choice.finish_reason, completion.usage.total_tokens) == ("tool_calls", 29)


async def test_chat_helper_keeps_interleaved_choices_apart_in_asyncio_too(server):
    server.add([Text("a"), Text("x", choice=1), Text("b"), Finish(), Refusal("no", choice=1), Finish("tool_calls", 1)])

    async with (
        openai.AsyncOpenAI(base_url=server.url, api_key="none") as client,
        client.chat.completions.stream(model="m", messages=[], n=2) as stream,
    ):
        choices = (await stream.get_final_completion()).choices

    assert [(choice.index, choice.message.role, choice.finish_reason) for choice in choices] == [
        (0, "assistant", "stop"),
        (1, "assistant", "tool_calls"),
    ]
    assert [(choice.message.content, choice.message.refusal) for choice in choices] == [("ab", None), ("x", "no")]


def test_chat_reasoning_comes_in_the_unofficial_fields(server, client):
    server.add([Reasoning("deep"), Reasoning("seek", field="reasoning"), Text("Hi"), Finish()])

    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chat(client, stream=True)]

    assert deltas == [
        {"role": "assistant", "reasoning_content": "deep"},
        {"reasoning": "seek"},
        {"content": "Hi"},
        {},
    ]


def test_chat_logprobs_can_hold_half_a_character(server, client):
    server.add([Text("é", logprobs=E_ACUTE)])

    (chunk,) = chat(client, stream=True)

    content = [item.model_dump() for item in chunk.choices[0].logprobs.content]
    top = [{"token": "e", "logprob": -1.5, "bytes": [101]}]
    assert content == [
        {"token": "\\xc3", "logprob": -0.5, "bytes": [0xC3], "top_logprobs": top},
        {"token": "\\xa9", "logprob": -0.25, "bytes": [0xA9], "top_logprobs": []},
    ]


def test_chat_text_can_hold_half_an_emoji_and_control_characters(server, client):
    server.add([Text("\ud83d"), Text("\ude00"), Text("\x00\x1b[31m\x9b\n")])

    pieces = [chunk.choices[0].delta.content for chunk in chat(client, stream=True)]

    assert pieces == ["\ud83d", "\ude00", "\x00\x1b[31m\x9b\n"]


def test_chat_in_one_piece_holds_what_the_stream_holds(server, client):
    server.add(
        [Reasoning("hm"), *TOOLS], [Text("a", logprobs=E_ACUTE), Text("x", choice=1), Finish(), Finish("stop", 1)]
    )

    called, two = chat(client), chat(client, n=2)

    message = called.choices[0].message
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]
    assert calls == [("call_a", "add", '{"x":1}'), ("call_b", "sub", '{"y":2}')]
    assert (message.content, message.reasoning_content, called.usage.completion_tokens) == (None, "hm", 9)
    assert [(c.index, c.message.content, c.finish_reason) for c in two.choices] == [(0, "a", "stop"), (1, "x", "stop")]
    assert (two.usage, [item.logprob for item in two.choices[0].logprobs.content]) == (None, [-0.5, -0.25])


def test_legacy_completions_are_streamed_and_come_in_one_piece(server, client):
    script = [
        Text("Hel", logprobs=(Logprob("He", -0.5), Logprob("l", -1.0))),
        Text("x", 1),
        Text("lo"),
        Finish("length"),
    ]
    server.add([*script, Usage(3, 4)], [*script, Usage(3, 4)])

    chunks = list(client.completions.create(model="m", prompt="Say", stream=True))
    whole = client.completions.create(model="m", prompt="Say")

    choices = [(c.index, c.text, c.finish_reason) for chunk in chunks for c in chunk.choices]
    assert choices == [(0, "Hel", None), (1, "x", None), (0, "lo", None), (0, "", "length")]
    assert chunks[0].choices[0].logprobs.model_dump() == {
        "tokens": ["He", "l"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{}, {}],
        "text_offset": [0, 2],
    }
    assert [chunk.usage and chunk.usage.total_tokens for chunk in chunks] == [None, None, None, None, 7]
    assert [(c.index, c.text, c.finish_reason) for c in whole.choices] == [(0, "Hello", "length"), (1, "x", None)]


def test_responses_announce_and_close_items_and_parts_in_order(server, client):
    server.add(THOUGHTFUL)

    events = list(client.responses.create(model="m", input="Hi", stream=True))

    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(21))
    assert [event.text for event in events if event.type.endswith("_text.done")] == ["First part", "Second", "Hello"]
    assert all(sent.data.startswith(b"event: response.") for sent in server.sent)


def test_responses_helper_accepts_summaries_text_and_tool_calls(server, client):
    server.add([*THOUGHTFUL[:6], *TOOLS[1:-2], Finish(), Usage(12, 30, cached=4, reasoning=20)])

    with client.responses.stream(model="m", input="Hi") as stream:
        response = stream.get_final_response()

    reasoning, message, *calls = response.output
    assert [part.text for part in reasoning.summary] == ["First part", "Second"]
    assert (message.id, response.output_text) == ("msg_000001_1", "Hello")
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        ("call_a", "add", '{"x":1}'),
        ("call_b", "sub", '{"y":2}'),
    ]
    assert {item.status for item in response.output} == {"completed"}
    assert (response.status, response.usage.output_tokens_details.reasoning_tokens) == ("completed", 20)
    assert response.usage.input_tokens_details.cached_tokens == 4


async def test_responses_helper_accepts_reasoning_and_refusal_in_asyncio_too(server):
    server.add([Reasoning("hm"), Refusal("I "), Refusal("won't"), Finish()])

    async with (
        openai.AsyncOpenAI(base_url=server.url, api_key="none") as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        deltas = [event.delta async for event in stream if event.type.endswith(".delta")]
        response = await stream.get_final_response()

    reasoning, message = response.output
    assert deltas == ["hm", "I ", "won't"]
    assert (reasoning.content[0].text, message.content[0].refusal, response.usage) == ("hm", "I won't", None)


def test_responses_count_contents_and_summaries_apart_and_repeat_logprobs(server, client):
    server.add([Summary(0, "why"), Reasoning("hm"), Text("é", logprobs=E_ACUTE), Text("!"), Finish()])

    events = list(client.responses.create(model="m", input="Hi", stream=True))

    deltas = [event for event in events if event.type.endswith(".delta")]
    done = next(event for event in events if event.type == "response.output_text.done")
    assert deltas[0].summary_index == 0
    assert [event.content_index for event in deltas[1:]] == [0, 0, 0]
    assert [[item.logprob for item in event.logprobs] for event in (*deltas[2:], done)] == [
        [-0.5, -0.25],
        [],
        [-0.5, -0.25],
    ]


@pytest.mark.parametrize(
    ("script", "last", "status", "details"),
    [
        ([Finish("length")], "response.incomplete", "incomplete", {"reason": "max_output_tokens"}),
        ([Finish("content_filter"), Usage(1, 1)], "response.incomplete", "incomplete", {"reason": "content_filter"}),
        ([ErrorEvent("server_error", "oops"), Finish("failed")], "response.failed", "failed", None),
    ],
)
def test_responses_end_as_the_script_finishes(server, client, script, last, status, details):
    server.add([Text("Hel"), *script])

    *_, event = client.responses.create(model="m", input="Hi", stream=True)

    response = event.response
    assert (event.type, response.status) == (last, status)
    assert (response.incomplete_details and response.incomplete_details.model_dump(exclude_unset=True)) == details
    assert (response.error and response.error.message) == ("oops" if status == "failed" else None)
    assert (response.output[0].status, response.output_text) == ("incomplete", "Hel")


def test_responses_error_event_is_a_value_and_without_finish_nothing_ends(server, client):
    server.add([Text("Hel"), ErrorEvent("server_error", "overloaded", "e17")])

    *_, delta, error = client.responses.create(model="m", input="Hi", stream=True)

    assert (delta.type, delta.logprobs) == ("response.output_text.delta", [])
    assert (error.type, error.code, error.message, error.sequence_number) == ("error", "e17", "overloaded", 5)


def test_responses_can_be_retrieved_from_any_event_on(server, client):
    server.add(THOUGHTFUL, THOUGHTFUL)

    everything = list(client.responses.retrieve("resp_mine", stream=True))
    rest = list(client.responses.retrieve("resp_mine", stream=True, starting_after=15))

    assert [event.sequence_number for event in rest] == [16, 17, 18, 19, 20]
    assert rest == everything[16:]
    assert rest[-1].response.id == "resp_mine"
    assert [request.method for request in server.requests] == ["GET", "GET"]


def test_responses_in_one_piece_hold_what_the_stream_holds(server, client):
    server.add(THOUGHTFUL, [Text("Hel"), Finish("length")], [Text("Hel")])

    response, short, unfinished = [client.responses.create(model="m", input="Hi") for _ in range(3)]

    assert [part.text for part in response.output[0].summary] == ["First part", "Second"]
    assert (response.output_text, response.status, response.usage.output_tokens) == ("Hello", "completed", 30)
    assert (unfinished.status, unfinished.output[0].status) == ("completed", "completed")
    assert (short.output_text, short.status, short.incomplete_details.reason) == (
        "Hel",
        "incomplete",
        "max_output_tokens",
    )


def test_responses_refuse_arguments_of_a_tool_call_that_was_not_announced(server, client):
    server.add([ToolArgs(3, "{}")])

    with pytest.raises(openai.UnprocessableEntityError, match=r"ToolArgs\(3, …\) before ToolCall\(3, …\)"):
        client.responses.create(model="m", input="Hi")


def test_error_event_is_a_status_500_where_no_stream_was_asked_for(server, client):
    server.add([Text("Hel"), ErrorEvent("server_error", "overloaded")], [ErrorEvent("server_error", "overloaded")])

    with pytest.raises(openai.InternalServerError, match="overloaded"):
        chat(client)
    with pytest.raises(openai.InternalServerError, match="overloaded"):
        client.responses.create(model="m", input="Hi")


def test_the_same_scripts_give_the_same_bytes():
    def record() -> list[bytes]:
        with ProviderServer() as server, openai.OpenAI(base_url=server.url, api_key="none") as client:
            server.add(TOOLS, THOUGHTFUL)
            list(chat(client, stream=True))
            list(client.responses.create(model="m", input="Hi", stream=True))
            return [sent.data for sent in server.sent]

    assert record() == record()
