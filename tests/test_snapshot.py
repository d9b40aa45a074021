"""`tokentape snapshot`: what is in the copy, what is not, and that it is a tape like any other in one file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from datasette.app import Datasette

from api_client import asking, client
from handmade import Handmade, gone_process
from programs import read
from tokentape.cli import cli
from tokentape.models import Mark, Part, TokenBatch
from tokentape.process import this_process
from tokentape.store.choice import Choice
from tokentape.store.plugin import SQLiteStore
from tokentape.store.snapshots import take
from tokentape.tape import Tape
from values import STARTED_US, call_value, finished, run_value, stall

DAY_US = 86_400_000_000
KEY = "sk-proj-0123456789abcdefghijklmnop"
SAID = ("Xylem", " quokka", " zyzzyva", " swordfish", ".")
UIDS = [f"01M858PE6MEBSPETY408BSK7F{letter}" for letter in "ABCDEFGH"]
TABLES = (
    *("processes", "runs", "llm_calls", "llm_parts", "llm_tokens", "llm_token_logprobs", "llm_stalls"),
    *("call_labels", "marks"),
)


def everything(path: Path) -> dict[str, list[dict[str, Any]]]:
    return {table: read(path, f"select * from {table} order by 1, 2") for table in TABLES}


class Source:
    """A tape with a framework's call and the SDK's under it on the first day, and another on the second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SQLiteStore(path, this_process("app.py"), max_buffer=10_000)
        for uid, parent, day in (("RUN", None, 0), ("INNER", "RUN", 0), ("LATER", None, 1)):
            run = run_value(uid, parent_uid=parent, started_unix_us=STARTED_US + day * DAY_US, metadata={"in": uid})
            self.store.tokentape_run_started(run)
            self.store.tokentape_run_finished(
                run_value(
                    uid,
                    parent_uid=parent,
                    started_unix_us=run.started_unix_us,
                    status="completed",
                    ended_unix_us=run.started_unix_us + 9,
                    metadata={"in": uid},
                )
            )
        self.call(UIDS[0], run_uid="INNER", layer="framework")
        self.call(UIDS[1], run_uid="INNER", parent_uid=UIDS[0], started_unix_us=STARTED_US + 1)
        self.call(UIDS[2], run_uid="LATER", started_unix_us=STARTED_US + DAY_US)
        self.store.tokentape_mark(Mark("RUN", None, STARTED_US, 5, "tool", "early"))
        self.store.tokentape_mark(Mark("LATER", UIDS[2], STARTED_US + DAY_US, 5, "tool", "late"))
        self.store.tokentape_flush()

    def call(self, uid: str, *, running: bool = False, **fields: Any) -> None:
        call = call_value(
            uid,
            **{
                "labels": {"user": uid[-1], "key": KEY},
                "metadata": {"key": KEY},
                "prompt_json": '"What is it?"',
                **fields,
            },
        )
        parts = (Part(0, "text"), Part(1, "tool_args", name="find"))
        count = len(SAID)
        self.store.tokentape_call_started(call)
        self.store.tokentape_tokens(
            call,
            TokenBatch(
                [i * 1000 for i in range(count)],
                [500] * count,
                [0] * count,
                list(SAID),
                {0: 7, 1: 7},
                {3: [{"token": " swordfish", "logprob": -0.5}]},
                parts,
            ),
        )
        if not running:
            end = {"parts": parts, "event_count": count, "error_message": "swordfish refused", "stalls": (stall(2),)}
            self.store.tokentape_call_finished(finished(call, **end))
        self.store.tokentape_flush()


@pytest.fixture
def source(tmp_path: Path) -> Any:
    source = Source(tmp_path / "tape.db")
    yield source
    source.store.tokentape_shutdown()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.db"


@pytest.fixture
def run(source: Source, out: Path) -> Callable[..., Result]:
    """The command on that tape."""
    return lambda *words: CliRunner().invoke(cli, ["snapshot", str(out), *words, "--db", str(source.path)])


@pytest.mark.scenario("cli/Snapshot of everything", "retention/One file")
def test_a_copy_of_everything_is_the_same_tape_in_one_private_file(
    source: Source, out: Path, run: Callable[..., Result]
) -> None:
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{out}: 3 calls, 15 token events, 3 runs, {out.stat().st_size / 1000:.1f} kB",
        (
            "Text inside: answers as they came (3), prompts (3), error messages (3), labels (3), metadata (6), "
            "marks (2); names of models, calls, runs, hosts and scripts."
        ),
    ]
    assert everything(out) == everything(source.path)
    assert sorted(path.name for path in out.parent.iterdir() if path.name.startswith("out")) == ["out.db"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("delete",)
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []


@pytest.mark.scenario("cli/Snapshot of some calls")
@pytest.mark.parametrize(
    ("words", "calls", "runs", "marks"),
    [
        ([UIDS[1]], [0, 1], ["INNER"], []),
        ([UIDS[0]], [0, 1], ["INNER"], []),
        (["-1"], [2], ["LATER"], ["late"]),
        (["--run", "RUN"], [0, 1], ["RUN", "INNER"], ["early"]),
        (["--since", "2026-11-24"], [2], ["LATER"], ["late"]),
        (["--run", "RUN", "--since", "2026-11-24T19:00"], [], [], []),
    ],
)
def test_only_what_is_chosen_is_in_the_file(
    source: Source,
    out: Path,
    run: Callable[..., Result],
    words: list[str],
    calls: list[int],
    runs: list[str],
    marks: list[str],
) -> None:
    done = run(*words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [row["uid"] for row in read(out, "select uid from llm_calls order by id")] == [UIDS[i] for i in calls]
    assert {row["uid"] for row in read(out, "select uid from runs")} == set(runs)
    assert [row["name"] for row in read(out, "select name from marks")] == marks
    content = out.read_bytes()
    assert [uid for i, uid in enumerate(UIDS[:3]) if (uid.encode() in content) != (i in calls)] == []
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("pragma foreign_key_check").fetchall() == []


@pytest.mark.scenario("cli/Snapshot without text")
def test_timings_leave_no_text_no_length_and_no_secret(source: Source, out: Path, run: Callable[..., Result]) -> None:
    done = run("--content", "timings")
    assert done.exit_code == 0, done.output
    assert "Text inside: labels (3), metadata (6), marks (2); names" in done.stdout
    content = out.read_bytes()
    assert [word for word in (*SAID[:4], "What is it", KEY) if word.strip().encode() in content] == []
    old, new = everything(source.path), everything(out)
    removed = {"token": None, "n_tokens": None}
    assert new["llm_tokens"] == [row | removed for row in old["llm_tokens"]]
    assert new["llm_parts"] == [row | {"content": None} for row in old["llm_parts"]]
    assert new["llm_token_logprobs"] == []
    assert new["llm_stalls"] == old["llm_stalls"]
    columns = ("content_level", "error_message", "prompt_json", "labels_json", "metadata_json")
    for before, after in zip(old["llm_calls"], new["llm_calls"], strict=True):
        assert after["content_level"] == "timings"
        assert (after["error_message"], after["prompt_json"]) == (None, None)
        assert "redacted" in json.loads(after["metadata_json"])["key"]
        assert {k: v for k, v in after.items() if k not in columns} == {
            k: v for k, v in before.items() if k not in columns
        }


@pytest.mark.scenario("cli/Snapshot target")
def test_a_target_that_exists_or_cannot_be_made_is_refused(
    source: Source, out: Path, run: Callable[..., Result]
) -> None:
    out.write_text("mine")
    done = run()
    assert (done.exit_code, done.stdout, done.stderr) == (
        1,
        "",
        f"Error: {out} exists already; name a file that does not\n",
    )
    assert out.read_text() == "mine"
    out.unlink()
    out.symlink_to("nowhere")
    assert run().exit_code == 1
    out.unlink()
    nowhere = out.parent / "no" / "out.db"
    done = CliRunner().invoke(cli, ["snapshot", str(nowhere), "--db", str(source.path)])
    assert (done.exit_code, done.stderr) == (
        1,
        f"Error: {nowhere} cannot be made: there is no folder {nowhere.parent}\n",
    )
    for words, code in ((["zzz"], 1), (["--run", "zzz"], 1), (["--since", "soon"], 2), (["--content", "full"], 2)):
        done = run(*words)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert sorted(path.name for path in out.parent.iterdir()) == ["tape.db", "tape.db-shm", "tape.db-wal"]


@pytest.mark.scenario("cli/Snapshot target")
def test_a_target_that_was_forgotten_is_asked_for(source: Source) -> None:
    shown = CliRunner().invoke(cli, ["snapshot", "-1", "--db", str(source.path)])
    assert shown.exit_code == 2
    assert "OUT.db comes first, then the calls: tokentape snapshot call.db -1" in shown.output


@pytest.mark.scenario("retention/Snapshot while it is recorded")
def test_it_is_one_moment_of_a_tape_that_others_write_to(source: Source, out: Path, run: Callable[..., Result]) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            source.call(f"W{number:025}", run_uid="LATER", started_unix_us=STARTED_US + number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            assert run().exit_code == 0
            found = read(
                out,
                "select c.uid from llm_calls c where c.status = 'completed' and "
                "(select count(*) from llm_tokens t where t.call_id = c.id) <> c.event_count",
            )
            assert found == []
            out.unlink()
    finally:
        stop.set()
        writer.join()


@pytest.mark.scenario("retention/Snapshot from a folder that cannot be written")
def test_commands_pages_and_api_read_it_and_write_nothing_beside_it(
    out: Path, run: Callable[..., Result], read_only_folder: tuple[Path, Callable[[], Path]]
) -> None:
    folder, lock = read_only_folder
    assert run().exit_code == 0
    sent = folder / "out.db"
    before = out.read_bytes()
    sent.write_bytes(before)
    sent.chmod(0o444)

    def read_everything(path: Path) -> None:
        for words in (["list"], ["show"], ["show", "RUN"], ["ps"], ["status"], ["show", "--json"]):
            done = CliRunner().invoke(cli, [*words, "--db", str(path)])
            assert done.exit_code == 0, done.output
        with client(path) as api:
            get = asking(api)
            assert len(get("/v1/llm-calls")["calls"]) == 3
            assert len(get(f"/v1/llm-calls/{UIDS[1]}/events")["token_index"]) == len(SAID)
        pages = Datasette([str(path)])
        for asked in ("/-/tokentape", f"/-/tokentape/calls/{UIDS[1]}", "/out/calls.json?_shape=array"):
            answer = asyncio.run(pages.client.get(asked, follow_redirects=True))
            assert answer.status_code == 200, (asked, answer.text)

    # What is imported on the way may be out of reach for who may not write here.
    read_everything(out)
    lock()
    read_everything(sent)
    assert [path.name for path in folder.iterdir()] == ["out.db"]
    assert sent.read_bytes() == before


def test_what_was_running_then_is_not_noted_as_lost_in_the_copy(tmp_path: Path, out: Path) -> None:
    made = Handmade(tmp_path / "tape.db", gone_process())
    made.call(UIDS[0], (1, 0, "so far"), running=True)
    made.close()
    # The command would have noted what has become of the call: here its process ends after the copy was made.
    take(made.path, out, Choice())
    before = out.read_bytes()
    with Tape.open(out) as tape:
        assert tape.is_snapshot
        assert tape.mark_lost() == 0
        assert tape.call(UIDS[0])["status"] == "lost"
    assert out.read_bytes() == before


def test_forgetting_in_a_copy_leaves_it_one_file(source: Source, out: Path, run: Callable[..., Result]) -> None:
    assert run().exit_code == 0
    done = CliRunner().invoke(cli, ["forget", UIDS[1], "--yes", "--db", str(out)])
    assert done.exit_code == 0, done.output
    assert UIDS[1].encode() not in out.read_bytes()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith("out")] == ["out.db"]
    with Tape.open(out) as tape:
        assert tape.is_snapshot


def test_a_killed_snapshot_leaves_no_file_of_that_name(source: Source, out: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tokentape.store import snapshots\n"
        "from tokentape.store.choice import Choice\n"
        "snapshots._publish = lambda *_: os._exit(9)\n"
        f"snapshots.take(Path({str(source.path)!r}), Path({str(out)!r}), Choice())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 9
    assert not out.exists()
