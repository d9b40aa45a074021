"""`tokentape forget`: what goes, what stays, what is refused, and that no byte of it is left."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from handmade import Handmade, gone_process
from programs import CLIENT, Program, eventually
from tokentape.cli import cli
from tokentape.models import Mark, Part
from tokentape.store import schema
from tokentape.store.choice import Choice
from tokentape.store.forgetting import forget
from tokentape.testing import ProviderServer, Script, Text, WaitFor
from values import STARTED_US, stall

SECRET = "Zebulon Quartermain"
DAY_MS = 86_400_000
UIDS = [f"01M858PE6MEBSPETY408BSK7F{letter}" for letter in "ABCDEFGH"]
PARTS = (Part(0, "text"), Part(1, "tool_args", name="find", external_id="call_1"))


def said(text: str, part: int = 0) -> list[tuple[float, int, str | None]]:
    """A text as events of a word each."""
    return [(10.0 * number, part, word) for number, word in enumerate(text.split(" "))]


@pytest.fixture
def tape(tmp_path: Path) -> Any:
    """Three days of calls; on the second the framework's call and the SDK's call under it have a secret."""
    made = Handmade(tmp_path / "tape.db")
    made.run("RUN", ended_ms=1, name="earliest", started_unix_us=STARTED_US)
    made.run("INNER", ended_ms=2, parent_uid="RUN", name="inner", started_unix_us=STARTED_US + 1)
    made.run("LAST", ended_ms=2, name="last", started_unix_us=STARTED_US + 2 * DAY_MS * 1000)
    made.call(UIDS[0], *said("nothing to hide here"), call={"labels": {"user": "ann"}})
    framework = {"layer": "framework", "run_uid": "INNER", "prompt_json": f'{{"content": "Who is {SECRET}?"}}'}
    made.call(UIDS[1], *said(f"it is {SECRET} of course"), after_ms=DAY_MS, parts=PARTS, call=framework)
    sdk = {"parent_uid": UIDS[1], "run_uid": "INNER", "labels": {"who": SECRET}, "metadata": {"note": [SECRET]}}
    made.call(
        UIDS[2],
        *said(f"it is {SECRET} of course"),
        *said(SECRET, 1),
        after_ms=DAY_MS + 1,
        parts=PARTS,
        call=sdk,
        error_message=f"no {SECRET}",
        stalls=(stall(2),),
    )
    made.mark(Mark("INNER", UIDS[2], STARTED_US + DAY_MS * 1000, 5, "tool", f"ask {SECRET}"))
    made.call(UIDS[3], *said("the last of them"), after_ms=2 * DAY_MS, call={"run_uid": "LAST"})
    yield made
    made.close()


@pytest.fixture
def run(tape: Handmade) -> Callable[..., Result]:
    """The command on that tape."""
    return lambda *words, **more: CliRunner().invoke(cli, ["forget", *words, "--db", str(tape.path)], **more)


def uids(tape: Handmade) -> list[str]:
    return [row["uid"] for row in tape.rows("select uid from llm_calls order by id")]


def recorded(program: Program) -> int:
    """How many token events a program has recorded, which may not have begun."""
    try:
        return int(program.rows("select count(*) n from llm_tokens")[0]["n"])
    except sqlite3.OperationalError:
        return 0


def raw(path: Path) -> bytes:
    """Every byte of a tape and what lies beside it."""
    files = [path, *(Path(f"{path}{end}") for end in ("-wal", "-shm", "-journal"))]
    return b"".join(file.read_bytes() for file in files if file.exists())


def whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []


@pytest.mark.scenario("cli/Everything that contains a text", "retention/No byte is left")
def test_no_byte_of_a_text_is_left_and_everything_else_is(tape: Handmade, run: Callable[..., Result]) -> None:
    words = [SECRET.encode(), *SECRET.encode().split()]
    assert all(word in raw(tape.path) for word in words)
    others = tape.rows(f"select * from llm_calls where uid in ('{UIDS[0]}', '{UIDS[3]}') order by id")

    done = run("--containing", SECRET.lower(), "--yes")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Forgotten: 2 calls, 14 token events, 1 mark. ")
    found = raw(tape.path)
    assert [word for word in words if word in found] == []
    assert UIDS[1].encode() not in found
    assert tape.rows("select * from llm_calls order by id") == others
    assert [row["token"] for row in tape.rows("select token from llm_tokens where call_id = 1")] == [
        "nothing",
        "to",
        "hide",
        "here",
    ]
    assert [row["uid"] for row in tape.rows("select uid from runs order by id")] == ["RUN", "INNER", "LAST"]
    for table in ("llm_parts", "llm_tokens", "llm_stalls", "call_labels"):
        assert tape.rows(f"select * from {table} where call_id in (2, 3)") == []
    whole(tape.path)
    # Who records goes on.
    tape.call(UIDS[5], *said("and on it goes"), call={"run_uid": "LAST"})
    assert uids(tape) == [UIDS[0], UIDS[3], UIDS[5]]


@pytest.mark.scenario("retention/No byte is left")
def test_copies_that_were_left_when_pages_were_split_or_joined_go_too(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "tape.db")
    made.call(UIDS[0])
    made.close()
    random = Random(1)
    with closing(schema.open_for_writing(made.path)) as db:
        columns = ", ".join(row[1] for row in db.execute("pragma table_info(llm_calls)") if row[1] not in {"id", "uid"})
        db.execute("begin")
        for number in range(2, 2002):
            db.execute(
                f"insert into llm_calls (id, uid, {columns}) select ?, ?, {columns} from llm_calls where id = 1",
                [number, f"{number:026}"],
            )
            label = [number, "k" * random.randrange(1, 40), f"KEY{number:05}" + "y" * random.randrange(200)]
            db.execute("insert into call_labels values (?, ?, ?)", label)
        db.execute("commit")
        numbers = list(range(2, 2002))
        random.shuffle(numbers)
        for number in numbers[:1000]:
            db.execute("delete from llm_calls where id = ?", [number])
    forgotten = sorted(numbers[:1500])

    found = forget(made.path, Choice(calls=[f"{number:026}" for number in forgotten]))

    assert len(found.calls) == 500
    content = raw(made.path)
    assert [number for number in forgotten if f"KEY{number:05}".encode() in content] == []
    assert all(f"KEY{number:05}".encode() in content for number in numbers[1500:])


@pytest.mark.scenario("cli/Forgetting a call")
@pytest.mark.parametrize("ref", [UIDS[1], UIDS[2], "-2"])
def test_a_call_goes_with_those_that_hold_the_same_answer(tape: Handmade, run: Callable[..., Result], ref: str) -> None:
    done = run(ref, "--yes")
    assert done.exit_code == 0, done.output
    assert uids(tape) == [UIDS[0], UIDS[3]]
    assert SECRET.encode() not in raw(tape.path)
    # A run that was not named stays.
    assert len(tape.rows("select * from runs")) == 3


@pytest.mark.scenario("cli/Forgetting a run")
@pytest.mark.parametrize("ref", ["RUN", "earliest"])
def test_a_run_goes_with_the_runs_inside_it(tape: Handmade, run: Callable[..., Result], ref: str) -> None:
    done = run("--run", ref, "--yes")
    assert done.exit_code == 0, done.output
    assert uids(tape) == [UIDS[3]]
    assert [row["uid"] for row in tape.rows("select uid from runs")] == ["LAST"]
    assert tape.rows("select * from marks") == []
    whole(tape.path)


@pytest.mark.scenario("cli/Everything before a date")
@pytest.mark.parametrize("date", ["2026-11-25", "2026-11-25T17:59:59Z", "2026-11-25T19:59:59+02:00"])
def test_everything_before_a_date(tape: Handmade, run: Callable[..., Result], date: str) -> None:
    done = run("--before", date, "--yes")
    assert done.exit_code == 0, done.output
    assert uids(tape) == [UIDS[3]]
    assert [row["uid"] for row in tape.rows("select uid from runs")] == ["LAST"]
    assert b"earliest" not in raw(tape.path)


def test_conditions_narrow_each_other(tape: Handmade, run: Callable[..., Result]) -> None:
    assert run("--containing", SECRET, "--before", "2026-11-24", "--yes").stdout.startswith("Nothing on the tape")
    assert len(uids(tape)) == 4


def test_text_is_found_as_json_writes_it_and_across_events_of_a_call_that_runs(
    tape: Handmade, run: Callable[..., Result]
) -> None:
    tape.call(UIDS[4], *said("so far"), call={"metadata": {"path": 'C:\\temp "x"'}})
    done = run("--containing", 'C:\\temp "x"', "--yes")
    assert done.stdout.startswith("Forgotten: 1 call, 2 token events.")
    tape.call(UIDS[5], (1, 0, "un"), (2, 0, "seen"), running=True)
    refused = run("--containing", "unseen", "--yes")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert UIDS[5] in refused.stderr


@pytest.mark.scenario("cli/Forgetting what runs")
@pytest.mark.parametrize("words", [[UIDS[4]], ["--run", "RUN"], ["--before", "2027-01-01"], ["--containing", "hide"]])
def test_what_runs_is_refused_and_nothing_is_removed(
    tape: Handmade, run: Callable[..., Result], words: list[str]
) -> None:
    tape.call(UIDS[4], *said("still hides"), running=True)
    before = tape.rows("select * from llm_calls")
    for more in (["--yes"], []):
        done = run(*words, *more)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            f"Error: call {UIDS[4]} (gpt-x 18:00:00) is still running: nothing was forgotten; "
            "try again when it has ended\n"
        )
    assert tape.rows("select * from llm_calls") == before


def test_a_run_that_goes_on_is_refused(tape: Handmade, run: Callable[..., Result]) -> None:
    tape.run("OPEN", name="open")
    done = run("--run", "OPEN", "--yes")
    assert (done.exit_code, done.stderr.startswith("Error: run OPEN (open) is still running")) == (1, True)


def test_what_a_dead_process_left_is_no_call_that_runs(tmp_path: Path) -> None:
    made = Handmade(tmp_path / "tape.db", gone_process())
    made.call(UIDS[0], *said(f"{SECRET} and"), running=True)
    made.close()
    done = CliRunner().invoke(cli, ["forget", "-1", "--yes", "--db", str(made.path)])
    assert done.exit_code == 0, done.output
    assert b"Zebulon" not in raw(made.path)
    # Nothing was left of that process either.
    assert made.rows("select * from processes") == []


@pytest.mark.scenario("cli/Forgetting asks")
def test_it_shows_what_would_go_and_asks(tape: Handmade, run: Callable[..., Result]) -> None:
    asked = run("--containing", SECRET, input="n\n")
    assert asked.exit_code == 1
    assert asked.stderr.startswith(f"{UIDS[1]} 2026-11-24T18:00:00 gpt-x 18:00:00 completed\n")
    assert "Remove 2 calls, 14 token events, 1 mark for good? [y/N]: " in asked.stderr
    assert "Error: nothing was forgotten; answer y, or give --yes\n" in asked.stderr
    assert run("--containing", SECRET, input="").exit_code == 1
    assert len(uids(tape)) == 4
    assert run("--containing", SECRET, input="y\n").exit_code == 0
    assert len(uids(tape)) == 2


@pytest.mark.scenario("cli/Forgetting nothing")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Error: Name what to forget: CALL, --run, --before or --containing. See "),
        (["zzz"], 1, "Error: no call 'zzz' on "),
        (["--run", "zzz"], 1, "Error: no run answers to 'zzz' on "),
        (["--before", "tomorrow"], 2, "Error: Invalid value for '--before': 'tomorrow': expected a date like "),
    ],
)
def test_mistakes_are_answered_in_one_line(
    tape: Handmade, run: Callable[..., Result], words: list[str], code: int, said: str
) -> None:
    done = run(*words, "--yes")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(said)
    assert len(uids(tape)) == 4


@pytest.mark.scenario("cli/Forgetting beside a reader")
def test_a_reader_that_does_not_let_go_is_named_and_nothing_is_removed(
    tape: Handmade, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokentape.store.forgetting.BUSY_MS", 100)
    with closing(sqlite3.connect(tape.path)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from llm_calls").fetchone()
        tape.call(UIDS[5], *said("more"))
        done = run(UIDS[0], "--yes")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "nothing was forgotten; try again when it has finished" in done.stderr
        reader.execute("commit")
    assert UIDS[0] in uids(tape)
    assert run(UIDS[0], "--yes").exit_code == 0


@pytest.mark.scenario("retention/No byte is left")
def test_a_program_that_records_meanwhile_loses_nothing(server: ProviderServer, tmp_path: Path) -> None:
    go_on = threading.Event()
    server.add(Script([Text(f"{SECRET} was here"), *(Text(f" {word}") for word in SECRET.split())]))
    server.add(Script([Text("before"), WaitFor(go_on), *(Text(f" {i}") for i in range(50))]))
    program = Program(
        tmp_path,
        CLIENT
        + """
tokentape.enable(content="full", flush_ms=20)
for _ in ask(): pass
for _ in ask(): pass
""",
        server=server.url,
    )
    process = program.start()
    try:
        assert eventually(lambda: recorded(program), lambda count: count == 4, within=60) == 4
        command = [sys.executable, "-m", "tokentape", "forget", "--containing", SECRET, "--yes", "--db", program.tape]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert SECRET.encode() not in raw(program.tape)
        go_on.set()
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.wait()
    (call,) = program.rows("select status, event_count, (select count(*) from llm_tokens) n from llm_calls")
    assert call == {"status": "completed", "event_count": 51, "n": 51}
    assert b"Quartermain" not in raw(program.tape)
