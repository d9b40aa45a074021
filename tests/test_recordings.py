"""Every recorded exchange that an adapter can read, replayed through the real SDK, is on the tape as it was sent."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal

import pytest

from recorded_apis import APIS
from recordings import PAGE, Recording, recordings
from replayed import answer_on_tape, asked_for, base_url, expected, expected_parts, model_of, replay, uri_of

pytestmark = pytest.mark.must_run

# As the SDK's objects, or as bytes that the program reads itself.
Way = Literal["stream", "bytes"]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Each exchange's calls, one for each way of reading, from one tape that all of them were recorded on."""
    return replay(tmp_path_factory.mktemp("recordings") / "tape.db", recordings(), send_each_way)


def ways(recording: Recording) -> tuple[Way, ...]:
    """How an exchange is read: what is no stream has no two."""
    return ("stream", "bytes") if recording.streaming else ("stream",)


def send_each_way(recording: Recording) -> None:
    for way in ways(recording):
        send(recording, way)


def send(recording: Recording, way: Way) -> None:
    """Make the request again, as far as it matters to how the answer is read, and read the answer to its end."""
    api = APIS[recording.api]
    client = api.client(base_url=base_url(recording), api_key="none", max_retries=0)
    cast_to, chunk = api.types_for(uri_of(recording))
    body = {
        "model": model_of(recording),
        "n": asked_for(recording).get("n"),
        "stream": recording.streaming or None,
    }
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


@pytest.mark.scenario("adapters/Streams of real providers")
@pytest.mark.parametrize(
    ("recording", "way"),
    [pytest.param(one, way, id=f"{one.id}-{way}") for one in recordings() for way in ways(one)],
)
def test_recording_is_on_the_tape_as_it_was_sent(
    recording: Recording, way: Way, replayed: dict[str, list[dict[str, Any]]]
) -> None:
    call = dict(zip(ways(recording), replayed[recording.key], strict=True))[way]
    assert answer_on_tape(recording, call) == expected(recording)


@pytest.mark.usefixtures("recordings_here")
def test_recordings_are_here() -> None:
    assert recordings()


@pytest.mark.usefixtures("recordings_here")
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


@pytest.mark.usefixtures("recordings_here")
def test_the_page_of_providers_counts_exchanges_and_what_servers_do_differently() -> None:
    page = PAGE.read_text("utf-8")
    columns = [*APIS, "whole"]
    rows = re.findall(r"^\| ([\w:-]+) \| (\d*) \| (\d*) \| (\d*) \| (\d*) \| (\d*) \|$", page, re.MULTILINE)
    said = {(name, column): int(n) for name, *counts in rows for column, n in zip(columns, counts, strict=True) if n}
    assert said == Counter((one.provider, one.api if one.streaming else "whole") for one in recordings())
    features = Counter(feature for one in recordings() if one.streaming for feature in one.features)
    servers = page.partition("## What servers do differently")[2]
    different = re.findall(r"^\| .* \| `(\w+)` \| (\d+) \| .* \|$", servers, re.MULTILINE)
    assert len(different) == 18
    assert [name for name, count in different if features[name] != int(count)] == []
