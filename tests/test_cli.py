"""The commands that read a tape: what they print, as words and as JSON, and how they answer mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tokentape
from tokentape import process
from tokentape.cli import cli
from tokentape.models import Mark, Metrics, Part, TokenBatch, Usage
from tokentape.store import schema
from tokentape.store.plugin import SQLiteStore
from values import STARTED_US, call_value, finished, run_value, stall

COMMANDS = (
    *("demo", "forget", "list", "metadata", "path", "plugins", "ps", "recover", "run", "serve", "show", "snapshot"),
    "status",
)
UIDS = [f"01M858PE6MEBSPETY408BSK7F{letter}" for letter in "ABCDEFGH"]
LINE = re.compile(r"^Error: .+\n$")


class Tape:
    """A tape that a test fills by the hooks, as the writer does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SQLiteStore(path, process.this_process("app.py"), max_buffer=1000)
        self.store.tokentape_run_started(run_value())
        self.count = 0

    def add(self, tokens: Any = ("Hel", "lo"), end: dict[str, Any] | None = None, **fields: Any) -> str:
        """Record a call with an event every 100 ms; without `end` it has completed, with `end=False` it runs."""
        uid = UIDS[self.count]
        fields = {"started_unix_us": STARTED_US + self.count * 1_000_000} | fields
        call = call_value(uid, **fields)
        self.count += 1
        times = [100_000 * i for i in range(1, len(tokens) + 1)]
        part = Part(0, "text")
        self.store.tokentape_call_started(call)
        self.store.tokentape_tokens(
            call, TokenBatch(times, [100_000] * len(tokens), [0] * len(tokens), list(tokens), parts=(part,))
        )
        if end is not False:
            self.store.tokentape_call_finished(
                finished(call, **{"parts": (part,), "event_count": len(tokens), "finish_reason": "stop"} | (end or {}))
            )
        self.store.tokentape_flush()
        return uid


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    tape = Tape(tmp_path / "tape.db")
    yield tape
    tape.store.tokentape_shutdown()


@pytest.fixture
def run(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the tape."""
    monkeypatch.setenv("TOKENTAPE_DB", str(tape.path))
    return run_cli


def run_cli(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, prog_name="tokentape")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def loaded(result: Result) -> Any:
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)
    return json.loads(result.stdout)


# Manners


@pytest.mark.scenario("cli/Clean JSON")
@pytest.mark.parametrize("command", ["list", "show", "ps", "status", "plugins"])
def test_json_is_one_document_on_stdout(command: str, tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(["\x1b[31mred\x00"], end=False)
    assert loaded(run(command, "--json"))


def test_json_of_a_list_without_calls_is_an_empty_list_with_the_note_on_stderr(run: Callable[..., Result]) -> None:
    result = run("list", "--json", "--model", "none")
    assert (loaded(result), result.stderr) == ([], "No call is like that; see: tokentape list\n")


@pytest.mark.scenario("cli/Hostile text")
@pytest.mark.parametrize("command", ["list", "show", "status", ""])
def test_recorded_text_cannot_talk_to_the_terminal(command: str, tape: Tape, run: Callable[..., Result]) -> None:
    hostile = "\x1b]0;owned\x07[red]\x00\x9b"
    end = {"status": "error", "error_message": hostile, "error_type": hostile, "response_model": hostile}
    tape.add([hostile, "line\nbreak"], end, request_model=hostile, labels={"k": hostile}, name=hostile)
    shown = run(*command.split()).output
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    if command != "status":
        assert r"\x1b]0;owned\x07[red]\x00\x9b" in shown


def test_text_that_the_terminal_cannot_encode_is_escaped(tape: Tape) -> None:
    tape.add(["Grüße 日"])
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "tokentape", "show", "--db", tape.path]
    ran = subprocess.run(command, env=environ, capture_output=True, encoding="latin-1", check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("text:\nGrüße \\u65e5\n")


@pytest.mark.scenario("cli/Help")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_option_with_its_meaning_and_an_example(command: str) -> None:
    result = run_cli(command, "--help")
    assert result.exit_code == 0
    assert re.search(r"Example:\n    tokentape|Example:\n    sqlite-utils", result.stdout)
    # Every option has text beside or below it.
    options = re.split(r"\n  (?=-)", result.stdout.partition("Options:\n")[2].partition("\n\n")[0])
    assert len(options) > 1
    assert all(len(re.split(r"\s{2,}|\n", option.strip())) > 1 for option in options)


def test_help_names_every_command() -> None:
    shown = run_cli("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z]", line)] == list(COMMANDS)


def test_python_m_tokentape_is_the_same_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "tokentape", "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"tokentape, version {tokentape.__version__}\n")


def test_help_and_run_start_without_what_only_tables_need() -> None:
    code = (
        "import sys; from tokentape.cli import cli; import tokentape.cli.run\n"
        "try: cli(['run', '--help'])\n"
        "except SystemExit: print(*sorted({'rich', 'sqlite_utils', 'openai'} & set(sys.modules)), 'end')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("\nend\n") or ran.stdout.endswith("\n end\n")


# Mistakes


@pytest.mark.scenario("cli/Unusable tape")
@pytest.mark.parametrize("command", ["list", "show", "ps"])
def test_unusable_tape_is_named_with_the_reason_and_left_alone(command: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database, whatever its name says" * 100)
    with sqlite3.connect(tmp_path / "other") as other:
        other.executescript("CREATE TABLE t (a); PRAGMA application_id = 7")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    reasons = {
        "none": "does not exist",
        "folder": "is a folder",
        "text": "not an SQLite",
        "other": "another application",
    }
    for name, reason in reasons.items():
        result = run_cli(command, "--db", str(tmp_path / name))
        assert (result.exit_code, result.stdout) == (1, "")
        assert LINE.match(result.stderr)
        assert str(tmp_path / name) in result.stderr
        assert reason in result.stderr
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_tape_set_to_none_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_DB", "none")
    result = run_cli("list")
    assert (result.exit_code, bool(LINE.match(result.stderr))) == (1, True)
    assert "--db PATH" in result.stderr


@pytest.mark.scenario("cli/Unknown call")
def test_unknown_call_is_named(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add()
    for ref in ("zzz", "-7", "12345"):
        result = run("show", ref)
        assert (result.exit_code, result.stdout) == (1, "")
        assert LINE.match(result.stderr)
        assert ref in result.stderr
        assert "tokentape list" in result.stderr


@pytest.mark.scenario("cli/Ambiguous call")
def test_ambiguous_call_is_named_with_what_it_could_mean(tape: Tape, run: Callable[..., Result]) -> None:
    one, two = tape.add(), tape.add()
    result = run("show", one[:6])
    assert (result.exit_code, bool(LINE.match(result.stderr))) == (1, True)
    assert all(name in result.stderr for name in (one[:6], one, two))


@pytest.mark.scenario("cli/Wrong usage")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dance"], "dance"),
        (["list", "--colour"], "--colour"),
        (["list", "-n", "many"], "many"),
        (["list", "-n", "0"], "0"),
        (["list", "--status", "broken"], "broken"),
        (["list", "--label", "env"], "env"),
        (["run", "--label", "=x", "app.py"], "=x"),
        (["run", "--label", "a=b,c", "app.py"], "a=b,c"),
        (["run", "--content", "all", "app.py"], "all"),
        (["run"], "TARGET"),
        (["show", "-x"], "-x"),
        (["show", "--metric", "speed"], "speed"),
    ],
)
def test_wrong_usage_is_named_in_one_line(arguments: list[str], named: str, run: Callable[..., Result]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert LINE.match(result.stderr)
    assert named in result.stderr
    assert "--help" in result.stderr


@pytest.mark.parametrize("command", [[], ["status"], ["path"], ["run", "app.py"]])
def test_wrong_setting_in_the_environment_is_named(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_STALL_MS", "soon")
    result = run_cli(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: TOKENTAPE_STALL_MS=soon: expected milliseconds, from 1 to 86400000.\n"


# Alone


@pytest.mark.scenario("cli/No tape yet")
def test_alone_without_a_tape_it_proposes_run_and_demo(tmp_path: Path) -> None:
    result = run_cli("--db", str(tmp_path / "new" / "tape.db"))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"Tape: {tmp_path / 'new' / 'tape.db'}",
        "Nothing is recorded yet.",
        "Next: tokentape run app.py, or without a program of your own: tokentape demo",
    ]
    assert not (tmp_path / "new").exists()


@pytest.mark.scenario("cli/Tape with calls")
def test_alone_with_calls_it_proposes_show(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add()
    tape.add(end={"metrics": Metrics(first_token_latency_ms=100.0)})
    assert run().stdout.splitlines() == [
        f"Tape: {tape.path}",
        "2 calls, the last one gpt-x 18:00:01 completed, first token 0.1 s",
        "Next: tokentape show",
    ]


def test_db_before_the_command_counts_and_the_one_behind_it_counts_more(tape: Tape, tmp_path: Path) -> None:
    tape.add()
    assert len(loaded(run_cli("--db", str(tape.path), "list", "--json"))) == 1
    assert run_cli("--db", str(tape.path), "path", "--db", "other.db").stdout == "other.db\n"


# list


@pytest.mark.scenario("cli/Newest first")
def test_list_shows_the_newest_calls_first(tape: Tape, run: Callable[..., Result]) -> None:
    _, two, three = tape.add(), tape.add(), tape.add()
    assert [row["uid"] for row in loaded(run("list", "-n", "2", "--json"))] == [three, two]
    assert [line.split()[0] for line in run("list", "-n", "2").stdout.splitlines()] == ["uid", three, two]


def test_list_has_a_line_of_everything_worth_knowing(tape: Tape, run: Callable[..., Result]) -> None:
    numbers = Metrics(
        first_token_latency_ms=100.0, tokens_per_second=19.5, inter_chunk_max_ms=4200.0, tail_gap_ms=0.0, stall_count=1
    )
    end = {"metrics": numbers, "stalls": (stall(1, gap_us=4_200_000, cause="own"),)}
    uid = tape.add(["Two\n", "lines"], end, started_unix_us=0)
    head, line = run("list").stdout.splitlines()
    assert head.split() == ["uid", "when", "status", "first", "rate", "longest", "gap", "model", "text"]
    assert line.split() == f"{uid} 1970-01-01 completed 0.1 s 19.5 tok/s 4.2 s own gpt-x Two lines".split()


def test_list_narrows_to_a_run_and_names_runs_where_there_are_several(tape: Tape, run: Callable[..., Result]) -> None:
    one = tape.add()
    tape.store.tokentape_run_started(run_value("REQUEST", name="POST /chat"))
    two = tape.add(run_uid="REQUEST")
    head, *lines = run("list").stdout.splitlines()
    assert head.split()[-3:] == ["model", "run", "text"]
    assert ["POST /chat" in line for line in lines] == [True, False]
    assert [row["uid"] for row in loaded(run("list", "--run", "POST /chat", "--json"))] == [two]
    assert [row["run_name"] for row in loaded(run("list", "--json"))] == ["POST /chat", "nightly"]
    assert one in run("list", "--run", "nightly").stdout
    nowhere = run("list", "--run", "nowhere")
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert nowhere.stderr.startswith("Error: no run answers to 'nowhere'")


def test_list_has_the_time_of_day_for_calls_of_today(tape: Tape, run: Callable[..., Result]) -> None:
    now = int(time.time())
    tape.add(started_unix_us=now * 1_000_000)
    assert run("list").stdout.splitlines()[1].split()[1] == time.strftime("%H:%M:%S", time.gmtime(now))


@pytest.mark.scenario("cli/Filters")
def test_list_shows_only_calls_that_fulfil_all_filters(tape: Tape, run: Callable[..., Result]) -> None:
    failed = {"status": "error"}
    tape.add(end=failed, labels={"env": "test"})
    tape.add(end=failed, labels={"env": "prod"}, request_model="other")
    tape.add(labels={"env": "prod"})
    wanted = tape.add(end=failed, labels={"env": "prod", "user": "17"})
    filters = ["--status", "error", "--model", "gpt-x", "--label", "env=prod"]
    assert [row["uid"] for row in loaded(run("list", "--json", *filters))] == [wanted]
    nothing = run("list", *filters, "--label", "user=18")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "No call is like that; see: tokentape list\n")


def test_list_on_an_empty_tape_says_so(run: Callable[..., Result]) -> None:
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No call is recorded yet: tokentape run app.py\n"


@pytest.mark.scenario("cli/Unknown rate")
def test_list_has_events_per_second_where_tokens_are_not_counted(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(end={"metrics": Metrics(events_per_second=17.8)})
    tape.add(end={"metrics": Metrics(events_per_second=17.8, tokens_per_second=19.5)})
    shown = run("list").stdout.splitlines()
    assert [re.search(r"[\d.]+ (tok|events)/s", line)[0] for line in shown[1:]] == ["19.5 tok/s", "17.8 events/s"]


@pytest.mark.parametrize("columns", [80, 119, 120, 140])
def test_list_fits_the_terminal(columns: int, tape: Tape) -> None:
    numbers = Metrics(first_token_latency_ms=99_000.0, events_per_second=117.8, inter_chunk_max_ms=99_000.0)
    end = {"metrics": numbers, "status": "abandoned", "stalls": (stall(1),)}
    for model in ("a-model-with-a-very-long-name-that-goes-on", "m"):
        tape.add(["word " * 40, ""], end, request_model=model)
    with sqlite3.connect(tape.path) as db:
        db.execute("UPDATE llm_calls SET uid = '01M858PE6MEBSPETY408BSK7FA' WHERE id = 1")
        db.execute("UPDATE llm_calls SET uid = '01M858PE6MEBSPE9Y408BSK7FA' WHERE id = 2")
    shown = on_terminal(["list", "--db", str(tape.path)], columns)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    assert len(lines) == 3
    digits = 26 if columns == 140 else 16
    assert [line.split()[0] for line in lines] == [
        "uid",
        "01M858PE6MEBSPE9Y408BSK7FA"[:digits],
        "01M858PE6MEBSPETY408BSK7FA"[:digits],
    ]
    assert all("99.0 s 117.8 events/s 99.0 s upstream" in " ".join(line.split()) for line in lines[1:])
    assert ("word" in lines[1]) == (columns >= 120)
    assert lines[0].split()[-1] == ("text" if columns >= 120 else "model")


def on_terminal(arguments: list[str], columns: int) -> str:
    """What a command prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "tokentape", *arguments]
    with subprocess.Popen(command, stdout=theirs, env=environment) as program:
        os.close(theirs)
        shown = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not read:
                break
            shown += read
    os.close(ours)
    assert program.returncode == 0
    return shown.decode().replace("\r\n", "\n")


# show


@pytest.mark.scenario("cli/Which call")
def test_show_takes_nothing_a_number_from_the_end_a_prefix_and_a_row_id(tape: Tape, run: Callable[..., Result]) -> None:
    uids = [tape.add([word]) for word in ("one", "two", "three")]
    for ref, uid in {"-1": uids[2], "-2": uids[1], "-3": uids[0], "2": uids[1], uids[0]: uids[0]}.items():
        assert loaded(run("show", ref, "--json"))["uid"] == uid
    assert loaded(run("show", "--json"))["uid"] == uids[2]
    assert loaded(run("show", "--json", "--", "-2"))["uid"] == uids[1]
    assert loaded(run("show", uids[1].lower(), "--json"))["uid"] == uids[1]
    assert f"  {uids[1]}" in run("show", "-2").stdout.replace(" ", "  ")
    assert run("show", "-2").stdout.endswith("text:\ntwo\n")


def test_show_json_is_the_row_with_parts_and_stalls(tape: Tape, run: Callable[..., Result]) -> None:
    uid = tape.add(end={"stalls": (stall(1),)})
    shown = loaded(run("show", "--json"))
    with sqlite3.connect(tape.path) as db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("SELECT * FROM llm_calls WHERE uid = ?", [uid]).fetchone())
    part = {"part": 0, "kind": "text", "choice": 0, "provider_index": None, "name": None, "external_id": None}
    assert shown == {
        **row,
        "parts": [{**part, "content": "Hello"}],
        "stalls": [{"call_id": 1, **dataclasses.asdict(stall(1))}],
    }


def test_show_puts_a_call_in_plain_words(tape: Tape, run: Callable[..., Result]) -> None:
    numbers = Metrics(
        first_chunk_latency_ms=100.0,
        first_token_latency_ms=100.0,
        first_output_token_latency_ms=100.0,
        headers_latency_ms=60.0,
        retry_ms=0.1,
        duration_ms=4300.0,
        tokens_per_second=19.5,
        events_per_second=2.0,
        inter_chunk_p50_ms=20.0,
        inter_chunk_p95_ms=428.0,
        inter_chunk_max_ms=4100.0,
    )
    end = {
        "metrics": numbers,
        "token_count": 5,
        "usage": Usage(input_tokens=10, output_tokens=5),
        "response_model": "gpt-x-1",
        "stalls": (stall(1, gap_us=4_100_000, cause="upstream"),),
    }
    uid = tape.add(["Hel\n", "lo"], end, labels={"env": "test"})
    shown = run("show").stdout
    words, _, rest = shown.partition("\n\n")
    statistics, _, rest = rest.partition("\n\n")
    assert words.splitlines() == [
        f"gpt-x 18:00:00 {uid}",
        "completed (stop) after 4.3 s",
        "openai chat gpt-x, answered by gpt-x-1, api.example.com, run nightly, content level full, env=test",
    ]
    assert statistics.splitlines() == [
        "first token 0.1 s = 0.1 headers",
        "5 tokens, 19.5 tok/s, in 2 events",
        "gaps: median 20 ms, p95 0.4 s, longest 4.1 s",
        "billed: input 10 tokens, output 5 tokens",
        "stall 4.1 s before event 2/2: waiting (provider or network)",
    ]
    assert rest.endswith("\n\ntext:\nHel\nlo\n")


@pytest.mark.scenario("cli/Timeline in one line")
@pytest.mark.parametrize("columns", [40, 100])
def test_timeline_fits_the_terminal_and_names_whose_time_it_was(columns: int, tape: Tape) -> None:
    call = call_value(UIDS[0])
    store = tape.store
    store.tokentape_call_started(call)
    waits = [100_000, 3_000_000, 0]
    store.tokentape_tokens(
        call, TokenBatch([100_000, 3_100_000, 6_100_000], waits, [0] * 3, ["a", "b", "c"], parts=(Part(0, "text"),))
    )
    times = {"gap_us": 3_000_000, "blocked_us": 0}
    stalls = (
        stall(1, cause="upstream", wait_us=3_000_000, hold_us=0, **times),
        stall(2, cause="own", wait_us=0, hold_us=3_000_000, **times),
    )
    numbers = Metrics(duration_ms=6100.0)
    store.tokentape_call_finished(
        finished(call, parts=(Part(0, "text"),), event_count=3, stalls=stalls, metrics=numbers)
    )
    store.tokentape_flush()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(["show", "--db", str(tape.path)], columns))
    drawing = next(line for line in shown.splitlines() if "█" in line)
    assert len(drawing) == columns
    assert {"·", "="} <= set(drawing)
    assert "· waiting  = in your code" in shown
    assert " waiting 3.0 s " in drawing
    assert (" in your code 3.0 s " in drawing) == (columns == 100)


def test_show_says_what_has_come_while_the_call_runs(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(["so ", "far"], end=False)
    shown = run("show").stdout
    assert shown.splitlines()[1] == "running"
    assert "thinking" not in shown
    assert shown.endswith("text:\nso far\n")


def test_show_tells_a_level_that_is_not_the_usual_one(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(content_level="timings")
    assert ", content level timings\n" in run("show").stdout
    tape.add(content_level="redacted")
    assert "content level" not in run("show").stdout


def test_show_tells_dropped_and_left_out_events(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(sampled=False)
    shown = run("show").stdout
    assert "events kept: sampled_out\n" in shown
    assert shown.endswith("text:\n(no text was kept)\n")


def test_show_takes_the_uid_of_a_run(tape: Tape, run: Callable[..., Result]) -> None:
    tape.store.tokentape_run_started(run_value("01M858PE6MEBSPETY408BSK7RA", name="evening"))
    tape.store.tokentape_run_started(run_value("01M858PE6MEBSPETY408BSK7RB", parent_uid="01M858PE6MEBSPETY408BSK7RA"))
    tape.add()
    tape.add(run_uid="01M858PE6MEBSPETY408BSK7RA")
    tape.add(run_uid="01M858PE6MEBSPETY408BSK7RB")
    tape.store.tokentape_mark(Mark("01M858PE6MEBSPETY408BSK7RA", None, STARTED_US, 2_500_000, "tool", "search"))
    tape.store.tokentape_flush()
    shown = loaded(run("show", "--json", "01M858PE6MEBSPETY408BSK7RA"))
    assert [call["uid"] for call in shown["calls"]] == [UIDS[2], UIDS[1]]
    assert [(mark["kind"], mark["name"], mark["duration_us"]) for mark in shown["marks"]] == [
        ("tool", "search", 2_500_000)
    ]
    lines = run("show", "01M858PE6MEBSPETY408BSK7RA").stdout.splitlines()
    assert lines[:2] == ["run evening 01M858PE6MEBSPETY408BSK7RA", "running: 2 calls"]
    assert lines[-1] == "tool search: 2.5 s"


@pytest.mark.scenario("cli/A run by its name")
def test_show_takes_the_name_of_a_run_and_means_the_newest(tape: Tape, run: Callable[..., Result]) -> None:
    for uid in ("01M858PE6MEBSPETY408BSK7RA", "01M858PE6MEBSPETY408BSK7RB"):
        tape.store.tokentape_run_started(run_value(uid, name="agent.py"))
    tape.add()
    assert run("show", "agent.py").stdout.startswith("run agent.py 01M858PE6MEBSPETY408BSK7RB\n")


@pytest.mark.scenario("cli/Linked calls")
def test_a_frameworks_call_and_its_request_name_each_other(tape: Tape, run: Callable[..., Result]) -> None:
    framework = tape.add(layer="framework", name="outer")
    request = tape.add(parent_uid=framework, name="inner")
    assert f"made the request inner {request}" in run("show", framework).stdout.splitlines()
    assert f"made for the framework's call outer {framework}" in run("show", request).stdout.splitlines()
    head, *lines = run("list").stdout.splitlines()
    assert head.split()[2] == "layer"
    assert [line.split()[3] for line in lines] == ["sdk", "framework"]


@pytest.mark.parametrize("ended_us", [5_000_000, None])
def test_show_says_where_the_time_of_a_run_went(ended_us: int | None, tape: Tape, run: Callable[..., Result]) -> None:
    uid = "01M858PE6MEBSPETY408BSK7RA"
    outer = run_value(uid, name="evening")
    tape.store.tokentape_run_started(outer)
    # The run inside it makes one request, which a framework's call and its SDK's both record.
    tape.store.tokentape_run_started(run_value("01M858PE6MEBSPETY408BSK7RB", parent_uid=uid))
    took = {"started_unix_us": STARTED_US + 500_000, "run_uid": "01M858PE6MEBSPETY408BSK7RB"}
    # What a framework does before and after its request is not the model's time.
    framework = tape.add(layer="framework", end={"metrics": Metrics(duration_ms=1600.0)}, **took)
    tape.add(parent_uid=framework, end={"metrics": Metrics(duration_ms=1500.0)}, **took)
    tape.store.tokentape_mark(Mark(uid, None, STARTED_US + 2_200_000, 2_500_000, "tool", "search"))
    if ended_us is not None:
        ended = dataclasses.replace(outer, status="completed", ended_unix_us=STARTED_US + ended_us)
        tape.store.tokentape_run_finished(ended)
    tape.store.tokentape_flush()
    line = run("show", uid).stdout.splitlines()[2]
    # One that has not ended lasts until it was last heard of.
    whole = "5.0 s: model 1.5 s · tool search 2.5 s · outside 1.0 s"
    assert line == (whole if ended_us else whole.replace("5.0", "4.7").replace("1.0", "0.7"))
    assert loaded(run("show", "--json", uid))["time"][:2] == [
        {"kind": "model", "name": None, "duration_us": 1_500_000},
        {"kind": "tool", "name": "search", "duration_us": 2_500_000},
    ]


def test_a_run_with_a_call_in_flight_lasts_until_now(tape: Tape, run: Callable[..., Result]) -> None:
    started = time.time_ns() // 1000 - 60_000_000
    tape.store.tokentape_run_started(run_value("01M858PE6MEBSPETY408BSK7RA", started_unix_us=started))
    tape.add(end=False, started_unix_us=started, run_uid="01M858PE6MEBSPETY408BSK7RA")
    line = run("show", "01M858PE6MEBSPETY408BSK7RA").stdout.splitlines()[2]
    found = re.fullmatch(r"([\d.]+) s: model ([\d.]+) s", line)
    assert found, line
    assert float(found[1]) == float(found[2]) >= 60


def test_one_number_alone_for_scripts(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add(end={"metrics": Metrics(inter_token_latency_ms=50.5)})
    assert run("show", "--metric", "inter_token_latency_ms").stdout == "50.5\n"
    alias = run("show", "--metric", "tpot")
    assert alias.stdout == "50.5\n"
    assert alias.stderr.startswith("inter_token_latency_ms = (last token - first token) / ")
    assert loaded(run("show", "--metric", "tpot", "--json")) == {"inter_token_latency_ms": 50.5}
    assert run("show", "--metric", "duration_ms").stdout == "unknown\n"


# ps


@pytest.mark.scenario("cli/Seen from another process")
def test_ps_shows_calls_of_another_process(tmp_path: Path) -> None:
    program = tmp_path / "silent.py"
    program.write_text(
        "import sys, time, tokentape\n"
        f"tokentape.enable(db={str(tmp_path / 'tape.db')!r}, flush_ms=20)\n"
        "with tokentape.start_llm_stream(model='gpt-x', provider='acme') as stream:\n"
        "    stream.add_token('a'); stream.add_token('b')\n"
        "    tokentape.flush(); print('ready', time.time(), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, program], stdin=-1, stdout=-1, text=True) as process:
        silent_since = float(process.stdout.readline().split()[1])
        time.sleep(3)
        result = run_cli("ps", "--db", str(tmp_path / "tape.db"))
        waited = time.time() - silent_since
        process.stdin.close()
    shown = re.fullmatch(r"gpt-x: waiting (\d+) s, 2 events so far \(silent\.py, pid (\d+), \w{26}\)\n", result.stdout)
    assert shown, result.output
    assert abs(int(shown[1]) - waited) <= 1
    assert int(shown[2]) == process.pid


@pytest.mark.scenario("cli/Nothing in flight")
def test_ps_without_calls_says_so(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add()
    result = run("ps")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No call is in flight.\n")
    assert loaded(run("ps", "--json")) == []


# status, path, plugins


@pytest.mark.scenario("cli/Status of a tape")
def test_status_shows_path_size_rows_and_drops(tape: Tape, run: Callable[..., Result]) -> None:
    tape.add()
    tape.add()
    with sqlite3.connect(tape.path) as db:
        db.execute("UPDATE llm_calls SET dropped_count = 7 WHERE id = 1")
    path, size, drops, *plugins = run("status").stdout.splitlines()
    assert path == f"Tape: {tape.path}"
    assert re.fullmatch(r"[\d.]+ kB: 2 calls, 4 token events, 1 run, 0 stalls, 0 marks", size)
    assert drops == "7 token events dropped"
    assert f"sqlite {tokentape.__version__} active" in plugins
    shown = loaded(run("status", "--json"))["tape"]
    assert (shown["rows"]["llm_calls"], shown["rows"]["llm_tokens"], shown["dropped_events"]) == (2, 4, 7)


def test_status_without_a_tape_still_shows_the_plugins(tmp_path: Path) -> None:
    result = run_cli("status", "--db", str(tmp_path / "none.db"))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [f"Tape: {tmp_path / 'none.db'}", "Nothing is recorded yet."]
    assert not (tmp_path / "none.db").exists()


def installed(folder: Path, name: str, version: str, module: str = "", requires: str = "", plugin: str = "") -> None:
    """Put a distribution into a folder for PYTHONPATH."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
    if plugin:
        (info / "entry_points.txt").write_text(f"[tokentape]\n{plugin} = {module}\n")


def with_plugins(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment}
    environ.pop("TOKENTAPE_STRICT", None)
    command = [sys.executable, "-m", "tokentape", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with adapters: one that works, for an older SDK, without its SDK, and one that cannot be imported."""
    folder = tmp_path / "plugins"
    installed(folder, "goodsdk", "2.5")
    installed(folder, "newsdk", "4.0.1")
    installed(folder, "tape-good", "1.0", "good_adapter", "goodsdk<3,>=2", "good")
    installed(folder, "tape-old", "1.1", "good_adapter:old", "newsdk (>=2,<4)", "old")
    installed(folder, "tape-lone", "1.3", "good_adapter:lone", "nosdk>=2,<4", "lone")
    installed(folder, "tape-broken", "1.2", "broken_adapter", plugin="broken")
    (folder / "good_adapter.py").write_text(
        "import types, tokentape\n"
        "@tokentape.hookimpl\ndef tokentape_shutdown(): pass\n"
        "old, lone = (types.SimpleNamespace(tokentape_shutdown=tokentape_shutdown, of=of) for of in range(2))\n"
    )
    (folder / "broken_adapter.py").write_text("import not_installed_at_all\n")
    return folder


@pytest.mark.scenario("cli/Adapters told apart")
def test_adapters_are_told_apart(plugins: Path, tmp_path: Path) -> None:
    shown = with_plugins(plugins, "plugins", "--db", str(tmp_path / "none.db"))
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    hooks = ["tokentape_shutdown"]
    good = {"name": "good", "version": "1.0", "hooks": hooks, "state": "active", "reason": None}
    assert rows["good"] == good | {"sdk": "goodsdk", "sdk_version": "2.5"}
    reason = "old adapter: supports newsdk >=2,<4, found 4.0.1: not recording."
    old = {"name": "old", "version": "1.1", "hooks": hooks, "state": "unsupported", "reason": reason}
    assert rows["old"] == old | {"sdk": "newsdk", "sdk_version": "4.0.1"}
    broken = rows["broken"]
    assert (broken["state"], broken["reason"]) == (
        "skipped",
        "ModuleNotFoundError: No module named 'not_installed_at_all'",
    )
    status = with_plugins(plugins, "status").stdout.splitlines()
    assert "good 1.0 (goodsdk 2.5) active" in status
    assert f"old 1.1 (newsdk 4.0.1) unsupported: {reason}" in status
    assert 'lone 1.3 unsupported: nosdk is not installed; pip install "nosdk>=2,<4"' in status
    assert "broken skipped: ModuleNotFoundError: No module named 'not_installed_at_all'" in status


def test_plugin_that_the_settings_leave_out_says_so(plugins: Path) -> None:
    rows = {row["name"]: row for row in json.loads(with_plugins(plugins, "plugins", TOKENTAPE_PLUGINS="good").stdout)}
    assert rows["good"]["state"] == "active"
    assert (rows["old"]["state"], rows["old"]["reason"]) == ("skipped", "TOKENTAPE_PLUGINS does not name it")


def test_sdk_without_its_adapter_is_named_with_the_pip_line(tmp_path: Path) -> None:
    installed(tmp_path / "sdk", "openai", "3.1")
    code = (
        "import sys, importlib.metadata as m; found = m.entry_points\n"
        "m.entry_points = lambda **k: [p for p in found(**k) if p.name != 'openai']\n"
        "from tokentape.cli import cli; cli(['status'])"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "sdk"), *sys.path])}
    shown = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    assert 'openai (openai 3.1) missing: openai is not recorded; pip install "tokentape[openai]"' in shown.splitlines()


@pytest.mark.scenario("cli/Path for scripts")
def test_path_prints_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    default = run_cli("path")
    assert default.stdout.endswith("tape.db\n")
    assert Path(default.stdout.strip()).is_relative_to(tmp_path)
    monkeypatch.setenv("TOKENTAPE_DB", str(tmp_path / "environment.db"))
    assert run_cli("path").stdout == f"{tmp_path / 'environment.db'}\n"
    assert run_cli("path", "--db", str(tmp_path / "option.db")).stdout == f"{tmp_path / 'option.db'}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.scenario("cli/Command of a plugin")
def test_plugin_adds_a_command_and_a_failing_one_harms_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    for name in ("fails", "greets"):
        installed(folder, f"tape-{name}", "1.0", name, plugin=name)
    (folder / "greets.py").write_text(
        "import click, tokentape\n"
        "@tokentape.hookimpl\n"
        "def tokentape_register_commands(cli):\n"
        "    cli.add_command(click.Command('hello', callback=lambda: print('Hello!'), help='Greet.'))\n"
        "    cli.add_command(click.Command('path', callback=lambda: print('not yours')))\n"
    )
    (folder / "fails.py").write_text(
        "import tokentape\n@tokentape.hookimpl\ndef tokentape_register_commands(cli): raise OSError('no')\n"
    )
    hello = with_plugins(folder, "hello")
    assert (hello.returncode, hello.stdout) == (0, "Hello!\n")
    assert "plugin fails failed (OSError: no)" in hello.stderr
    listed = with_plugins(folder, "--help").stdout
    assert re.search(r"^  hello +Greet\.$", listed, re.MULTILINE)
    assert re.search(r"^  path +Print the path", listed, re.MULTILINE)
    assert with_plugins(folder, "path", "--db", "mine.db").stdout == "mine.db\n"


# The tape and its processes


@pytest.mark.parametrize("command", ["list", "show", "status", "ps"])
def test_opening_a_tape_marks_calls_of_dead_processes(command: str, tmp_path: Path) -> None:
    dead = dataclasses.replace(process.this_process("app.py"), pid_started_at="2026-01-01T00:00:00.000000Z")
    store = SQLiteStore(tmp_path / "tape.db", dead, max_buffer=10)
    store.tokentape_run_started(run_value())
    store.tokentape_call_started(call_value())
    store.tokentape_flush()
    with sqlite3.connect(tmp_path / "tape.db") as db:
        db.execute("UPDATE llm_calls SET status = 'running'")
    assert run_cli(command, "--db", str(tmp_path / "tape.db")).exit_code == 0
    with sqlite3.connect(tmp_path / "tape.db") as db:
        assert db.execute("SELECT status FROM llm_calls").fetchall() == [("lost",)]


def test_a_lost_call_says_when_something_last_came_and_is_drawn_until_then(tmp_path: Path) -> None:
    dead = dataclasses.replace(process.this_process("app.py"), pid_started_at="2026-01-01T00:00:00.000000Z")
    store = SQLiteStore(tmp_path / "tape.db", dead, max_buffer=10)
    store.tokentape_run_started(run_value())
    calls = call_value("FULL"), call_value("EMPTY")
    for call in calls:
        store.tokentape_call_started(call)
    batch = TokenBatch([100_000, 900_000], [0, 0], [0, 0], ["Hel", "lo"], parts=(Part(0, "text"),))
    store.tokentape_tokens(calls[0], batch)
    store.tokentape_flush()
    full, empty = (run_cli("show", "--db", str(tmp_path / "tape.db"), uid).stdout for uid in ("FULL", "EMPTY"))
    assert "lost: its process has gone; last event at 0.9 s\n" in full
    assert "lost: its process has gone; nothing had come\n" in empty
    (drawn,) = [line for line in full.splitlines() if line.endswith("█")]
    assert drawn.count("█") == 2


def test_tape_of_a_newer_version_is_read_with_one_line_about_it(tape: Tape, run: Callable[..., Result]) -> None:
    uid = tape.add()
    with sqlite3.connect(tape.path) as db:
        db.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    result = run("list")
    assert result.exit_code == 0
    assert uid in result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert "pip install -U tokentape" in result.stderr
