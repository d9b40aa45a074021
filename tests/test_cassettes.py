"""Recorded exchanges, replayed through the real SDK with no server there, are on the tape as they were scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from vcr.cassette import Cassette

from cassettes import (
    EXCHANGES,
    FOLDER,
    KEPT_HEADERS,
    KEY,
    MODES,
    NAMES,
    ORIGIN,
    SDKS,
    Exchange,
    name_of,
    recorder,
    send,
)
from record_cassettes import record
from tape_reader import TapeReader
from tokentape.testing import Event, Reasoning, Refusal, Summary, Text, ToolArgs, ToolCall, Usage
from tokentape.testing.rig import resolved

KINDS: dict[type, str] = {
    Text: "text",
    Refusal: "refusal",
    Reasoning: "reasoning",
    Summary: "reasoning",
    ToolCall: "tool_args",
    ToolArgs: "tool_args",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("api", EXCHANGES)
def test_cassette_is_on_the_tape_as_it_was_scripted(api: str, mode: str, tape: TapeReader) -> None:
    with recorder("none").use_cassette(str(FOLDER / name_of(api, mode))) as cassette:
        asyncio.run(replay(api, mode))
    assert unplayed(cassette) == []
    assert [read_back(tape, call) for call in tape.calls()] == [expected(api, exchange) for exchange in EXCHANGES[api]]


async def replay(api: str, mode: str) -> None:
    client = SDKS[api].client(mode, ORIGIN, "none")
    for exchange in EXCHANGES[api]:
        if exchange.status == "error":
            with pytest.raises(SDKS[api].refused):
                await send(client, api, exchange)
        else:
            await send(client, api, exchange)
    await resolved(client.close())


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


def expected(api: str, exchange: Exchange) -> dict[str, Any]:
    """What the script says, told without the recorder's code."""
    usage = next((event for event in reversed(exchange.script) if isinstance(event, Usage)), None)
    parts, events = expected_parts(exchange.script) if exchange.streaming else ([], [])
    return {
        "operation": {"completions": "text_completion"}.get(api, api),
        "request_model": "scripted-model",
        "streaming": int(exchange.streaming),
        "status": exchange.status,
        "finish_reason": exchange.finish,
        "http_status": 400 if exchange.status == "error" else 200,
        "retries": 0,
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


def expected_parts(script: tuple[Event, ...]) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
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
    for api in EXCHANGES:
        for mode in MODES:
            again = record(api, mode, tmp_path)
            assert again.read_bytes() == (FOLDER / name_of(api, mode)).read_bytes()


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
        assert len(unplayed(cassette)) == len(EXCHANGES["chat"])
