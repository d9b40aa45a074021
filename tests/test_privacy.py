"""No output ever holds a secret: the bytes of database, write-ahead log and a second output are searched for it."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

import anthropic_surfaces
import openai_surfaces
import tokentape
from file_sink import FileSink, raw_bytes
from hostile_chunks import chunk, said
from secrets_to_mask import BEFORE, OPTIONAL_SECRETS, SECRETS
from surfaces import direct, use
from tape_reader import TapeReader
from tokentape import recording
from tokentape.call import CallRecorder, Request
from tokentape.fragments import Fragment
from tokentape.models import Call, Mark, Part, Run, Usage
from tokentape.recorder import active
from tokentape.redaction import BUILT_IN, Gate, Rules, chosen, redact_text
from tokentape.testing import FakeClock, HTTPError, ProviderServer, Raw, Script

REDACT = "email phone badge=EMP-[0-9]{6}"
EVERY_SECRET = {**SECRETS, **OPTIONAL_SECRETS, "badge": ("badge", "EMP-123456")}
PARTS = 4
# In a file of many megabytes a few characters are found by chance: this many are not.
PIECE = 9


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FileSink]:
    """A second output, beside the tape."""
    before = list(recording._registered)
    heard = FileSink(tmp_path / "sink")
    tokentape.register(heard)
    yield heard
    recording._registered[:] = before


def started(**request: Any) -> CallRecorder:
    """A call, as an adapter opens it."""
    recorder = active()
    call = None if recorder is None else recorder.start(Request(**{"adapter": "acme", "operation": "chat"} | request))
    assert call is not None
    return call


def text_of(secrets: dict[str, tuple[str, str]]) -> str:
    """Prose with these secrets in it, one of them behind a JSON escape."""
    said = (f"The {name}: {BEFORE.get(name, '')}{secret}, and on.\\n" for name, (_, secret) in secrets.items())
    return f"{''.join(said)}sk-0123456789abcdef. That is all."


def cut(text: str, random: Random) -> list[str]:
    """A text, cut anywhere, the last piece first."""
    count = len(text) // random.choice((12, 100, 100, 300))
    at = sorted({0, len(text), *(int(random.random() * len(text)) for _ in range(count))})
    return [text[begin:end] for begin, end in pairwise(at)][::-1]


def stream(text: str, random: Random) -> None:
    """A call of several parts that say the text in turns."""
    call = started()
    parts = [(call.part("text", number), cut(text, random)) for number in range(PARTS)]
    at = call.start_ns
    while parts:
        turn = int(random.random() * len(parts))
        number, pieces = parts[turn]
        call.rows.extend((at, at := at + 10_000, number, pieces.pop()))
        if not pieces:
            del parts[turn]
    call.end("completed", at_ns=at)


def pieces_of(secrets: dict[str, tuple[str, str]]) -> list[bytes]:
    """Parts of each secret that would give it away, as they lie in a file or in what Python shows of a text."""
    said = [line for _, secret in secrets.values() for line in secret.splitlines() if "PRIVATE KEY" not in line]
    starts = [(line, {0, (len(line) - PIECE) // 2, len(line) - PIECE}) for line in said]
    return [line[at : at + PIECE].encode() for line, places in starts for at in places]


def marks_alike(text: str) -> str:
    """A text whose marks name no kind: a secret that others have kept waiting for long is `undecided`."""
    return re.sub(r"\[redacted:\w+\]", "[redacted]", text)


@pytest.mark.scenario("privacy/Random splits")
@pytest.mark.parametrize(
    ("splits", "secrets", "redact"),
    [
        pytest.param(2_000, SECRETS, "", id="built in"),
        pytest.param(400, EVERY_SECRET, REDACT, id="asked for"),
        pytest.param(10_000, SECRETS, "", id="built in, ten thousand", marks=pytest.mark.nightly),
        pytest.param(10_000, EVERY_SECRET, REDACT, id="asked for, ten thousand", marks=pytest.mark.nightly),
    ],
)
def test_random_splits(
    tmp_path: Path, sink: FileSink, splits: int, secrets: dict[str, tuple[str, str]], redact: str
) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20, redact=redact)
    random, text = Random(1), text_of(secrets)
    for _ in range(splits // PARTS):
        stream(text, random)
    assert tokentape.flush(100)
    open_files = raw_bytes(tape.path) + sink.path.read_bytes()
    masked = marks_alike(redact_text(text, Rules(chosen(redact.split()))))
    kept = Counter(marks_alike(row["content"]) for row in tape.rows("select content from llm_parts"))
    assert kept == {masked: splits}
    joined = "select group_concat(token, '') as text from (select * from llm_tokens order by call_id, token_index)"
    rows = Counter(marks_alike(row["text"]) for row in tape.rows(f"{joined} group by call_id, part"))
    assert rows == {masked: splits}
    tokentape.disable()
    closed_files = raw_bytes(tape.path)
    assert b"That is all." in open_files
    assert b"That is all." in closed_files
    assert [piece for piece in pieces_of(secrets) if piece in open_files or piece in closed_files] == []


class Secret:
    """Makes a secret for each place that is named, so that a leak says where it was."""

    tail = "Xq7Zp2Wm9Lk4Tr8V"

    def __init__(self) -> None:
        self.places: list[str] = []

    def __call__(self, place: str) -> str:
        self.places.append(place)
        return f"sk-{place}-{self.tail}"

    def leaks(self, *where: bytes) -> list[str]:
        """Places whose secret, or its end, is in any of these bytes."""
        return [place for place in self.places if any(f"{place}-{self.tail}".encode() in one for one in where)]


class Odd:
    """An object with a text of its own, where a JSON value is expected."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def program_with_secrets(secret: Secret) -> None:
    """Everything that a program can name, set or raise, by the public API and by that for adapters."""
    with (
        tokentape.run(secret("run"), metadata={"m": {secret("run-key"): [Odd(secret("run-object"))]}}),
        tokentape.label(**{secret("label-key"): secret("label")}),
        tokentape.mark(secret("mark"), kind=secret("mark-kind")),
    ):
        with tokentape.start_llm_stream(
            model=secret("model"),
            provider=secret("provider"),
            operation=secret("operation"),
            name=secret("name"),
            prompt=[{"said": f"is {secret('prompt')}, {secret('prompt-second')}"}, Odd(secret("prompt-object"))],
        ) as by_hand:
            by_hand.request_id = secret("request-id")
            by_hand.add_token(f"is {secret('token')}")
            by_hand.add_token(f"is {secret('part-token')}", kind="tool_args", part=secret("part"))
            by_hand.finish(secret("finish"))
        failure = type(secret("error-class"), (Exception,), {})
        with pytest.raises(failure), tokentape.start_llm_stream(model="m"):
            raise failure(f"{'x' * 1980} {secret('error')} {secret('error-second')}")
        call = started(
            server_address=secret("host"),
            adapter=secret("adapter"),
            scalars={"temperature": secret("scalar"), secret("scalar-key"): 1},
            metadata={secret("metadata-key"): Odd(secret("metadata")), 5: secret("metadata-number")},
            framework_run_id=secret("framework-id"),
        )
        call.part("tool_args", 0, secret("tool-index"), secret("tool"), secret("tool-id"))
        call.response_id, call.response_model = secret("response"), secret("response-model")
        call.response_meta.update({secret("meta-key"): [secret("meta")]})
        call.usage_counts = Usage(raw={secret("usage-key"): {"a": secret("usage")}})
        call.finish_reasons.update({0: secret("reason"), 1: secret("reason-second")})
        call.end("error", secret("error-type"), secret("error-message"))


@pytest.mark.scenario("privacy/Secret in every field")
@pytest.mark.parametrize("level", ["timings", "redacted", "full"])
def test_a_secret_in_whatever_a_program_sets(tmp_path: Path, sink: FileSink, level: str) -> None:
    secret, tape = Secret(), tmp_path / "tape.db"
    labels = {secret("process-label-key"): secret("process-label")}
    tokentape.enable(db=tape, flush_ms=20, content=level, prompts=True, labels=labels)
    program_with_secrets(secret)
    assert tokentape.flush(10)
    while_open = raw_bytes(tape)
    tokentape.disable()
    leaks = secret.leaks(while_open, raw_bytes(tape), sink.path.read_bytes())
    if level == "full":
        # So the search finds what is there: all but runs and marks, and the end of an error that is too long.
        masked = {"run", "run-key", "run-object", "mark", "mark-kind", "error-second", "error"}
        assert {*secret.places} - {*leaks} == masked
    else:
        assert leaks == []


def chat_with_secrets(secret: Secret) -> Script:
    """Everything that a provider can say in chat completions."""
    function = {"name": secret("tool"), "arguments": f'{{"k":"\\n{secret("arguments")}"}}'}
    tool = {"index": 0, "id": secret("tool-id"), "type": "function", "function": function}
    spelt = secret("logprob-bytes")
    logprobs = {
        "content": [
            {"token": secret("logprob"), "logprob": -1, "bytes": list(spelt.encode()), "top_logprobs": []},
            {"token": "", "logprob": -1, "bytes": None, "top_logprobs": [{"token": secret("top"), "logprob": -2}]},
        ]
    }
    spoken = said("harmless words ", logprobs=None) | {"logprobs": logprobs}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, secret("usage-key"): [secret("usage")]}
    chunks = [
        chunk(said(f"is {secret('text')}"), id=secret("id"), model=secret("model"), service_tier=secret("tier")),
        chunk(said(reasoning_content=f"is {secret('reasoning')}", refusal=f"is {secret('refusal')}")),
        chunk(spoken),
        chunk(said(tool_calls=[tool])),
        chunk(said(finish=secret("finish"))),
        chunk(said(finish=secret("finish-second"), choice=1), usage=usage),
    ]
    headers = {
        "x-request-id": secret("header-id"),
        "x-ratelimit-remaining-tokens": secret("header-limit"),
        "openai-processing-ms": secret("header-time"),
    }
    return Script([Raw(one) for one in chunks], headers=headers)


def responses_with_secrets(secret: Secret) -> Script:
    """A response that fails, in words of the provider's own."""
    error = {"code": secret("error-code"), "message": f"is {secret('error')}"}
    response = {"id": secret("response"), "model": secret("response-model"), "status": "failed", "error": error}
    item = {"type": "function_call", "name": secret("item"), "call_id": secret("item-id"), "arguments": ""}
    return Script(
        [
            Raw({"type": "response.output_item.added", "output_index": 0, "item": item}),
            Raw({"type": "response.failed", "response": response}),
        ]
    )


def messages_with_secrets(secret: Secret) -> Script:
    """Everything that a provider can say in messages."""
    usage = {"input_tokens": 3, "output_tokens": 1, "service_tier": secret("a-tier"), "more": secret("a-usage")}
    message = {"id": secret("a-id"), "type": "message", "role": "assistant", "model": secret("a-model")}
    block = {"type": "tool_use", "id": secret("a-tool-id"), "name": secret("a-tool"), "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | {"content": [], "usage": usage}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": f"is {secret('a-text')}"},
        },
        {"type": "content_block_start", "index": 1, "content_block": block},
        {"type": "message_delta", "delta": {"stop_reason": secret("a-stop")}, "usage": usage},
        {"type": "message_stop"},
    ]
    headers = {"request-id": secret("a-header"), "retry-after": secret("a-retry")}
    return Script([Raw(event) for event in events], headers=headers)


def ask(server: ProviderServer, surfaces: Any, read: Any) -> None:
    """One call through a real SDK; how it ends is not the question here."""
    with contextlib.suppress(Exception):
        use(surfaces.client_for(server, asynchronous=False), read)


def provider_with_secrets(server: ProviderServer, secret: Secret) -> None:
    """Answers, failures and refusals of providers that put a secret wherever there is room."""
    refusal = HTTPError(400, body={"error": {"message": f"is {secret('refused')}", "type": secret("refused-type")}})
    server.add(chat_with_secrets(secret), [refusal], responses_with_secrets(secret), messages_with_secrets(secret))
    for _ in range(2):
        ask(server, openai_surfaces, lambda client: direct(openai_surfaces.chat(client.chat.completions.create)))
    ask(server, openai_surfaces, lambda client: direct(openai_surfaces.responses(client.responses.create)))
    ask(server, anthropic_surfaces, lambda client: direct(anthropic_surfaces.stream(client.messages.create)))


@pytest.mark.scenario("privacy/Secret in every field")
@pytest.mark.parametrize("level", ["timings", "redacted", "full"])
def test_a_secret_in_whatever_a_provider_says(
    server: ProviderServer, tmp_path: Path, sink: FileSink, level: str
) -> None:
    secret, tape = Secret(), tmp_path / "tape.db"
    tokentape.enable(db=tape, flush_ms=20, content=level)
    provider_with_secrets(server, secret)
    reader = TapeReader(tape)
    assert [call["status"] for call in reader.calls()] == ["completed", "error", "error", "completed"]
    while_open = raw_bytes(tape)
    tokentape.disable()
    leaks = secret.leaks(while_open, raw_bytes(tape), sink.path.read_bytes())
    if level == "full":
        # What is kept as numbers, and what the SDK's exception does not say.
        assert {*secret.places} - {*leaks} == {"logprob-bytes", "refused-type"}
    else:
        assert leaks == []


@pytest.mark.scenario("privacy/Provider's words at timings")
def test_at_timings_a_providers_word_is_kept_and_its_text_is_not(
    server: ProviderServer, tmp_path: Path, sink: FileSink
) -> None:
    places = iter(range(1000))

    class Said(Secret):
        def __call__(self, place: str) -> str:
            return f"Zanzibar says {place} {next(places)}"

    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20, content="timings", prompts=True)
    provider_with_secrets(server, Said())
    server.add(Script([Raw(chunk(said("Hel", finish="stop"), id="chatcmpl-7", service_tier="default"))]))
    ask(server, openai_surfaces, lambda client: direct(openai_surfaces.chat(client.chat.completions.create)))
    calls = tape.calls()
    assert [call["event_count"] for call in calls] == [5, 0, 0, 1, 1]
    columns = ("response_id", "response_model", "finish_reason", "response_meta_json", "content_level")
    assert [calls[-1][column] for column in columns] == [
        "chatcmpl-7", "gpt-x", "stop", '{"service_tier": "default"}', "timings"
    ]  # fmt: skip
    assert {part["content"] for part in tape.parts()} == {None}
    tokentape.disable()
    for text in (b"Zanzibar", b"says", b"harmless"):
        assert text not in raw_bytes(tape.path) + sink.path.read_bytes()


# Numbers, and words and ids that are ours, not a program's or a provider's.
OURS = {
    *("uid", "run_uid", "parent_uid", "call_uid", "trace_id", "span_id"),
    *("layer", "content_level", "status", "token_count_source", "kind"),
}


def test_every_field_that_can_hold_a_text_passes_the_gate() -> None:
    secret = Secret()
    gate = Gate("redacted", BUILT_IN)
    texts = {
        kind: {
            field.name: secret(f"{kind.__name__}-{field.name}")
            for field in fields(kind)
            if str(field.type).split(" ")[0] not in {"int", "bool"} and (field.name not in OURS or kind is Mark)
        }
        for kind in (Call, Run, Mark, Part)
    }
    numbers = dict.fromkeys(("started_unix_us", "duration_us", "part", "streaming"), 1)

    def filled(kind: Any) -> Any:
        ours = dict.fromkeys(OURS, "ours") | numbers
        names = {field.name for field in fields(kind)}
        return kind(**{name: value for name, value in (ours | texts[kind]).items() if name in names})

    passed = [gate.given(filled(kind)) for kind in (Call, Run, Mark)] + [gate.part(filled(Part))]
    # The prompt passes by itself; uids of a mark are ours.
    leaks = secret.leaks(repr(passed).encode())
    assert leaks == ["Call-prompt_json", "Mark-run_uid", "Mark-call_uid"]


@pytest.mark.scenario("privacy/Times of a masked stream")
def test_times_and_counts_of_a_masked_stream_are_those_of_one_in_full(tmp_path: Path) -> None:
    kept = {level: timed(tmp_path / f"{level}.db", level) for level in ("timings", "redacted", "full")}
    assert "[redacted:" in "".join(row["token"] for row in kept["redacted"].pop("said"))
    assert {row["token"] for row in kept["timings"].pop("said")} == {None}
    assert "sk-0123456789abcdef" in "".join(row["token"] for row in kept["full"].pop("said"))
    assert kept["timings"] == kept["redacted"] == kept["full"]
    assert len(kept["full"]["events"]) > 20
    assert kept["full"]["stalls"]


def timed(db: Path, level: str) -> dict[str, Any]:
    """The same call of several parts under a clock moved by hand; all that the tape holds of its times and counts."""
    fake, tape, random, text = FakeClock(), TapeReader(db), Random(3), text_of(SECRETS)
    tokentape.enable(db=db, clock=fake.clock, content=level, flush_ms=20, stall_ms=100)
    call = started()
    parts = [(call.part("text", number), cut(text, random)) for number in range(PARTS)]
    while parts:
        turn = int(random.random() * len(parts))
        number, pieces = parts[turn]
        asked = call.clock.monotonic_ns()
        fake.advance(ms=random.choice((1, 5, 20, 120)))
        call.add_chunk(asked, call.clock.monotonic_ns(), [Fragment(number, pieces.pop())])
        fake.advance(ms=random.choice((0, 0, 3)))
        if random.random() < 0.1:
            tokentape.flush(10)
        if not pieces:
            del parts[turn]
    call.end("completed")
    (row,) = tape.calls()
    kept = {
        "call": {name: value for name, value in row.items() if name not in {"uid", "content_level"}},
        "events": tape.rows("select token_index, offset_us, wait_us, part from llm_tokens"),
        "stalls": tape.rows("select * from llm_stalls"),
        "parts": tape.rows("select part, kind_id, choice, provider_index, name, external_id from llm_parts"),
        "said": tape.rows("select token from llm_tokens"),
    }
    tokentape.disable()
    return kept
