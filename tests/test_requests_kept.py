"""What is kept of a request: a few scalars, the messages only where asked for, credentials never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

import tokentape
from openai_drivers import ChatDriver
from tape_reader import TapeReader
from tokentape.testing import Finish, HTTPError, ProviderServer, Raw, Script, Text

ANSWER = [Text("Hel"), Text("lo"), Finish("stop")]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CHUNKS = 50_000


def ask(server: ProviderServer, **request: Any) -> list[Any]:
    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client:
        return list(client.chat.completions.create(**{"model": driver.model, "stream": True, "messages": []} | request))


@pytest.mark.scenario("capture/Prompts not asked for")
def test_only_scalars_are_kept(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    ask(
        server,
        messages=[{"role": "user", "content": "Who is Zanzibar?"}],
        tools=[TOOL],
        user="user-17",
        temperature=0.25,
        metadata={"customer": "17"},
        stop=["Zanzibar"],
    )
    call = tape.call()
    assert call["prompt_json"] is None
    assert json.loads(call["request_json"]) == {"model": "gpt-x", "stream": True, "temperature": 0.25}
    tokentape.disable()
    assert not [word for word in (b"Zanzibar", b"user-17", b"customer") if word in tape.path.read_bytes()]


def test_every_scalar_that_is_kept(server: ProviderServer, tape: TapeReader) -> None:
    kept = {
        "temperature": 0.25,
        "top_p": 0.5,
        "max_tokens": 10,
        "max_completion_tokens": 11,
        "n": 1,
        "seed": 7,
        "reasoning_effort": "low",
    }
    server.add(ANSWER)
    ask(server, **kept, logit_bias={"1": 2}, presence_penalty=0.5)
    assert json.loads(tape.call()["request_json"]) == {"model": "gpt-x", "stream": True, **kept}


@pytest.mark.scenario("capture/Prompts not asked for")
def test_prompts_can_be_asked_for(server: ProviderServer, tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, prompts=True, flush_ms=20)
    server.add(ANSWER)
    ask(server, messages=[{"role": "user", "content": "Who is Zanzibar?"}], temperature=0.25)
    assert json.loads(tape.call()["prompt_json"]) == server.requests[0].json


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("content", ["redacted", "full"])
def test_a_prompt_and_metadata_that_are_nested_without_end_cost_no_call(tmp_path: Path, content: str) -> None:
    tape, endless = TapeReader(tmp_path / "tape.db"), list[Any]()
    endless += [{"again": endless}, endless]  # two ways at each level: to look at all of them would never end
    tokentape.enable(db=tape.path, prompts=True, content=content, flush_ms=20)
    around = tokentape.run("around", metadata={"kept": "yes", "endless": endless})
    with around, tokentape.start_llm_stream(model="m", prompt=endless) as stream:
        stream.add_token("word ")
    assert (tape.call()["status"], tape.call()["event_count"]) == ("completed", 1)
    (run,) = tape.rows("select name, json_extract(metadata_json, '$.kept') as kept from runs where name = 'around'")
    assert run == {"name": "around", "kept": "yes"}


@pytest.mark.scenario("capture/Twenty megabytes of prompt")
def test_twenty_megabytes_of_prompt_and_fifty_thousand_chunks(server: ProviderServer, tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, prompts=True, flush_ms=20)
    server.add([Raw(b"".join(map(frame, range(CHUNKS))))], ANSWER)
    paragraph = "Was für ein Satz! " * 55_000  # about a million bytes
    ask_of = [{"role": "user", "content": paragraph} for _ in range(20)]
    assert len(ask(server, messages=ask_of)) == CHUNKS
    ask(server, messages=[{"role": "user", "content": paragraph[:900_000]}])

    large, small = tape.calls()
    sent = server.requests[0].body
    prompt = json.loads(large["prompt_json"])
    assert len(sent) > 20_000_000
    assert (prompt.keys(), prompt["truncated"], prompt["bytes"]) == ({"truncated", "bytes", "head"}, True, len(sent))
    assert sent.decode().startswith(prompt["head"])
    assert len(prompt["head"]) > 1000
    assert (large["event_count"], large["dropped_count"], large["events_kept"]) == (CHUNKS, 0, "all")
    (kept,) = tape.rows(
        "select count(*) as rows, max(token_index) as last from llm_tokens where call_id = ?", large["id"]
    )
    assert kept == {"rows": CHUNKS, "last": CHUNKS - 1}
    (part,) = tape.parts(large["id"])
    assert part["content"] == "".join(f"w{i} " for i in range(CHUNKS))
    assert json.loads(small["prompt_json"]) == server.requests[1].json


def frame(number: int) -> bytes:
    """One chunk as a provider sends it."""
    choice = {"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


@pytest.mark.parametrize("prompts", [True, False])
def test_a_request_body_is_not_held_once_it_is_on_the_tape(
    server: ProviderServer, tmp_path: Path, prompts: bool
) -> None:
    tokentape.enable(db=tmp_path / "tape.db", prompts=prompts, flush_ms=20)
    server.add([Text("a "), Finish("stop")])
    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client:
        messages = [{"role": "user", "content": str(i) * 400_000} for i in range(10)]
        stream = client.chat.completions.create(model=driver.model, messages=messages, stream=True)
        assert tokentape.flush(10)
        (call,) = recorded_calls()
        assert call.request.body is None
        stream.close()


def recorded_calls() -> list[Any]:
    from tokentape.recorder import active

    recorder = active()
    return [] if recorder is None else list(recorder.open)


@pytest.mark.scenario("capture/Credentials stay out")
@pytest.mark.parametrize("level", ["redacted", "full"])
def test_credentials_stay_out(server: ProviderServer, tmp_path: Path, level: str) -> None:
    secrets = {name: f"{name}-Xq7Zp2Wm9Lk4Tr8V" for name in ("key", "header", "cookie", "body", "query")}
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, content=level, flush_ms=20)
    server.add(Script([*ANSWER], repeat=True, path="/chat/completions", model="gpt-x"))
    server.add(Script([HTTPError(401)], repeat=True, model="refused"))
    headers = {"X-Proxy-Token": secrets["header"], "Cookie": f"session={secrets['cookie']}"}
    with openai.OpenAI(
        base_url=server.url, api_key=secrets["key"], default_query={"token": secrets["query"]}, max_retries=0
    ) as client:
        for model in ("gpt-x", "refused"):
            try:
                stream = client.chat.completions.create(
                    model=model,
                    messages=[],
                    stream=True,
                    extra_headers=headers,
                    extra_body={"secret": secrets["body"], "nested": {"password": secrets["body"]}},
                )
                list(stream)
            except openai.AuthenticationError:
                assert model == "refused"
    # All of them were really sent.
    request = server.requests[0]
    arrived = str([request.headers, request.query, request.body])
    assert [name for name, secret in secrets.items() if secret not in arrived] == []
    assert [call["status"] for call in tape.calls()] == ["completed", "error"]
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("tape.db*"))
    assert len(list(tmp_path.glob("tape.db-wal"))) == 1
    assert [name for name, secret in secrets.items() if secret.encode() in on_disk] == []


def test_of_the_url_only_the_host_is_kept(server: ProviderServer, tape: TapeReader) -> None:
    server.add(ANSWER)
    url = server.url.replace("http://", "http://somebody:password@").replace("/v1", "/v1/tenant-17")
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        list(client.chat.completions.create(model="gpt-x", messages=[], stream=True))
    assert tape.call()["server_address"] == "127.0.0.1"
    tokentape.disable()
    assert not [word for word in (b"tenant-17", b"password") if word in tape.path.read_bytes()]
