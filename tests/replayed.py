"""Replays recorded exchanges, and tells what the tape has of each beside what the index of the recordings has."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlite_utils
import vcr
import yaml

import tokentape
from recorded_apis import APIS
from recordings import Recording, exchanges, sha256

KINDS = {
    "text": "text",
    "refusal": "refusal",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_summary": "reasoning",
    "thinking": "reasoning",
}
# For the index what was compacted is output; the tape leaves it out, since it is no answer.
NO_ANSWER = "compaction"
LABEL = "recording"
GZIP = b"\x1f\x8b"

Part = tuple[str, int, str]


@dataclass(frozen=True)
class Answer:
    """What is compared of one exchange.

    Attributes:
        parts: kind, choice and hash of the text of each part with text; None for an answer in one piece.
        end: status and finish reason.
        usage: input and output tokens; None where the index knows none.
    """

    parts: tuple[Part, ...] | None
    end: tuple[str, str | None]
    usage: tuple[int | None, int | None] | None


def replay(
    tape: Path, chosen: Iterable[Recording], send: Callable[[Recording], None]
) -> dict[str, list[dict[str, Any]]]:
    """Send the request of each recording again.

    Args:
        tape: where it is recorded.
        send: makes the request, and reads the answer to its end.

    Returns:
        By the recording's key the calls it has on the tape, each with its parts, in the order they began.
    """
    tokentape.enable(db=tape, content="full")
    try:
        for recording in chosen:
            with tokentape.label(**{LABEL: recording.key}), player(recording):
                send(recording)
        assert tokentape.flush(30)
    finally:
        tokentape.disable()
    db = sqlite_utils.Database(tape)
    replayed: dict[str, list[dict[str, Any]]] = {}
    labelled = "select c.*, l.value as label from llm_calls c join call_labels l on l.call_id = c.id and l.key = ?"
    for call in list(db.query(f"{labelled} order by c.id", [LABEL])):
        replayed.setdefault(call["label"], []).append({**call, "parts": parts_on(db, call["id"])})
    db.close()
    return replayed


def parts_on(db: sqlite_utils.Database, call_id: int) -> list[dict[str, Any]]:
    parts = "select p.*, k.name as kind from llm_parts p join token_kinds k on k.id = p.kind_id"
    return list(db.query(f"{parts} where call_id = ? order by part", [call_id]))


@contextmanager
def player(recording: Recording) -> Iterator[None]:
    """A cassette with just this exchange in it, asked for where the SDK asks for it."""
    exchange = exchanges(recording.file)[recording.interaction]
    uri = base_url(recording) + APIS[recording.api].path
    lone = {"version": 1, "interactions": [{**exchange, "request": {**exchange["request"], "uri": uri}}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.dump(lone, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=False)
        file.flush()
        cassette = vcr.VCR(record_mode="none", match_on=["method", "scheme", "host", "port", "path"])
        with cassette.use_cassette(file.name, allow_playback_repeats=True):
            yield


def uri_of(recording: Recording) -> str:
    """Where it was asked for."""
    return str(exchanges(recording.file)[recording.interaction]["request"]["uri"])


def base_url(recording: Recording) -> str:
    """What a client's `base_url` was."""
    return APIS[recording.api].base_url(uri_of(recording))


def asked_for(recording: Recording) -> dict[str, Any]:
    """The body of the request; empty where it was not recorded."""
    try:
        asked = json.loads(exchanges(recording.file)[recording.interaction]["request"].get("body") or "{}")
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def model_of(recording: Recording) -> str:
    """The model that was asked, or any where that was not recorded."""
    return str(asked_for(recording).get("model") or "m")


def events_of(recording: Recording) -> list[dict[str, Any]]:
    """The JSON of each event of the stream."""
    body = exchanges(recording.file)[recording.interaction]["response"]["body"]["string"]
    if isinstance(body, bytes):
        body = (gzip.decompress(body) if body.startswith(GZIP) else body).decode()
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]


def answer_on_tape(recording: Recording, call: dict[str, Any]) -> Answer:
    """What a call on the tape says."""
    found = [(part["kind"], part["choice"], sha256(part["content"])) for part in call["parts"] if part["content"]]
    return Answer(
        parts=in_order(found) if recording.streaming else None,
        end=(call["status"], call["finish_reason"]),
        usage=None if recording.output_tokens is None else (input_tokens(recording, call), call["output_tokens"]),
    )


def expected(recording: Recording) -> Answer:
    """What the index says, told as the tape tells it."""
    return Answer(
        parts=expected_parts(recording) if recording.streaming else None,
        end=expected_end(recording),
        usage=None if recording.output_tokens is None else (recording.input_tokens, recording.output_tokens),
    )


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Those of one kind and choice stay in order.

    Across kinds the order is left out: for the index an empty fragment is a part's first appearance, for the tape not.
    """
    return tuple(sorted(parts, key=lambda part: part[:2]))


def input_tokens(recording: Recording, call: dict[str, Any]) -> int | None:
    """As the index counts them: Anthropic's without the cached ones, which the tape adds."""
    if call["input_tokens"] is None:
        return None
    apart = ("cached_input_tokens", "cache_write_tokens") if recording.api == "anthropic-messages" else ()
    return int(call["input_tokens"]) - sum(call[name] or 0 for name in apart)


def expected_parts(recording: Recording) -> tuple[Part, ...]:
    outputs = [output for output in recording.outputs if output["chars"] and not output["key"].endswith(NO_ANSWER)]
    parts = [(*kind_and_choice(output["key"]), output["sha256"]) for output in outputs]
    if "done_without_delta" in recording.features:
        # The index lists what deltas brought; arguments that came whole, without any, are on the tape too.
        parts += [("tool_args", 0, sha256(arguments)) for arguments in whole_arguments(recording)]
    return in_order(parts)


def whole_arguments(recording: Recording) -> list[str]:
    return [
        event["arguments"] for event in events_of(recording) if event["type"] == "response.function_call_arguments.done"
    ]


def kind_and_choice(key: str) -> tuple[str, int]:
    choice = re.match(r"choice(\d+)/", key)
    return KINDS.get(key.rpartition("/")[2], "tool_args"), int(choice[1]) if choice else 0


def expected_end(recording: Recording) -> tuple[str, str | None]:
    """Status and finish reason, from the index's one column for both."""
    said = recording.finish_reason
    if recording.status >= 400 or said.startswith("error:"):
        return "error", None
    if said.startswith("0=failed"):
        # An `error` event comes before `response.failed`: the SDK raises at the first and never reads the second.
        return "error", None
    choices = dict(item.split("=") for item in said.split(";")) if "=" in said else {}
    if choices:
        return "completed", json.dumps([choices[key] for key in sorted(choices, key=int)])
    return "completed", said or None
