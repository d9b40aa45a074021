"""Where a setting comes from, and what is said of one that cannot be used."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

import tokentape
from programs import CLIENT, Program
from tokentape.errors import SettingsError
from tokentape.settings import Settings, default_db, is_disabled, is_strict, resolve
from tokentape.testing import Finish, ProviderServer, Text

ONE_CALL = """
import tokentape
tokentape.enable()
with tokentape.start_llm_stream(model="m") as stream:
    stream.add_token("a")
"""


def test_defaults_are_those_of_the_table() -> None:
    assert resolve({}, {}) == Settings(
        db=default_db(),
        content="redacted",
        redact=(),
        prompts=False,
        labels={},
        plugins=None,
        sample_rate=1.0,
        stall_ms=1000.0,
        flush_ms=250.0,
        max_buffer=100_000,
    )


def test_the_default_tape_is_in_the_users_data_folder() -> None:
    assert default_db() == Path(os.environ["XDG_DATA_HOME"]) / "tokentape" / "tape.db"


@pytest.mark.parametrize(
    ("name", "written", "meant", "keyword"),
    [
        ("db", "some/tape.db", Path("some/tape.db"), "other.db"),
        ("db", "none", None, "other.db"),
        ("content", "full", "full", "timings"),
        ("redact", "email badge=EMP-[0-9]{2,6}", ("email", "badge=EMP-[0-9]{2,6}"), ["phone"]),
        ("redact", "phone", ("phone",), ["name=jane roe"]),
        ("prompts", "1", True, False),
        ("prompts", "no", False, True),
        ("labels", "env=prod, service=chat", {"env": "prod", "service": "chat"}, {"n": 1}),
        ("plugins", "openai,other", ("openai", "other"), []),
        ("plugins", "", (), ["openai"]),
        ("sample_rate", "0.25", 0.25, 1),
        ("stall_ms", "500", 500.0, 200),
        ("flush_ms", "10", 10.0, 20),
        ("max_buffer", "7", 7, 8),
    ],
)
def test_environment_before_default_and_keyword_before_environment(
    name: str, written: str, meant: Any, keyword: Any
) -> None:
    environment = {f"TOKENTAPE_{name.upper()}": written}
    assert getattr(resolve({}, environment), name) == meant
    assert resolve({name: keyword}, environment) == resolve({name: keyword}, {})
    assert resolve({name: None}, environment) == resolve({}, environment)


@pytest.mark.parametrize(
    "name", ["DB", "CONTENT", "REDACT", "PROMPTS", "LABELS", "SAMPLE_RATE", "STALL_MS", "MAX_BUFFER"]
)
def test_an_empty_variable_is_one_that_is_not_set(name: str) -> None:
    assert resolve({}, {f"TOKENTAPE_{name}": ""}) == resolve({}, {})


@pytest.mark.parametrize(
    ("keywords", "environment", "message"),
    [
        ({"sampel_rate": 1}, {}, "unknown setting 'sampel_rate': did you mean sample_rate?"),
        ({"content": "everything"}, {}, "content='everything': expected one of timings, redacted, full."),
        ({"prompts": "maybe"}, {}, "prompts='maybe': expected 0 or 1."),
        ({"labels": "prod"}, {}, "labels='prod': expected key=value, separated by commas."),
        ({"labels": 7}, {}, "labels=7: expected key=value, separated by commas."),
        ({"sample_rate": 1.5}, {}, "sample_rate=1.5: expected a number from 0 to 1."),
        ({"sample_rate": float("nan")}, {}, "sample_rate=nan: expected a number from 0 to 1."),
        ({"stall_ms": 0}, {}, "stall_ms=0: expected milliseconds, from 1 to 86400000."),
        ({"flush_ms": "soon"}, {}, "flush_ms='soon': expected milliseconds, from 1 to 60000."),
        ({"max_buffer": 0}, {}, "max_buffer=0: expected a whole number of token events, from 1."),
        ({"max_buffer": float("inf")}, {}, "max_buffer=inf: expected a whole number of token events, from 1."),
        ({"db": 7}, {}, "db=7: expected a path, or none."),
        (
            {},
            {"TOKENTAPE_CONTENT": "everything"},
            "TOKENTAPE_CONTENT=everything: expected one of timings, redacted, full.",
        ),
        (
            {},
            {"TOKENTAPE_SAMPEL_RATE": "1"},
            "unknown environment variable TOKENTAPE_SAMPEL_RATE: did you mean TOKENTAPE_SAMPLE_RATE?",
        ),
    ],
)
def test_message_names_the_setting_and_what_was_expected(
    keywords: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        resolve(keywords, environment)
    assert str(refused.value) == message


def test_a_setting_like_no_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'xyz': known are db, content, .*, max_buffer"):
        resolve({"xyz": 1}, {})


def test_variables_that_are_no_settings_are_left_alone() -> None:
    switches = {f"TOKENTAPE_{name}": "1" for name in ("RUN", "RUN_NOTES", "DISABLED", "STRICT", "RECORDINGS")}
    assert resolve({}, switches | {"TOKENTAPER": "1", "PATH": "x"}) == resolve({}, {})


@pytest.mark.parametrize(("value", "on"), [("1", True), ("TRUE", True), (" yes ", True), ("0", False), ("", False)])
def test_switches(value: str, on: bool) -> None:
    assert is_disabled({"TOKENTAPE_DISABLED": value}) is on
    assert is_strict({"TOKENTAPE_STRICT": value}) is on


@pytest.mark.scenario("capture/Keyword before environment")
def test_stall_threshold_of_keyword_environment_and_default(tmp_path: Path) -> None:
    with_keyword = ONE_CALL.replace("enable()", "enable(stall_ms=200)")
    for code, environment in [
        (with_keyword, {"TOKENTAPE_STALL_MS": "500"}),
        (ONE_CALL, {"TOKENTAPE_STALL_MS": "500"}),
        (ONE_CALL, {}),
    ]:
        program = Program(tmp_path, code, environment=environment)
        assert program.run().returncode == 0
    rows = program.rows("select stall_threshold_ms from llm_calls order by id")
    assert [row["stall_threshold_ms"] for row in rows] == [200, 500, 1000]


@pytest.mark.scenario("capture/Unknown setting")
def test_a_wrong_keyword_raises_and_nothing_is_switched_on(tmp_path: Path) -> None:
    import openai

    before = {name: vars(openai.Stream)[name] for name in ("__stream__", "__init__", "close")}
    db = tmp_path / "folder" / "tape.db"
    with pytest.raises(ValueError, match=r"^unknown setting 'sampel_rate': did you mean sample_rate\?$"):
        tokentape.enable(db=db, sampel_rate=0.5)
    with pytest.raises(ValueError, match=r"^content='everything': expected one of timings, redacted, full\.$"):
        tokentape.enable(db=db, content="everything")
    assert tokentape.status()["recording"] is False
    assert {name: vars(openai.Stream)[name] for name in before} == before
    assert not db.parent.exists()


@pytest.mark.scenario("capture/Unknown setting")
def test_a_wrong_keyword_raises_while_recording_too(tmp_path: Path) -> None:
    tokentape.enable(db=tmp_path / "tape.db")
    with pytest.raises(ValueError, match="unknown setting 'sampel_rate'"):
        tokentape.enable(sampel_rate=0.5)
    assert tokentape.status()["recording"] is True


@pytest.mark.scenario("capture/Unusable environment value")
@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("TOKENTAPE_CONTENT", "expected one of timings, redacted, full"),
        ("TOKENTAPE_SAMPEL_RATE", "TOKENTAPE_SAMPLE_RATE"),
    ],
)
def test_a_program_with_a_wrong_variable_runs_on_unrecorded(
    server: ProviderServer, tmp_path: Path, variable: str, expected: str
) -> None:
    server.add([Text("Hel"), Text("lo"), Finish("stop")])
    answer = CLIENT + 'tokentape.enable()\nprint("".join(c.choices[0].delta.content or "" for c in ask()))\n'
    program = Program(tmp_path, answer, server=server.url, environment={variable: "everything"})
    ran = program.run()
    assert (ran.returncode, ran.stdout) == (0, "Hello\n")
    (line,) = ran.stderr.splitlines()
    assert variable in line
    assert expected in line
    assert not program.tape.exists()


def test_why_nothing_is_recorded_stands_in_the_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKENTAPE_CONTENT", "everything")
    tokentape.enable()
    reason = "TOKENTAPE_CONTENT=everything: expected one of timings, redacted, full."
    assert (tokentape.status()["recording"], tokentape.status()["reason"]) == (False, reason)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, f"tokentape: not recording: {reason}")
    ]
