"""Whatever a server sends, the program sees what it sees without us, and the recording goes on."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import anthropic_surfaces
import openai_surfaces
import tokentape
from fuzzed import ODD_VALUES, bodies, deep
from surfaces import direct, lines, use
from tape_reader import TapeReader
from tokentape.call import Request
from tokentape.models import FINAL_STATUSES
from tokentape.recorder import active
from tokentape.taps import StreamTap
from tokentape.testing import Finish, ProviderServer, Raw, Script, Text
from tokentape_anthropic.surface import SURFACE as ANTHROPIC
from tokentape_openai.surface import SURFACE as OPENAI

FEW, MANY = 15, 1_000
READERS = {"chat": OPENAI, "text_completion": OPENAI, "responses": OPENAI, "messages": ANTHROPIC}
sizes = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.nightly)], ids=["few", "many"])
each_api = pytest.mark.parametrize("api", READERS)


@dataclass(frozen=True)
class Way:
    """A way to read an answer."""

    read: Callable[[Any], Any]
    asynchronous: bool


def ways(api: str) -> list[Way]:
    """Ways to read an answer of this API: chunks, and the bytes past the SDK's stream, of both kinds of clients."""
    send: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "chat": (lambda client: client.chat.completions, openai_surfaces.chat),
        "text_completion": (lambda client: client.completions, openai_surfaces.completion),
        "responses": (lambda client: client.responses, openai_surfaces.responses),
        "messages": (lambda client: client.messages, anthropic_surfaces.stream),
    }
    resource, ask = send[api]
    chunks = Way(lambda client: direct(ask(resource(client).create)), False)
    raw = Way(lambda client: lines(ask(resource(client).with_streaming_response.create)), False)
    return [chunks, chunks, raw, Way(chunks.read, True)]


class Asking:
    """Asks a server for whatever it is told to answer.

    Args:
        api: whose client asks.
    """

    def __init__(self, server: ProviderServer, api: str) -> None:
        self._server = server
        surfaces = anthropic_surfaces if api == "messages" else openai_surfaces
        self._client_for = lambda asynchronous: surfaces.client_for(server, asynchronous)

    def seen(self, body: list[bytes], way: Way) -> tuple[list[str], str]:
        """What a program sees of this body: its chunks, and how the stream ended."""
        self._server.add(Script([Raw(piece) for piece in body]))
        found: list[str] = []

        async def read(client: Any) -> None:
            found.extend(map(repr, await way.read(client)))

        try:
            use(self._client_for(way.asynchronous), read)
        except Exception as error:
            return found, f"{type(error).__qualname__}: {error} {error.__cause__!r}"
        return found, "ended"


@sizes
@each_api
@pytest.mark.scenario("adapters/Hostile streams")
def test_a_program_sees_of_a_hostile_stream_what_it_sees_without_us(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, examples: int
) -> None:
    # A fault of ours is raised where it happens: to the program, or on the writer's thread, which pytest sees.
    monkeypatch.setenv("TOKENTAPE_STRICT", "1")
    tape, asking, count = TapeReader(tmp_path / "tape.db"), Asking(server, api), 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(bodies(api), st.sampled_from(ways(api)))
    def check(body: list[bytes], way: Way) -> None:
        nonlocal count
        tokentape.disable()
        bare = asking.seen(body, way)
        tokentape.enable(db=tape.path, flush_ms=20)
        assert asking.seen(body, way) == bare
        count += 1

    check()
    assert tokentape.flush(30)
    calls = tape.calls()
    assert len(calls) == count
    assert {call["status"] for call in calls} <= {*FINAL_STATUSES} - {"lost"}
    assert tokentape.status()["faults"].keys() <= {
        f"{calls[0]['adapter']} adapter, bytes that the program reads itself"
    }
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    use(asking._client_for(False), ways(api)[0].read)
    assert (tape.calls()[-1]["status"], tape.parts(tape.calls()[-1]["id"])[0]["content"]) == ("completed", "Hello")
    tokentape.disable()
    with contextlib.closing(sqlite3.connect(tape.path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


@each_api
@pytest.mark.scenario("adapters/Hostile streams")
def test_what_is_nested_deeper_than_python_goes_down(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    monkeypatch.setenv("TOKENTAPE_STRICT", "1")
    tape, asking = TapeReader(tmp_path / "tape.db"), Asking(server, api)
    asked = list(zip(deep(api), cycle(ways(api)[1:])))
    bare = [asking.seen(body, way) for body, way in asked]
    tokentape.enable(db=tape.path, flush_ms=20)
    assert [asking.seen(body, way) for body, way in asked] == bare
    assert tokentape.flush(30)
    assert len(tape.calls()) == len(asked)
    assert {call["status"] for call in tape.calls()} <= {*FINAL_STATUSES} - {"lost"}


class Hostile:
    """An object whose attributes are anything, or raise when they are looked at."""

    def __init__(self, attributes: dict[str, Any], fault: BaseException | None) -> None:
        self.__dict__.update(attributes)
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        fault = self.__dict__.get("_fault")
        raise fault if fault is not None else AttributeError(name)

    def __str__(self) -> str:
        return str(self.text)


class OwnText(str):
    """A text of a class of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        raise OSError("no text")


NAMES = (
    *(
        "id",
        "model",
        "choices",
        "usage",
        "delta",
        "content",
        "index",
        "finish_reason",
        "tool_calls",
        "function",
        "name",
    ),
    *("logprobs", "refusal", "type", "response", "item", "output_index", "content_index", "content_block", "message"),
    *("text", "thinking", "partial_json", "stop_reason", "arguments", "status", "error", "__pydantic_extra__"),
)
TYPES = (
    "response.output_text.delta",
    "response.completed",
    "content_block_delta",
    "text_delta",
    "message_delta",
    "error",
)
FAULTS = st.sampled_from((None, None, OSError("no"), KeyError("no"), RecursionError("no"), MemoryError()))
LEAVES = st.one_of(ODD_VALUES, st.sampled_from(TYPES), st.builds(OwnText, st.text(max_size=3)), st.builds(object))
CHUNKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
        st.builds(Hostile, st.dictionaries(st.sampled_from(NAMES), inner, max_size=8), FAULTS),
    ),
    max_leaves=15,
)


@sizes
@each_api
@pytest.mark.scenario("adapters/Hostile streams")
@pytest.mark.usefixtures("lenient")
def test_chunks_of_any_kind_reach_the_program_and_end_up_as_a_call(tmp_path: Path, api: str, examples: int) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20)
    ended = 0

    @settings(max_examples=5 * examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(CHUNKS, max_size=6))
    def check(chunks: list[Any]) -> None:
        nonlocal ended
        recorder = active()
        assert recorder is not None
        call = recorder.start(Request("fuzz", api, model="m"))
        assert call is not None
        seen = list(StreamTap(iter(chunks), call, READERS[api].reader(call)))
        assert [id(chunk) for chunk in seen] == [id(chunk) for chunk in chunks]
        ended += 1

    check()
    assert tokentape.flush(60)
    # Among them are chunks that say themselves that the answer failed, or was cancelled.
    ends = {row["status"] for row in tape.rows("select distinct status from llm_calls")}
    assert {"completed"} <= ends <= {"completed", "error", "cancelled"}
    assert tape.rows("select count(*) as calls from llm_calls") == [{"calls": ended}]
    assert tape.rows("pragma integrity_check") == [{"integrity_check": "ok"}]


@sizes
@pytest.mark.scenario("adapters/Hostile streams")
@pytest.mark.usefixtures("lenient")
def test_whatever_a_programs_own_function_says_of_a_chunk(tmp_path: Path, examples: int) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20)

    @settings(max_examples=5 * examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(st.tuples(CHUNKS, st.lists(st.tuples(LEAVES, LEAVES), max_size=2)), max_size=4))
    def check(chunks: list[tuple[Any, Any]]) -> None:
        def each() -> Iterator[Any]:
            yield from chunks

        seen = list(tokentape.record_stream(each, events=lambda chunk: chunk[1], model="m"))
        assert [id(chunk) for chunk in seen] == [id(chunk) for chunk in chunks]

    check()
    assert tokentape.flush(60)
    assert [row["status"] for row in tape.rows("select distinct status from llm_calls")] == ["completed"]
