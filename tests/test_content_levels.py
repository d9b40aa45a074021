"""How much of an answer is kept: the setting, a block, a plugin; and what each level leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tokentape
from openai_drivers import ChatDriver
from tape_reader import TapeReader
from tokentape import recording
from tokentape.models import Call
from tokentape.testing import FakeClock, Finish, HTTPError, Logprob, ProviderServer, Text, Usage

KEY = "sk-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"
LOGPROBS = (Logprob("Hel", -0.5), Logprob("lo", -0.25))


@pytest.fixture
def register() -> Iterator[Any]:
    """Registers plugins for the length of the test."""
    before = list(recording._registered)
    yield tokentape.register
    recording._registered[:] = before


def ask(server: ProviderServer, *steps: Any, **more: Any) -> list[Any]:
    """One call; the chunks."""
    server.add(list(steps) or [Text("Hel"), Text("lo"), Finish("stop")])
    driver = ChatDriver()
    with driver.client(server.url, asynchronous=False) as client:
        return list(client.chat.completions.create(model=driver.model, messages=[], stream=True, **more))


def by_hand(tmp_path: Path, level: str) -> dict[str, Any]:
    """One call under a clock that stands still; everything the tape holds of it."""
    fake = FakeClock()
    tape = TapeReader(tmp_path / f"{level}.db")
    tokentape.enable(db=tape.path, clock=fake.clock, content=level, flush_ms=20, stall_ms=100)
    with tokentape.start_llm_stream(model="m", provider="acme") as stream:
        for delay, text, count in [(300, "Hel", 1), (40, "lo", 2), (500, "!", 1)]:
            fake.advance(ms=delay)
            stream.add_token(text, n_tokens=count)
        stream.usage(input_tokens=3, output_tokens=4)
        fake.advance(ms=5)
        stream.finish("stop")
    (call,) = tape.calls()
    kept = {
        "call": {name: value for name, value in call.items() if name not in ("uid", "content_level")},
        "tokens": tape.rows("select token_index, offset_us, wait_us, part from llm_tokens"),
        "stalls": tape.rows("select * from llm_stalls"),
        "said": tape.rows("select token, n_tokens from llm_tokens"),
    }
    tokentape.disable()
    return kept


@pytest.mark.scenario("capture/Timings only")
def test_numbers_are_the_same_at_every_level(tmp_path: Path) -> None:
    timings, redacted, full = (by_hand(tmp_path, level) for level in ("timings", "redacted", "full"))
    assert timings.pop("said") == [{"token": None, "n_tokens": None}] * 3
    assert (
        redacted.pop("said")
        == full.pop("said")
        == [
            {"token": "Hel", "n_tokens": 1},
            {"token": "lo", "n_tokens": 2},
            {"token": "!", "n_tokens": 1},
        ]
    )
    assert timings == redacted == full
    assert (full["call"]["first_token_latency_ms"], full["call"]["stall_count"]) == (300, 1)


@pytest.mark.scenario("capture/Timings only")
def test_timings_hold_nothing_of_what_was_said(server: ProviderServer, tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, content="timings", prompts=True, flush_ms=20)
    ask(server, Text("Hello", logprobs=LOGPROBS), Text(" world"), Finish("stop"), Usage(3, 3), logprobs=True)
    with pytest.raises(Exception, match="Zanzibar"):
        ask(server, HTTPError(400, "the word Zanzibar is not allowed"))
    answered, refused = tape.calls()
    assert (answered["status"], answered["event_count"], answered["token_count"]) == ("completed", 2, 3)
    assert [(row["token"], row["n_tokens"]) for row in tape.rows("select * from llm_tokens")] == [(None, None)] * 2
    assert [part["content"] for part in tape.parts()] == [None]
    assert tape.rows("select * from llm_token_logprobs") == []
    assert (answered["prompt_json"], refused["error_message"]) == (None, None)
    assert (refused["status"], refused["http_status"], refused["error_type"]) == ("error", 400, "BadRequestError")
    tokentape.disable()
    assert not [word for word in (b"Hello", b" world", b"Zanzibar") if word in tape.path.read_bytes()]


def test_full_keeps_what_timings_left_out(server: ProviderServer, tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, content="full", flush_ms=20)
    ask(server, Text("Hello", logprobs=LOGPROBS), Text(f" {KEY}"), Finish("stop"), logprobs=True)
    first, second = tape.rows("select token, n_tokens from llm_tokens")
    assert (first, second) == ({"token": "Hello", "n_tokens": 2}, {"token": f" {KEY}", "n_tokens": None})
    (logprobs,) = tape.rows("select * from llm_token_logprobs")
    assert [entry["token"] for entry in json.loads(logprobs["logprobs_json"])] == ["Hel", "lo"]


@pytest.mark.scenario("capture/Timings only")
@pytest.mark.parametrize("level", ["timings", "redacted"])
def test_keys_in_names_and_labels_are_masked(tmp_path: Path, level: str) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, content=level, flush_ms=20)
    with (
        tokentape.run(f"run {KEY}", metadata={"key": KEY}),
        tokentape.label(key=KEY),
        tokentape.mark(f"mark {KEY}"),
        tokentape.start_llm_stream(model="m", name=f"call {KEY}"),
    ):
        pass
    assert tape.call()["status"] == "completed"
    tokentape.disable()
    assert KEY.encode() not in tape.path.read_bytes()


@pytest.mark.scenario("capture/Key in an answer")
@pytest.mark.parametrize("cuts", [(1, 2), (3, 20), (10, 34), (2, 34)])
def test_key_cut_over_three_chunks(server: ProviderServer, tape: TapeReader, cuts: tuple[int, int]) -> None:
    pieces = [KEY[: cuts[0]], KEY[cuts[0] : cuts[1]], KEY[cuts[1] :]]
    steps = [Text("It is "), *[(0.06, Text(piece)) for piece in pieces], (0.06, Text(" they say. ")), Finish("stop")]
    ask(server, *steps)
    before, mark, second, third, after = tape.rows("select * from llm_tokens")
    assert (before["token"], second["token"], third["token"], after["token"]) == ("It is ", "", "", " they say. ")
    assert mark["token"].startswith("[redacted:")
    assert mark["token"].endswith("]")
    offsets = [row["offset_us"] for row in (before, mark, second, third, after)]
    assert all(later - earlier > 20_000 for earlier, later in pairwise(offsets))
    assert [part["content"] for part in tape.parts()] == [f"It is {mark['token']} they say. "]
    tokentape.disable()
    # A piece of two characters is in any file; everything longer would give the key away.
    in_file = tape.path.read_bytes()
    assert not [piece for piece in [*pieces, KEY[:8], KEY[-8:]] if len(piece) > 3 and piece.encode() in in_file]


@pytest.mark.scenario("capture/Key in an answer")
def test_key_in_an_error_message(server: ProviderServer, tape: TapeReader) -> None:
    with pytest.raises(Exception, match=KEY):
        ask(server, HTTPError(401, f"Incorrect API key provided: {KEY}."))
    assert "Incorrect API key provided: [redacted:" in tape.call()["error_message"]
    assert KEY not in tape.call()["error_message"]


@pytest.mark.scenario("capture/Level by block and by plugin")
def test_level_by_block_and_by_plugin(server: ProviderServer, tmp_path: Path, register: Any) -> None:
    class Decides:
        answer: str | None = None

        @tokentape.hookimpl
        def tokentape_record(self, call: Call) -> str | None:
            assert call.request_model == "gpt-x"
            return self.answer

    plugin = Decides()
    register(plugin)
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, content="full", flush_ms=20)
    with tokentape.content("timings"):
        ask(server)
    plugin.answer = "redacted"
    ask(server)
    plugin.answer = "skip"
    assert len(ask(server)) == 3
    assert [call["content_level"] for call in tape.calls()] == ["timings", "redacted"]
    assert [row["token"] for row in tape.rows("select token from llm_tokens")] == [None, None, "Hel", "lo"]


@pytest.mark.scenario("capture/Level by block and by plugin")
def test_a_plugin_overrules_the_block_also_when_registered_late(
    server: ProviderServer, tape: TapeReader, register: Any
) -> None:
    class Decides:
        @tokentape.hookimpl
        def tokentape_record(self) -> str:
            return "timings"

    with tokentape.content("full"):
        ask(server)
        register(Decides())
        ask(server)
    assert [call["content_level"] for call in tape.calls()] == ["full", "timings"]


def test_the_innermost_block_decides_and_the_setting_outside(tape: TapeReader) -> None:
    with tokentape.content("timings"):
        with tokentape.content("full"), tokentape.start_llm_stream(model="inner"):
            pass
        with tokentape.start_llm_stream(model="outer"):
            pass
    with tokentape.start_llm_stream(model="none"):
        pass
    levels = {call["request_model"]: call["content_level"] for call in tape.calls()}
    assert levels == {"inner": "full", "outer": "timings", "none": "redacted"}


def test_an_unknown_level_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="content level 'everything': expected one of timings, redacted, full"):
        tokentape.content("everything")  # type: ignore[arg-type]


@pytest.mark.scenario("capture/Sampled out")
def test_sampled_out(server: ProviderServer, tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, sample_rate=0, flush_ms=20)
    ask(server, (0.02, Text("Hel")), (0.02, Text("lo")), (0.02, Text("!")), Finish("stop"), Usage(3, 4))
    call = tape.call()
    assert (call["events_kept"], call["event_count"], call["chunk_count"]) == ("sampled_out", 3, 5)
    assert (call["dropped_count"], call["status"], call["token_count"]) == (0, "completed", 4)
    numbers = ["first_token_latency_ms", "inter_chunk_p99_ms", "inter_token_latency_ms", "tokens_per_second", "hold_ms"]
    assert all(call[name] is not None for name in numbers)
    assert tape.rows("select * from llm_tokens") == []
    assert [part["content"] for part in tape.parts()] == [None]


def test_a_share_of_the_calls_is_sampled_and_each_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, sample_rate=0.5, flush_ms=20)
    for _ in range(200):
        with tokentape.start_llm_stream(model="m") as stream:
            stream.add_token("a ")
            stream.add_token("b ")
    kept = tape.rows(
        "select c.events_kept, count(t.call_id) as rows from llm_calls c left join llm_tokens t on t.call_id = c.id "
        "group by c.id"
    )
    by_kind = {kind: {row["rows"] for row in kept if row["events_kept"] == kind} for kind in ("all", "sampled_out")}
    assert by_kind == {"all": {2}, "sampled_out": {0}}
    # Ten standard deviations around the half.
    assert 30 < sum(row["events_kept"] == "all" for row in kept) < 170
