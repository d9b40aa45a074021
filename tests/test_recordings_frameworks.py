"""The recorded exchanges, asked for through LangChain and LlamaIndex: their own calls have what they were given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils

from recorded_frameworks import DIFFERENCES, WAYS, Way, differences_of, expected_of
from recordings import PAGE, Recording, recordings
from replayed import answer_on_tape, expected, replay

pytestmark = pytest.mark.must_run

NAMES = {"LangChain": "langchain", "LlamaIndex": "llama-index"}
CASES = [(way, one) for way in WAYS for one in recordings() if one.api == way.api]

Replayed = Mapping[str, Mapping[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Where each framework's calls are recorded."""
    folder = tmp_path_factory.mktemp("recordings")
    return {name: folder / f"{name}.db" for name in NAMES.values()}


@pytest.fixture(scope="module")
def replayed(tapes: Mapping[str, Path]) -> Replayed:
    """By framework, the calls of each exchange."""
    return {name: replay(tape, *_asked_by(name)) for name, tape in tapes.items()}


def _asked_by(framework: str) -> tuple[list[Recording], Any]:
    ways = {way.api: way for way in WAYS if way.framework == framework}
    chosen = [recording for recording in recordings() if recording.api in ways]
    return chosen, lambda recording: ways[recording.api].send(recording)


@pytest.mark.parametrize(("way", "recording"), CASES, ids=[f"{way.framework}-{one.id}" for way, one in CASES])
def test_a_frameworks_call_has_what_it_was_given(way: Way, recording: Recording, replayed: Replayed) -> None:
    own, request = replayed[way.framework][recording.key]
    assert (own["adapter"], own["layer"]) == (way.framework, "framework")
    assert own["streaming"] == int(recording.streaming) or own["status"] == "error"
    assert answer_on_tape(recording, own) == expected_of(way.framework, recording)
    # Nothing of it is lost: the request beneath is linked, and has all.
    assert request["parent_id"] == own["id"]
    if own["status"] != "error":
        assert answer_on_tape(recording, request) == expected(recording)


def test_a_difference_is_one() -> None:
    for way, recording in CASES:
        if differences_of(way.framework, recording):
            assert expected_of(way.framework, recording) != expected(recording), recording


@pytest.mark.scenario("storage/Totals over two layers")
@pytest.mark.usefixtures("recordings_here", "replayed")
@pytest.mark.parametrize("framework", NAMES.values())
def test_totals_over_both_layers_are_what_the_providers_said(framework: str, tapes: Mapping[str, Path]) -> None:
    said = [one for way, one in CASES if way.framework == framework and expected_of(framework, one).end[0] != "error"]
    db = sqlite_utils.Database(tapes[framework])
    (totals,) = db.query("select sum(call_count) as calls, sum(token_count) as tokens from run_stats")
    db.close()
    assert totals == {
        "calls": sum(way.framework == framework for way, _ in CASES),
        "tokens": sum(one.output_tokens or 0 for one in said),
    }


@pytest.mark.usefixtures("recordings_here")
def test_the_page_of_providers_has_what_frameworks_were_asked_for() -> None:
    rows = re.findall(r"^\| (LangChain|LlamaIndex) \| ([^|]+) \| (\d+) \| (\d+) \|$", _page(), re.MULTILINE)
    assert [(NAMES[name], model, int(streams), int(whole)) for name, model, streams, whole in rows] == [
        (way.framework, way.model, *(sum(one.streaming is kind for _, one in _cases(way)) for kind in (True, False)))
        for way in WAYS
    ]


@pytest.mark.usefixtures("recordings_here")
def test_the_page_of_providers_gives_a_reason_for_each_difference() -> None:
    rows = re.findall(r"^\| (LangChain|LlamaIndex) \| ([^|]+) \| (\d+) \| [^|]+ \| [^|]+ \|$", _page(), re.MULTILINE)
    shown = [sum(one in differences_of(way.framework, r) for way, r in CASES) for one in DIFFERENCES]
    assert [(NAMES[name], what, int(count)) for name, what, count in rows] == [
        (one.framework, one.what, count) for one, count in zip(DIFFERENCES, shown, strict=True)
    ]
    assert 0 not in shown


def _cases(way: Way) -> list[tuple[Way, Recording]]:
    return [case for case in CASES if case[0] is way]


def _page() -> str:
    return PAGE.read_text("utf-8")
