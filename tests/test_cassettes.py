"""Recorded exchanges, replayed with no server there, are on the tape as they were scripted: SDKs and frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from vcr.cassette import Cassette

from cassette_clients import client_for
from cassettes import EXCHANGES, FOLDER, KEPT_HEADERS, KEY, MODES, NAMES, OF_SDKS, ORIGIN, Exchange, name_of, recorder
from record_cassettes import record
from tape_reader import TapeReader
from tokentape.testing import Event, Reasoning, Refusal, Summary, Text, ToolArgs, ToolCall, Usage

KINDS: dict[type, str] = {
    Text: "text",
    Refusal: "refusal",
    Reasoning: "reasoning",
    Summary: "reasoning",
    ToolCall: "tool_args",
    ToolArgs: "tool_args",
}


# What LangChain's integrations leave out of the chunks that they hand over.
LEFT_OUT: dict[str, tuple[type, ...]] = {"langchain/chat": (Reasoning,)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cassette", EXCHANGES)
def test_cassette_is_on_the_tape_as_it_was_scripted(cassette: str, mode: str, tape: TapeReader) -> None:
    with recorder("none").use_cassette(str(FOLDER / name_of(cassette, mode))) as played:
        asyncio.run(replay(cassette, mode))
    assert unplayed(played) == []
    exchanges, adapter = EXCHANGES[cassette], cassette.partition("/")[0]
    calls = [call for call in tape.calls() if call["adapter"] == adapter]
    assert [read_back(tape, call) for call in calls] == [expected(cassette, exchange) for exchange in exchanges]
    # The requests that a framework sent through an SDK are on the tape as well.
    beneath = [call for call in tape.calls() if call["adapter"] != adapter]
    if cassette in OF_SDKS:
        assert beneath == []
    else:
        sdk = sdk_of(cassette)
        assert [call["parent_id"] for call in beneath] == [call["id"] for call in calls]
        assert [read_back(tape, call) for call in beneath] == [expected(sdk, exchange) for exchange in exchanges]


def sdk_of(cassette: str) -> str:
    """The SDK's cassette of the same format."""
    (name,) = [name for name in OF_SDKS if name.partition("/")[2] == cassette.partition("/")[2]]
    return name


async def replay(cassette: str, mode: str) -> None:
    client = client_for(cassette, mode, ORIGIN, "none")
    for exchange in EXCHANGES[cassette]:
        if exchange.status == "error":
            with pytest.raises(client.refused):
                await client.send(exchange)
        else:
            await client.send(exchange)
    await client.close()


def unplayed(cassette: Cassette) -> list[str]:
    """Questions of the exchanges that nobody has asked for."""
    played = cassette.play_counts
    return [str(request.body) for number, request in enumerate(cassette.requests) if not played[number]]


def read_back(tape: TapeReader, call: dict[str, Any]) -> dict[str, Any]:
    columns = ("operation", "request_model", "streaming", "status", "finish_reason", "http_status", "retries")
    usage = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    parts = tape.parts(call["id"])
    return {
        **{name: call[name] for name in (*columns, *usage, "event_count")},
        "parts": [shown(part) for part in parts],
        "events": [(event["part"], event["token"]) for event in tape.tokens(call["id"])],
    }


def shown(part: dict[str, Any]) -> tuple[Any, ...]:
    external_id = part["external_id"] if part["kind"] == "tool_args" else None
    return part["kind"], part["choice"], part["name"], external_id, part["content"]


def expected(cassette: str, exchange: Exchange) -> dict[str, Any]:
    """What the script says, told without the recorder's code."""
    usage = next((event for event in reversed(exchange.script) if isinstance(event, Usage)), None)
    script = [event for event in exchange.script if not isinstance(event, LEFT_OUT.get(cassette, ()))]
    parts, events = expected_parts(script) if exchange.streaming else ([], [])
    of_sdk, api = cassette in OF_SDKS, cassette.partition("/")[2]
    return {
        # To a framework every format is chat; it sees no attempts, and of the HTTP status it knows what an error says.
        "operation": {"completions": "text_completion"}.get(api, api) if of_sdk else "chat",
        "request_model": "scripted-model",
        "streaming": int(exchange.streaming),
        "status": exchange.status,
        "finish_reason": exchange.finish,
        "http_status": 400 if exchange.status == "error" else 200 if of_sdk else None,
        "retries": 0 if of_sdk else None,
        "input_tokens": usage and usage.input_tokens,
        "cached_input_tokens": usage and known(api, usage.cached, ("responses", "messages")),
        "output_tokens": usage and usage.output_tokens,
        "reasoning_tokens": usage and known(api, usage.reasoning, ("responses",)),
        "event_count": len(events),
        "parts": parts,
        "events": events,
    }


def known(api: str, count: int | None, always: tuple[str, ...]) -> int | None:
    """A count that some formats always tell, the others where they have any."""
    return (count or 0) if api in always else count


def expected_parts(script: Iterable[Event]) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    """The parts of an answer in the order they appear, and what each event adds to which."""
    parts: dict[Any, list[Any]] = {}
    events = []
    for event in script:
        if type(event) in KINDS:
            part = parts.setdefault(key_of(event), [KINDS[type(event)], getattr(event, "choice", 0), *names(event), ""])
            text = getattr(event, "arguments", "") or getattr(event, "text", "")
            if text:
                part[-1] += text
                events.append((list(parts).index(key_of(event)), text))
    return [tuple(part) for part in parts.values()], events


def key_of(event: Any) -> tuple[Any, ...]:
    """What tells one part from another."""
    number = getattr(event, "index", getattr(event, "part", 0))
    return KINDS[type(event)], isinstance(event, Summary), getattr(event, "choice", 0), number


def names(event: Any) -> tuple[str | None, str | None]:
    if isinstance(event, ToolCall):
        return event.name, event.id
    return ("summary" if isinstance(event, Summary) else None), None


def test_every_cassette_is_replayed_by_a_test() -> None:
    assert sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_header_and_no_key_that_could_carry_a_secret(name: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert headers_beyond(yaml.safe_load(text)) == set()
    assert KEY not in text
    assert "sk-" not in text


def headers_beyond(cassette: dict[str, Any]) -> set[str]:
    """Headers on either side that a cassette must not hold."""
    sides = [interaction[side] for interaction in cassette["interactions"] for side in ("request", "response")]
    return {name.lower() for side in sides for name in side["headers"]} - KEPT_HEADERS


def test_recording_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for cassette in EXCHANGES:
        for mode in MODES:
            again = record(cassette, mode, tmp_path)
            assert again.read_bytes() == (FOLDER / name_of(cassette, mode)).read_bytes()


def spoiled(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    cassette: dict[str, Any] = yaml.safe_load((FOLDER / NAMES[0]).read_text("utf-8"))
    change(cassette["interactions"][0])
    return cassette


def test_a_header_too_many_is_found() -> None:
    asked = spoiled(lambda interaction: interaction["request"]["headers"].update({"Authorization": ["Bearer x"]}))
    told = spoiled(lambda interaction: interaction["response"]["headers"].update({"Set-Cookie": ["x"]}))
    assert headers_beyond(asked) == {"authorization"}
    assert headers_beyond(told) == {"set-cookie"}


def test_an_exchange_left_unplayed_is_found() -> None:
    with recorder("none").use_cassette(str(FOLDER / NAMES[0])) as cassette:
        assert len(unplayed(cassette)) == len(EXCHANGES["openai/chat"])
