"""What can be read of a damaged tape is saved, what cannot is counted, and the damaged one stays as it is."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tokentape.models import Part, TokenBatch
from tokentape.store import recovery, schema
from tokentape.store.plugin import SQLiteStore
from values import call_value, finished, process_value, run_value, stall

PAGE = 4096
CALLS, EVENTS = 60, 100
TEXT = Part(0, "text")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The bytes of a tape with 60 calls of 100 events, the last of which has not ended."""
    path = tmp_path_factory.mktemp("healthy") / "tape.db"
    store = SQLiteStore(path, process_value(), max_buffer=100_000)
    store.tokentape_run_started(run_value())
    for number in range(CALLS):
        call = call_value(f"CALL{number:02}", labels={"number": str(number)})
        store.tokentape_call_started(call)
        texts = [f"word{i} " for i in range(EVENTS)]
        store.tokentape_tokens(
            call,
            TokenBatch([i * 1000 for i in range(EVENTS)], [900] * EVENTS, [0] * EVENTS, texts, parts=(TEXT,)),
        )
        if number < CALLS - 1:
            end = finished(call, parts=(TEXT,), event_count=EVENTS, stalls=(stall(50), stall(99)))
            store.tokentape_call_finished(end)
        store.tokentape_flush()
    store.tokentape_shutdown()
    return path.read_bytes()


@pytest.fixture
def broken(tmp_path, healthy):
    """Writes the tape with some of its bytes changed."""

    def write(change):
        path = tmp_path / "tape.db"
        content = bytearray(healthy)
        change(content)
        path.write_bytes(content)
        return path

    return write


def run(*arguments):
    command = [sys.executable, "-m", "tokentape", "recover", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def ask(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def pages_of(content, tmp_path, table):
    """Numbers of the pages with rows of a table."""
    path = tmp_path / "whole.db"
    path.write_bytes(content)
    try:
        found = ask(path, f"SELECT pageno FROM dbstat WHERE name = '{table}' AND pagetype = 'leaf' ORDER BY path")
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no dbstat")
    return [number for (number,) in found]


def smash(content, *numbers, byte=0xFF):
    for number in numbers:
        content[(number - 1) * PAGE : number * PAGE] = bytes([byte]) * PAGE


def assert_sound(path):
    """Nothing refers to what is not there, and of each call it is known how many events are missing."""
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA foreign_key_check") == []
    assert (
        ask(
            path,
            "SELECT uid FROM llm_calls c WHERE event_count - dropped_count <> "
            "(SELECT count(*) FROM llm_tokens WHERE call_id = c.id)",
        )
        == []
    )
    assert ask(path, "SELECT call_id FROM llm_tokens GROUP BY call_id HAVING max(token_index) + 1 <> count(*)") == []
    assert ask(path, "SELECT count(*) FROM llm_calls WHERE status = 'running'") == [(0,)]


@pytest.mark.scenario("cli/A page that cannot be read")
def test_events_around_a_page_that_cannot_be_read_are_saved(broken, healthy, tmp_path):
    pages = pages_of(healthy, tmp_path, "llm_tokens")
    path = broken(lambda content: smash(content, pages[10], pages[11], pages[30]))
    before = path.read_bytes()
    bad = f"({pages[10]}, {pages[11]}, {pages[30]})"
    ((rows,),) = ask(tmp_path / "whole.db", f"SELECT sum(ncell) FROM dbstat WHERE pageno IN {bad}")

    done = run(path)

    saved = tmp_path / "tape-recovered.db"
    total = CALLS * EVENTS
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    ((left,),) = ask(saved, "SELECT count(*) FROM llm_tokens")
    # Beside each leaf of a table without row ids is a row on the page above, which is hard to come by.
    assert total - rows - 6 <= left <= total - rows
    assert lines[0] == f"Saved to {saved}: 1 run, {CALLS} calls, {left:,} token events, 118 stalls, 0 marks."
    assert lines[1].startswith(f"Not saved: {total - left} token events of ")
    assert lines[2:] == ["1 call had not ended; on the new tape they are lost."]
    assert path.read_bytes() == before
    assert_sound(saved)
    assert ask(saved, "SELECT sum(dropped_count) FROM llm_calls") == [(total - left,)]
    # What is left says what it said.
    assert ask(saved, "SELECT count(*) FROM llm_tokens WHERE offset_us / 1000 <> CAST(substr(token, 5) AS INT)") == [
        (0,)
    ]
    assert ask(saved, "SELECT content FROM llm_parts WHERE call_id = 1") == [
        ("".join(f"word{i} " for i in range(EVENTS)),)
    ]
    listed = subprocess.run(
        [sys.executable, "-m", "tokentape", "list", "--db", str(saved), "-n", "100", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(listed.stdout)) == CALLS


@pytest.mark.scenario("cli/The beginning is gone")
@pytest.mark.parametrize("length", [16, 100, PAGE])
def test_a_tape_whose_beginning_is_overwritten_is_saved_whole(broken, tmp_path, length):
    def overwrite(content):
        content[:length] = bytes(length)

    done = run(broken(overwrite), tmp_path / "new.db", "--json")

    found = json.loads(done.stdout)
    assert (done.returncode, found["healthy"], found["missing_events"], found["unread"]) == (0, False, 0, {})
    assert (found["saved"]["llm_calls"], found["saved"]["llm_tokens"]) == (CALLS, CALLS * EVENTS)
    assert_sound(tmp_path / "new.db")
    assert sorted(file.name for file in tmp_path.iterdir() if "new" in file.name or file.name[0] == ".") == ["new.db"]


def test_events_of_calls_whose_rows_are_gone_have_a_call_that_says_so(broken, healthy, tmp_path):
    page = pages_of(healthy, tmp_path, "llm_calls")[1]
    path = broken(lambda content: smash(content, page, byte=0))

    found = recovery.recover(path, tmp_path / "new.db")

    assert found.calls_without_row == found.unread["llm_calls"] > 1
    assert (found.saved["llm_calls"], found.saved["llm_tokens"]) == (CALLS, CALLS * EVENTS)
    made = ask(tmp_path / "new.db", "SELECT name, status, model, text_start FROM calls WHERE name LIKE 'unknown%'")
    assert len(made) == found.calls_without_row
    assert made[0][1:3] == ("lost", None)
    assert made[0][3].startswith("word0 word1 ")
    assert_sound(tmp_path / "new.db")


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_damaged_what_is_saved_is_sound(broken, tmp_path, seed):
    chance = random.Random(seed)

    def spoil(content):
        for at in (chance.randrange(2 * PAGE, len(content)) for _ in range(60)):
            content[at] = chance.randrange(256)

    path = broken(spoil)
    try:
        found = recovery.recover(path, tmp_path / "new.db")
    except schema.NotATape as refusal:
        # The few pages that say where the tables are, are among those that were hit.
        assert "nothing was saved" in str(refusal)
        return
    assert found is None or found.saved["llm_tokens"] > 0
    if found is not None:
        assert_sound(tmp_path / "new.db")


def test_of_half_a_file_the_calls_that_are_in_it_are_saved(broken, healthy, tmp_path):
    def cut(content):
        del content[len(content) * 2 // 3 :]

    found = recovery.recover(broken(cut), tmp_path / "new.db")

    assert found.saved["llm_calls"] > 10
    assert found.unread
    assert_sound(tmp_path / "new.db")


def test_what_only_its_log_still_has_of_a_tape_that_was_cut_off_is_saved(tmp_path):
    path = tmp_path / "tape.db"
    store = SQLiteStore(path, process_value(), max_buffer=1000)
    store.tokentape_run_started(run_value())
    call = call_value()
    store.tokentape_call_started(call)
    store.tokentape_tokens(call, TokenBatch([1000], [900], [0], ["word"], parts=(TEXT,)))
    store.tokentape_flush()
    cut = tmp_path / "cut.db"
    for side in ("", "-wal"):
        shutil.copyfile(f"{path}{side}", f"{cut}{side}")
    # The schema is behind the rows of all that was recorded first: most of it is gone.
    os.truncate(cut, 24 * PAGE)

    found = recovery.recover(cut, tmp_path / "saved.db")

    assert (found.saved["llm_calls"], found.saved["llm_tokens"]) == (1, 1)
    assert_sound(tmp_path / "saved.db")


@pytest.mark.scenario("cli/Nothing to recover")
def test_a_healthy_tape_is_left_alone(broken, tmp_path):
    path = broken(lambda content: None)
    before = path.read_bytes()

    done = run("--db", path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path} is healthy: there is nothing to recover.\n"
    assert path.read_bytes() == before
    assert not (tmp_path / "tape-recovered.db").exists()


@pytest.mark.scenario("cli/Mistakes with recover")
def test_mistakes_are_answered_in_one_line_and_nothing_is_half_done(broken, healthy, tmp_path):
    path = broken(lambda content: smash(content, 2, 3, len(content) // PAGE // 2))
    taken = tmp_path / "taken.db"
    taken.write_text("somebody's")
    text = tmp_path / "text.db"
    text.write_text("no tape at all " * 1000)
    newer = tmp_path / "newer.db"
    newer.write_bytes(healthy)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with newer.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xff" * 20 * PAGE)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE letters (id INTEGER)")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.db")}

    for arguments, message in (
        ((path, taken), f"Error: {taken} exists already; name another file to save to\n"),
        (
            (path, tmp_path / "no" / "new.db"),
            f"Error: {tmp_path / 'no'} does not exist; name a file in a folder that does\n",
        ),
        ((tmp_path / "none.db",), f"Error: {tmp_path / 'none.db'} does not exist; name a damaged tape"),
        ((text,), f"Error: {text} is not an SQLite database, and nothing in it looks like a tape; nothing was saved\n"),
        ((other,), f"Error: {other} is a database of another application; choose another file\n"),
        ((newer,), f"Error: {newer} was written by a newer version of tokentape; upgrade with: pip install -U"),
        ((tmp_path,), f"Error: {tmp_path} is a folder"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.startswith(message), done.stderr
        assert done.stderr.count("\n") == 1
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.db")} == before
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("command", [["list"], ["forget", "--before", "2030-01-01", "--yes"], ["snapshot", "copy.db"]])
def test_a_damaged_tape_is_named_with_the_command_that_saves_it(broken, tmp_path, command):
    path = broken(lambda content: smash(content, *range(3, 12)))

    done = subprocess.run(
        [sys.executable, "-m", "tokentape", *command, "--db", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 1
    assert re.match(r"Error: .* is damaged \(.*tokentape recover ", done.stderr)
    assert not (tmp_path / "copy.db").exists()
