"""`tokentape demo`: two of them run at the same time, once for all tests, and what they leave behind is looked at."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import types
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from click.testing import CliRunner, Result
from datasette.app import Datasette
from sqlite_utils.cli import cli as sqlite_utils_cli

import tokentape
from tokentape import settings
from tokentape.cli import cli
from tokentape.cli.demo import _next_steps
from tokentape.store.views import VIEWS

PROGRAM = (sys.executable, "-c", "from tokentape.cli import main; main()")
SCRIPTS = sysconfig.get_path("scripts")
# Where nobody listens: whoever asked there would wait, and fail.
NOWHERE = "http://127.0.0.1:9"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"


@dataclass(frozen=True)
class Played:
    """What the two demos left: `plain` was called without anything, `named` with `--db` and `--json`."""

    plain: subprocess.CompletedProcess[str]
    named: subprocess.CompletedProcess[str]
    data: Path
    db: Path
    user_tape: tuple[Path, bytes]

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.named.stdout)
        return rows


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("demo")
    data, db = folder / "data" / "tokentape", folder / "new.db"
    record(data / "tape.db", "of the user")
    record(data / "demo.db", "of an earlier demo", run="demo", scene="steady")
    before = (data / "tape.db").read_bytes()
    with start(folder) as plain, start(folder, "--db", str(db), "--json") as named:
        finished = [finish(plain), finish(named)]
    return Played(*finished, data, db, (data / "tape.db", before))


def record(path: Path, model: str, run: str = "mine", **labels: str) -> None:
    """Make a tape with one call."""
    tokentape.enable(db=path, plugins=())
    with tokentape.run(run), tokentape.label(**labels), tokentape.start_llm_stream(model=model) as stream:
        stream.add_token("hello")
    tokentape.disable()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a demo without keys, and with an environment that leads away from loopback and to the user's tape."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TOKENTAPE_", "OPENAI_"))}
    environment |= {
        "XDG_DATA_HOME": str(folder / "data"),
        "TOKENTAPE_DB": str(folder / "data" / "tokentape" / "tape.db"),
    }
    environment |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL"), NOWHERE)
    environment |= {"TOKENTAPE_STRICT": "1", "TOKENTAPE_CONTENT": "timings", "NO_PROXY": "", "no_proxy": ""}
    command = [*PROGRAM, "demo", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        output, notes = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, notes)


def by_scene(rows: list[dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    return {row["scene"]: row for row in rows}


@pytest.mark.scenario("cli/Demo told apart")
def test_every_scene_is_on_the_tape_with_how_it_ended(played: Played) -> None:
    assert (played.plain.returncode, played.named.returncode) == (0, 0), played.plain.stderr + played.named.stderr
    assert [(row["scene"], row["status"], row["retries"], row["http_status"]) for row in played.rows] == [
        ("steady", "completed", 0, 200),
        ("slow-first-token", "completed", 0, 200),
        ("stall", "completed", 0, 200),
        ("slow-reader", "completed", 0, 200),
        ("blocked-loop", "completed", 0, 200),
        ("tool-call", "completed", 0, 200),
        ("reasoning", "completed", 0, 200),
        ("parallel", "completed", 0, 200),
        ("parallel", "completed", 0, 200),
        ("retry", "completed", 1, 200),
        ("drop", "error", 0, 200),
        ("gives-up", "abandoned", 0, 200),
    ]


@pytest.mark.scenario("cli/Demo told apart")
@pytest.mark.parametrize(
    ("scene", "cause"), [("stall", "upstream"), ("slow-reader", "own"), ("blocked-loop", "blocked")]
)
def test_the_cause_of_each_stall_is_told(played: Played, scene: str, cause: str) -> None:
    row = by_scene(played.rows)[scene]
    assert (row["cause"], row["stall_count"] > 0) == (cause, True)
    assert row["longest_gap_ms"] >= 1300


@pytest.mark.scenario("cli/Demo told apart")
def test_the_numbers_are_no_earlier_than_the_script(played: Played) -> None:
    rows = by_scene(played.rows)
    assert rows["slow-first-token"]["first_token_latency_ms"] >= 1900
    assert rows["retry"]["first_token_latency_ms"] >= 1000
    assert rows["reasoning"]["first_output_token_latency_ms"] >= 800
    assert rows["reasoning"]["first_output_token_latency_ms"] > rows["reasoning"]["first_token_latency_ms"]
    assert rows["steady"]["tokens_per_second"] > rows["steady"]["events_per_second"]
    assert (rows["gives-up"]["tokens_per_second"], rows["gives-up"]["events_per_second"] > 0) == (None, True)


def test_what_was_said_is_on_the_tape_whatever_the_environment_says(played: Played) -> None:
    db = sqlite_utils.Database(played.db)
    sql = (
        "select k.name as kind, p.name, content from llm_parts p join token_kinds k on kind_id = k.id where call_id = ?"
    )
    ids = (by_scene(played.rows)[scene]["call_id"] for scene in ("tool-call", "reasoning"))
    tool, reasoning = (list(db.query(sql, [call_id])) for call_id in ids)
    assert tool == [{"kind": "tool_args", "name": "get_weather", "content": '{"city": "Nuuk", "unit": "celsius"}'}]
    assert [part["kind"] for part in reasoning] == ["reasoning", "text"]
    runs = db.query("select name from runs where id in (select run_id from llm_calls)")
    assert [run["name"] for run in runs] == ["demo"]
    db.close()


@pytest.mark.scenario("cli/Demo told apart")
def test_the_table_shows_each_scene_with_its_cause(played: Played) -> None:
    table, _, _ = played.plain.stdout.partition("\nGo on with:")
    heading, *lines = [line.rstrip() for line in table.splitlines() if line.strip()]
    assert heading.split("  ")[0] == "scene"
    assert len(lines) == 12
    shown = {line.split("  ")[0]: line for line in lines}
    assert shown["stall in mid-stream"].endswith("upstream")
    assert shown["slow reader"].endswith("own")
    assert shown["blocked event loop"].endswith("blocked")
    assert "1 retry" in shown["a 429 and its retry"]
    assert " error " in shown["connection drops"]
    assert " abandoned " in shown["reader gives up"]


@pytest.mark.scenario("cli/Demo told apart")
def test_each_proposed_command_works(played: Played) -> None:
    commands = [line.strip() for line in played.plain.stdout.partition("Go on with:\n")[2].splitlines()]
    assert len(commands) == 5
    for command in commands:
        if " serve " in command:
            continue  # it serves until it is stopped, and has tests of its own
        if "datasette" in command:
            if shutil.which("datasette", path=SCRIPTS) is None:
                continue
            command += " --get /demo/calls.json"  # noqa: PLW2901  # served once, and not for ever
        environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            command, shell=True, check=False, env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "demo-stall" in done.stdout, command


def test_what_is_not_installed_is_proposed_in_a_version_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    (*_, line) = _next_steps(Path("demo.db"), [{"uid": "U", "scene": "stall"}])
    assert line == f"{SCRIPTS}/pip install 'datasette<1' && {SCRIPTS}/datasette demo.db"


@pytest.mark.scenario("storage/Other people's tools")
def test_sqlite_utils_reads_the_tape_of_the_demo(played: Played) -> None:
    tables = json.loads(sqlite_utils_says("tables", played.db))
    names = [table["table"] for table in tables] + list(VIEWS)
    schema = sqlite_utils_says("schema", played.db)
    assert [name for name in names if not re.search(rf"CREATE (TABLE|VIEW) \W?{name}\b", schema)] == []
    rows = {name: json.loads(sqlite_utils_says("rows", played.db, name)) for name in names}
    assert {name for name in names if not rows[name]} == {"llm_token_logprobs", "marks", "in_flight"}
    assert {len(rows[name]) for name in ("llm_calls", "calls", "responses", "streaming_stats")} == {12}
    for check, answer in {"integrity_check": [("ok",)], "foreign_key_check": []}.items():
        with closing(sqlite3.connect(played.db)) as connection:
            assert connection.execute(f"PRAGMA {check}").fetchall() == answer


@pytest.mark.scenario("storage/Other people's tools")
async def test_datasette_opens_every_table_and_view_of_the_tape_of_the_demo(played: Played) -> None:
    datasette = Datasette([str(played.db)])
    database = (await datasette.client.get(f"/{played.db.stem}.json")).json()
    names = [table["name"] for table in database["tables"] if not table["hidden"]]
    names += [view["name"] for view in database["views"]]
    assert set(VIEWS) < set(names)
    for name in names:
        page = await datasette.client.get(f"/{played.db.stem}/{name}")
        assert page.status_code == 200, name
        answer = await datasette.client.get(f"/{played.db.stem}/{name}.json?_shape=objects")
        assert answer.json().get("error") is None, name


def sqlite_utils_says(command: str, *arguments: object) -> str:
    """What a command of sqlite-utils prints."""
    result = CliRunner().invoke(sqlite_utils_cli, [command, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.scenario("cli/Demo apart from the user's tape")
def test_the_users_tape_is_as_it_was_and_the_earlier_demo_is_gone(played: Played) -> None:
    path, before = played.user_tape
    assert path.read_bytes() == before
    db = sqlite_utils.Database(played.data / "demo.db")
    models = [row["request_model"] for row in db.query("select request_model from llm_calls")]
    db.close()
    assert len(models) == 12
    assert "of an earlier demo" not in models


def test_progress_is_on_stderr_and_is_no_data(played: Played) -> None:
    assert played.named.stderr.splitlines()[:3] == ["getting ready", "steady stream", "slow first token"]
    assert played.plain.stderr == played.named.stderr


def demo(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *arguments])


def refused(result: Result) -> str:
    """The one line that a demo which could not be is answered with."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.scenario("cli/Adapter not installed")
@pytest.mark.parametrize("missing", ["openai", "tokentape_openai"])
def test_without_sdk_or_adapter_the_pip_line_is_told(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    line = refused(demo("--db", str(tmp_path / "new.db")))
    assert missing in line
    assert line.endswith('pip install "tokentape[openai]"')
    assert not (tmp_path / "new.db").exists()


def test_an_sdk_outside_the_range_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = types.ModuleType("openai")
    other.__version__ = "4.0.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openai", other)
    line = refused(demo("--db", str(tmp_path / "new.db")))
    assert line == "Error: openai adapter: supports openai >=2,<4, found 4.0.1: not recording."


def test_switched_off_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKENTAPE_DISABLED", "1")
    assert "TOKENTAPE_DISABLED" in refused(demo("--db", str(tmp_path / "new.db")))


def test_a_tape_with_other_calls_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    record(path, "mine", run="demo")
    before = path.read_bytes()
    assert (
        refused(demo("--db", str(path))) == f"Error: {path} has 1 call that no demo made; choose another file with --db"
    )
    assert path.read_bytes() == before


def test_another_applications_database_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    connection = sqlite3.connect(path)
    connection.execute("create table notes (text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    assert str(path) in refused(demo("--db", str(path)))
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "folder"])
def test_what_is_no_database_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.mkdir() if kind == "folder" else path.write_text("dear diary")
    assert str(path) in refused(demo("--db", str(path)))
    assert path.exists()


def test_the_users_own_tape_is_refused_by_name_and_none_is_no_tape() -> None:
    assert "your own calls" in refused(demo("--db", str(settings.default_db())))
    assert "--db" in refused(demo("--db", "none"))
    assert not settings.default_db().exists()


def test_the_picture_loads_nothing_from_anywhere() -> None:
    svg = PICTURE.read_text("utf-8")
    assert "blocked" in svg
    assert "@font-face" not in svg
    assert "url(" not in svg.replace("url(#", "")
    assert "href" not in svg
