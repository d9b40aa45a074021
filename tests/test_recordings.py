"""Every recorded exchange that an adapter can read, replayed through the real SDK, is on the tape as it was sent."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlite_utils
import vcr
import yaml

import tokentape
from recorded_apis import APIS
from recordings import Recording, exchanges, folder, recordings, sha256

pytestmark = pytest.mark.must_run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"
KINDS = {
    "text": "text",
    "refusal": "refusal",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_summary": "reasoning",
    "thinking": "reasoning",
}
# Through the SDK's stream, or its bytes past that.
Way = Literal["stream", "bytes"]
Key = tuple[str, int, Way]
# For the index what was compacted is output; the tape leaves it out, since it is no answer.
NO_ANSWER = "compaction"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Key, dict[str, Any]]]:
    """Each exchange's calls, with their parts, read back from one tape that all of them were recorded on."""
    tape = tmp_path_factory.mktemp("recordings") / "tape.db"
    tokentape.enable(db=tape, content="full")
    uids: dict[Key, str] = {}
    try:
        for file in dict.fromkeys(recording.file for recording in recordings()):
            replay(file, uids)
        assert tokentape.flush(30)
    finally:
        tokentape.disable()
    db = sqlite_utils.Database(tape)
    yield {key: read_back(db, uid) for key, uid in uids.items()}
    db.close()


def replay(file: str, uids: dict[Key, str]) -> None:
    for recording in recordings():
        if recording.file == file:
            with player(recording):
                for way in ways(recording):
                    send(recording, way)
                    call = tokentape.last_call()
                    assert call is not None
                    uids[file, recording.interaction, way] = call.uid


def ways(recording: Recording) -> tuple[Way, ...]:
    """How an exchange is read: what is no stream has no two."""
    return ("stream", "bytes") if recording.streaming else ("stream",)


@contextmanager
def player(recording: Recording) -> Iterator[None]:
    """A cassette with just this exchange in it, asked for where the SDK asks for it."""
    exchange = exchanges(recording.file)[recording.interaction]
    api = APIS[recording.api]
    uri = api.base_url(str(exchange["request"]["uri"])) + api.path
    lone = {"version": 1, "interactions": [{**exchange, "request": {**exchange["request"], "uri": uri}}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.dump(lone, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=False)
        file.flush()
        cassette = vcr.VCR(record_mode="none", match_on=["method", "scheme", "host", "port", "path"])
        with cassette.use_cassette(file.name, allow_playback_repeats=True):
            yield


def send(recording: Recording, way: Way) -> None:
    """Make the request again, as far as it matters to how the answer is read, and read the answer to its end."""
    request = exchanges(recording.file)[recording.interaction]["request"]
    asked, api, uri = asked_for(request), APIS[recording.api], str(request["uri"])
    client = api.client(base_url=api.base_url(uri), api_key="none", max_retries=0)
    cast_to, chunk = api.types_for(uri)
    body = {"model": asked.get("model") or "m", "n": asked.get("n"), "stream": recording.streaming or None}
    try:
        answer: Any = client.post(
            api.path,
            body={key: value for key, value in body.items() if value is not None},
            cast_to=cast_to,
            stream=recording.streaming,
            stream_cls=api.stream[chunk],
            # What `with_streaming_response` asks for.
            options={"headers": {"X-Stainless-Raw-Response": "stream"}} if way == "bytes" else {},
        )
        for _ in answer.iter_bytes() if way == "bytes" else answer if recording.streaming else ():
            pass
    except api.error:
        assert recording.status >= 400 or "error_mid_stream" in recording.features


def asked_for(request: dict[str, Any]) -> dict[str, Any]:
    try:
        asked = json.loads(request.get("body") or "{}")
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def read_back(db: sqlite_utils.Database, uid: str) -> dict[str, Any]:
    (call,) = db.query("select * from llm_calls where uid = ?", [uid])
    parts = "select p.*, k.name as kind from llm_parts p join token_kinds k on k.id = p.kind_id"
    return {**call, "parts": list(db.query(f"{parts} where call_id = ? order by part", [call["id"]]))}


@pytest.mark.scenario("adapters/Streams of real providers")
@pytest.mark.parametrize(
    ("recording", "way"),
    [pytest.param(one, way, id=f"{one.id}-{way}") for one in recordings() for way in ways(one)],
)
def test_recording_is_on_the_tape_as_it_was_sent(
    recording: Recording, way: Way, replayed: dict[Key, dict[str, Any]]
) -> None:
    call = replayed[recording.file, recording.interaction, way]
    if recording.streaming:
        assert parts_of(call) == expected_parts(recording)
    assert (call["status"], call["finish_reason"]) == expected_end(recording)
    if recording.output_tokens is not None:
        assert (input_tokens(recording, call), call["output_tokens"]) == (
            recording.input_tokens,
            recording.output_tokens,
        )


@pytest.fixture
def _recordings_here() -> None:
    if not recordings():
        pytest.skip(f"no recordings in {folder()}; set TOKENTAPE_RECORDINGS to their folder")


@pytest.mark.usefixtures("_recordings_here")
def test_recordings_are_here() -> None:
    assert recordings()


def input_tokens(recording: Recording, call: dict[str, Any]) -> int:
    """As the index counts them: Anthropic's without the cached ones, which the tape adds."""
    apart = ("cached_input_tokens", "cache_write_tokens") if recording.api == "anthropic-messages" else ()
    return int(call["input_tokens"]) - sum(call[name] or 0 for name in apart)


def parts_of(call: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Kind, choice and hash of the text of every part that has text; those of one kind and choice in order.

    Across kinds the order is left out: for the index an empty fragment is a part's first appearance, for the tape not.
    """
    found = [(part["kind"], part["choice"], sha256(part["content"])) for part in call["parts"] if part["content"]]
    return sorted(found, key=lambda part: part[:2])


def expected_parts(recording: Recording) -> list[tuple[str, int, str]]:
    outputs = [output for output in recording.outputs if output["chars"] and not output["key"].endswith(NO_ANSWER)]
    expected = [(*kind_and_choice(output["key"]), output["sha256"]) for output in outputs]
    if "done_without_delta" in recording.features:
        # The index lists what deltas brought; arguments that came whole, without any, are on the tape too.
        expected += [("tool_args", 0, sha256(arguments)) for arguments in whole_arguments(recording)]
    return sorted(expected, key=lambda part: part[:2])


def whole_arguments(recording: Recording) -> list[str]:
    body = exchanges(recording.file)[recording.interaction]["response"]["body"]["string"]
    text = body.decode() if isinstance(body, bytes) else body
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [event["arguments"] for event in events if event["type"] == "response.function_call_arguments.done"]


def kind_and_choice(key: str) -> tuple[str, int]:
    choice = re.match(r"choice(\d+)/", key)
    return KINDS.get(key.rpartition("/")[2], "tool_args"), int(choice[1]) if choice else 0


def expected_end(recording: Recording) -> tuple[str, str | None]:
    """Status and finish reason, from the index's one column for both."""
    expected = recording.finish_reason
    if recording.status >= 400 or expected.startswith("error:"):
        return "error", None
    if expected.startswith("0=failed"):
        # An `error` event comes before `response.failed`: the SDK raises at the first and never reads the second.
        return "error", None
    choices = dict(item.split("=") for item in expected.split(";")) if "=" in expected else {}
    if choices:
        return "completed", json.dumps([choices[key] for key in sorted(choices, key=int)])
    return "completed", expected or None


@pytest.mark.usefixtures("_recordings_here")
def test_the_page_of_providers_has_the_counts_of_the_recordings() -> None:
    streams = [recording for recording in recordings() if recording.streaming]
    assert dict(re.findall(r"^\| ([\w ]+) \| (\d+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)) == {
        "exchanges": str(len(recordings())),
        "of these streamed": str(len(streams)),
        "recordings": str(len({recording.file for recording in recordings()})),
        "projects that recorded them": str(len({recording.file.partition("/")[0] for recording in recordings()})),
        "parts of answers with text": str(sum(len(expected_parts(recording)) for recording in streams)),
        "exchanges with token counts": str(sum(recording.output_tokens is not None for recording in recordings())),
        "differences without a reason below": "0",
    }


@pytest.mark.usefixtures("_recordings_here")
def test_the_page_of_providers_counts_exchanges_and_what_servers_do_differently() -> None:
    page = PAGE.read_text("utf-8")
    columns = [*APIS, "whole"]
    rows = re.findall(r"^\| ([\w:-]+) \| (\d*) \| (\d*) \| (\d*) \| (\d*) \| (\d*) \|$", page, re.MULTILINE)
    said = {(name, column): int(n) for name, *counts in rows for column, n in zip(columns, counts, strict=True) if n}
    assert said == Counter((one.provider, one.api if one.streaming else "whole") for one in recordings())
    features = Counter(feature for one in recordings() if one.streaming for feature in one.features)
    different = re.findall(r"^\| .* \| `(\w+)` \| (\d+) \| .* \|$", page, re.MULTILINE)
    assert len(different) == 18
    assert [name for name, count in different if features[name] != int(count)] == []
