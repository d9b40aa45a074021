"""What is masked beside the built-in kinds: kinds that are asked for, patterns of the user's own and of plugins."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokentape
from programs import Program
from tape_reader import TapeReader
from tokentape import recording
from tokentape.errors import SettingsError
from tokentape.redaction import Pattern
from tokentape.testing import Finish, ProviderServer, Script, Text

SAID = "Ask jane@doe.example, +49 170 1234567, about EMP-123456 and C-42. "
# Ends only after 2^n steps, for n letters, and not where it is tried.
ENDLESS = Pattern("endless", r"(?<=<)(?:a|aa)+!")
HARD = f"<{'a' * 60}"


@pytest.fixture
def register() -> Iterator[Any]:
    """Registers plugins for the length of the test."""
    before = list(recording._registered)
    yield tokentape.register
    recording._registered[:] = before


class Redactors:
    """A plugin that adds patterns."""

    def __init__(self, *patterns: Any) -> None:
        self._patterns = patterns

    @tokentape.hookimpl
    def tokentape_redactors(self) -> Any:
        for pattern in self._patterns:
            if isinstance(pattern, Exception):
                raise pattern
            yield pattern


def say(*texts: str) -> None:
    with tokentape.start_llm_stream(model="m") as stream:
        for text in texts:
            stream.add_token(text)


def kept(tape: TapeReader) -> list[str]:
    return [part["content"] for part in tape.parts()]


@pytest.mark.scenario("privacy/Kinds that are asked for")
@pytest.mark.parametrize(
    ("redact", "expected"),
    [
        ("", SAID),
        ("email", "Ask [redacted:email], +49 170 1234567, about EMP-123456 and C-42. "),
        ("email phone", "Ask [redacted:email], [redacted:phone], about EMP-123456 and C-42. "),
        (
            "phone badge=EMP-[0-9]{6}",
            "Ask jane@doe.example, [redacted:phone], about [redacted:badge] and C-42. ",
        ),
    ],
)
def test_kinds_that_the_environment_asks_for(tmp_path: Path, redact: str, expected: str) -> None:
    code = (
        f"import tokentape\ntokentape.enable()\nwith tokentape.start_llm_stream() as stream:\n    for c in {SAID!r}:\n"
    )
    program = Program(tmp_path, f"{code}        stream.add_token(c)\n", environment={"TOKENTAPE_REDACT": redact})
    assert program.run().stderr == ""
    assert [row["content"] for row in program.rows("select content from llm_parts")] == [expected]


@pytest.mark.scenario("privacy/Pattern of one's own")
def test_patterns_of_the_setting_and_of_a_plugin(tmp_path: Path, register: Any) -> None:
    register(Redactors(Pattern("customer", r"\bC-[0-9]+")))
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, redact=["email", "badge=EMP-[0-9]{6}", "name=jane roe"])
    with tokentape.label(who="jane roe, C-7"):
        say(*SAID, "jane", " roe", ".")
    assert kept(tape) == [
        "Ask [redacted:email], +49 170 1234567, about [redacted:badge] and [redacted:customer]. [redacted:name]."
    ]
    assert tape.rows("select value from call_labels") == [{"value": "[redacted:name], [redacted:customer]"}]
    assert tokentape.status()["settings"]["redact"] == ("email", "badge=EMP-[0-9]{6}", "name=jane roe")


BAD = [
    ("e-mail", "expected email, phone or KIND=EXPRESSION, separated by spaces."),
    ("=EMP", "expected email, phone or KIND=EXPRESSION, separated by spaces."),
    ("no kind=EMP", "expected email, phone or KIND=EXPRESSION, separated by spaces."),
    ("badge=(EMP", "badge: missing ) at position 4; correct the expression."),
    (
        "badge=(?:a|aa)+!",
        "badge: a search in 'aaaaaaaaaaaa'… does not end; write it without a repetition inside a repetition.",
    ),
    (
        "badge=EMP-(?:0|00)+x",
        "badge: a search in 'EMP-00000000'… does not end; write it without a repetition inside a repetition.",
    ),
]


@pytest.mark.scenario("privacy/Pattern that cannot be used")
@pytest.mark.parametrize(("redact", "message"), BAD)
def test_a_pattern_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, redact: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        tokentape.enable(db=tmp_path / "folder" / "tape.db", redact=redact)
    assert str(refused.value) == f"redact={redact!r}: {message}"
    assert not (tmp_path / "folder").exists()
    assert tokentape.status()["recording"] is False


@pytest.mark.scenario("privacy/Pattern that cannot be used")
def test_a_program_with_a_wrong_pattern_in_its_environment_runs_on_unrecorded(tmp_path: Path) -> None:
    code = "import tokentape\ntokentape.enable()\nprint('done')\n"
    program = Program(tmp_path, code, environment={"TOKENTAPE_REDACT": "badge=(EMP"})
    line = "TOKENTAPE_REDACT=badge=(EMP: badge: missing ) at position 4; correct the expression."
    ran = program.run()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", f"tokentape: not recording: {line}\n")
    ran = program.run(sys.executable, "-m", "tokentape", "run")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [said for said in ran.stderr.splitlines() if line in said] == ran.stderr.splitlines()[-1:]
    assert not program.tape.exists()


@pytest.mark.scenario("privacy/Pattern that never ends")
@pytest.mark.usefixtures("lenient")
def test_a_pattern_that_never_ends_hides_the_text_and_not_the_stream(
    server: ProviderServer, tmp_path: Path, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import openai

    register(Redactors(ENDLESS))
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20)
    say("not yet. ")
    assert tokentape.flush(10)
    words = ["Look: ", HARD, *(f" word{number}" for number in range(50))]
    server.add(Script([*((0.005, Text(word)) for word in words), Finish("stop")]))
    began = time.process_time()
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model="gpt-x", messages=[], stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content] == words
    assert tokentape.flush(10)
    # Many times as long is what only two searches would take that are not stopped.
    assert time.process_time() - began < 10
    before, hidden = kept(tape)
    assert before == "not yet. "
    assert "[redacted:endless]" in hidden
    assert "aaaa" not in hidden
    _, second = tape.calls()
    assert (second["event_count"], second["status"], second["dropped_count"]) == (len(words), "completed", 0)
    (record,) = caplog.records
    assert record.getMessage() == (
        "redaction pattern 'endless': a search did not end in time, what it was searching is masked whole; correct it. "
        "The program is not affected."
    )
    assert tokentape.status()["faults"].keys() == {"redaction pattern 'endless'"}
    tokentape.disable()
    assert b"aaaaaaaa" not in b"".join(path.read_bytes() for path in tmp_path.glob("tape.db*"))


@pytest.mark.usefixtures("lenient")
def test_redactors_that_cannot_be_used_keep_nobody_else_out(
    tmp_path: Path, register: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong:
        kind = "wrong"
        pattern = "EMP"

    register(Redactors(Pattern("badge", "EMP-[0-9]{6}"), OSError("no list"), Pattern("late", "word")))
    register(Redactors(Wrong()))
    register(Redactors(Pattern("customer", r"\bC-[0-9]+")))
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path)
    say("EMP-123456 and C-42, a word. ")
    assert kept(tape) == ["[redacted:badge] and [redacted:customer], a word. "]
    said = [record.getMessage().partition("(")[2].partition(")")[0] for record in caplog.records]
    assert said == [
        "TypeError: redactor 'wrong': its pattern has to be one that the regex library has compiled",
        "OSError: no list",
    ]


@pytest.mark.scenario("privacy/Label that is not text")
@pytest.mark.parametrize("value", [None, {"a": 1}, ["a"], b"a", object(), print])
def test_a_label_that_is_not_text_is_refused_where_it_is_written(tape: TapeReader, value: Any) -> None:
    message = f"label user: expected a text, got {type(value).__name__}"
    with pytest.raises(TypeError) as refused:
        tokentape.label(env="test", user=value)
    assert str(refused.value) == message
    say("a ")
    assert tape.rows("select * from call_labels") == []
    tokentape.disable()
    with pytest.raises(SettingsError) as refused_setting:
        tokentape.enable(labels={"user": value})
    assert str(refused_setting.value) == f"labels={ {'user': value}!r}: {message}."
