"""`tokentape run`: what it starts, what of it is recorded, and what it says at the end."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import textwrap
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokentape.cli import child, target
from tokentape.errors import TokentapeError
from tokentape.testing import Finish, HTTPError, ProviderServer, Script, Text

# What a program does to stream by hand, as text to be put into a program.
STREAM = """
import tokentape
with tokentape.start_llm_stream(model="m", provider="acme") as stream:
    stream.add_token("Hi")
"""
PATIENCE_S = 60


class Runner:
    """Runs `tokentape run` in a folder of its own, on a tape of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tape = folder / "tape.db"
        self.environ = {**os.environ, "TOKENTAPE_DB": str(self.tape)}

    def write(self, name: str, code: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code))
        return path

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tokentape", "run", *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tokentape", "run", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=self.environ, text=True, **pipes | options)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.tape) as db:
            return db.execute(sql).fetchall()


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    folder = tmp_path / "work"
    folder.mkdir()
    return Runner(folder)


def last_line(stderr: str) -> str:
    return stderr.splitlines()[-1]


# What can be started


@pytest.mark.scenario("cli/Script")
def test_script_runs_unchanged_and_its_calls_are_in_the_named_run(run: Runner) -> None:
    run.write(
        "app.py",
        f"{STREAM}\nimport sys\nprint(sys.argv, __name__, sys.path[0], sys.executable, sys.stdin.read())\nsys.exit(3)",
    )
    command = [sys.executable, "app.py", "1", "--x", "--db", "other", "--", "-m"]
    bare = subprocess.run(command, cwd=run.folder, input="in", capture_output=True, text=True, check=False)
    with run.start("--name", "nightly", "--label", "env=test", "--label", "user=17", *command[1:]) as program:
        stdout, stderr = program.communicate("in", timeout=PATIENCE_S)
    assert (program.returncode, stdout) == (3, bare.stdout)
    assert re.fullmatch(r"1 call, slowest first token [\d.]+ ms\. Next: tokentape show\n", stderr)
    assert run.rows("SELECT name, status, ended_at > started_at, parent_id FROM runs") == [
        ("nightly", "error", 1, None)
    ]
    assert run.rows("SELECT run_id, status, labels_json FROM llm_calls") == [
        (1, "completed", '{"env": "test", "user": "17"}')
    ]


def test_run_is_named_after_the_program_and_completes(run: Runner) -> None:
    run.write("sub/app.py", STREAM)
    run.write("package/__init__.py", "")
    run.write("package/module.py", STREAM)
    run.write("package/__main__.py", STREAM)
    run("sub/app.py")
    run("-m", "package.module")
    run("package")
    assert run.rows("SELECT name, status FROM runs") == [
        ("app.py", "completed"),
        ("package.module", "completed"),
        ("package", "completed"),
    ]
    called = "SELECT run_id, processes.name FROM llm_calls JOIN processes ON processes.id = process_id ORDER BY 1"
    assert run.rows(called) == [(1, "app.py"), (2, "package.module"), (3, "package")]


@pytest.mark.scenario("cli/Module and console script")
def test_modules_and_console_scripts_are_recorded(run: Runner) -> None:
    run.write("package/__init__.py", "")
    run.write("package/module.py", f"{STREAM}\nimport sys\nprint(sys.argv[1:])")
    module = run("-m", "package.module", "-m", "--x")
    assert (module.returncode, module.stdout) == (0, "['-m', '--x']\n")
    script = run.write("bin/serve", f"#!{sys.executable}\n{STREAM}\nimport sys\nprint(sys.argv[1:])")
    script.chmod(0o755)
    command = run("serve", "--x", PATH=f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    assert (command.returncode, command.stdout) == (0, "['--x']\n")
    assert run.rows("SELECT runs.name FROM llm_calls JOIN runs ON runs.id = run_id ORDER BY 1") == [
        ("package.module",),
        ("serve",),
    ]


@pytest.mark.scenario("cli/Workers")
def test_calls_of_all_processes_hang_under_one_run(run: Runner) -> None:
    run.write("worker.py", STREAM)
    run.write(
        "app.py",
        f"""
        import multiprocessing, os, subprocess, sys

        def work():
            {textwrap.indent(STREAM, " " * 12).strip()}

        if __name__ == "__main__":
            subprocess.run([sys.executable, "worker.py"], check=True)
            for method in "fork", "spawn":
                child = multiprocessing.get_context(method).Process(target=work)
                child.start()
                child.join()
            work()
        """,
    )
    program = run("app.py")
    assert (program.returncode, program.stdout) == (0, "")
    assert program.stderr.startswith("4 calls, ")
    assert run.rows("SELECT DISTINCT run_id, status FROM llm_calls") == [(1, "completed")]
    assert run.rows("SELECT count(DISTINCT process_id), count(*) FROM llm_calls") == [(4, 4)]
    assert run.rows("SELECT count(*) FROM runs") == [(1,)]


def test_runs_inside_the_program_hang_under_its_own(run: Runner) -> None:
    run.write("app.py", f'import tokentape\nwith tokentape.run("inner"):\n{textwrap.indent(STREAM, "    ")}')
    program = run("app.py")
    assert program.stderr.startswith("1 call, ")
    assert run.rows("SELECT id, parent_id, name, status FROM runs") == [
        (1, None, "app.py", "completed"),
        (2, 1, "inner", "completed"),
    ]


def test_a_run_started_inside_a_run_hangs_under_it(run: Runner) -> None:
    run.write("app.py", STREAM)
    run(sys.executable, "-m", "tokentape", "run", "--name", "inner", "app.py")
    assert run.rows("SELECT parent_id, name FROM runs") == [(None, Path(sys.executable).name), (1, "inner")]
    assert run.rows("SELECT run_id FROM llm_calls") == [(2,)]


@pytest.mark.scenario("cli/Another sitecustomize")
def test_another_sitecustomize_runs_once_and_in_our_place(run: Runner) -> None:
    run.write("site/sitecustomize.py", "import sys\nprint('theirs', __name__, file=sys.stderr)\nMINE = True")
    run.write("app.py", f"{STREAM}\nimport sitecustomize, sys\nprint(sitecustomize.MINE, sitecustomize.__file__)\n")
    program = run("app.py", PYTHONPATH=os.pathsep.join([str(run.folder / "site"), *sys.path]))
    assert program.stdout == f"True {run.folder / 'site' / 'sitecustomize.py'}\n"
    # Once in our own process, once in the program's.
    assert program.stderr.count("theirs sitecustomize") == 2
    assert last_line(program.stderr).startswith("1 call, ")


def test_another_sitecustomize_that_fails_is_reported_as_without_us(run: Runner) -> None:
    run.write("site/sitecustomize.py", "raise RuntimeError('theirs')")
    run.write("app.py", STREAM)
    path = {"PYTHONPATH": os.pathsep.join([str(run.folder / "site"), *sys.path])}
    bare = subprocess.run([sys.executable, "-c", ""], env=os.environ | path, capture_output=True, text=True, check=True)
    program = run("app.py", **path)
    assert program.stderr.count(bare.stderr) == 2
    assert last_line(program.stderr).startswith("1 call, ")


def test_our_folder_is_not_on_the_path_of_the_program_and_is_on_that_of_its_children(run: Runner) -> None:
    run.write("app.py", "import os, sys\nprint([p for p in sys.path if 'bootstrap' in p], os.environ['PYTHONPATH'])")
    program = run("app.py", PYTHONPATH="given")
    ours = Path(sys.modules["tokentape"].__file__).parent / "cli" / "bootstrap"
    assert program.stdout == f"[] {ours}{os.pathsep}given\n"


# What it says at the end


@pytest.mark.scenario("cli/Summary")
def test_last_line_sums_the_run_up(run: Runner) -> None:
    run.write(
        "app.py",
        """
        import time, tokentape

        def answer(pause):
            time.sleep(0.2)
            yield "a"
            time.sleep(pause)
            yield "b"

        for pause in 0, 1.2, 0:
            for chunk in tokentape.record_stream(lambda: answer(pause), model="m", text=str):
                pass
        """,
    )
    said = re.fullmatch(
        r"3 calls, slowest first token (\d\.\d) s, 1 stall \(upstream (\d\.\d) s\)\. Next: tokentape show\n",
        run("app.py").stderr,
    )
    assert said
    assert float(said[1]) >= 0.2
    assert float(said[2]) >= 1.2


def test_next_step_names_the_tape_where_it_was_named(run: Runner) -> None:
    run.write("app.py", STREAM)
    program = run("--db", "my tape.db", "app.py")
    assert program.stderr.endswith("Next: tokentape show --db 'my tape.db'\n")
    assert (run.folder / "my tape.db").exists()
    assert not run.tape.exists()


def test_program_may_go_to_another_folder(run: Runner) -> None:
    run.write("app.py", f"import os\nos.chdir('/')\n{STREAM}")
    assert run("--db", "here.db", "app.py").stderr.startswith("1 call, ")


@pytest.mark.scenario("cli/SDK without an adapter")
def test_sdk_without_an_adapter_is_named_with_its_extra(run: Runner) -> None:
    run.write("openai.py", "__version__ = '3.0'")
    run.write("app.py", "import openai, subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import openai'])")
    program = run("app.py", TOKENTAPE_PLUGINS="")
    summary, note = program.stderr.splitlines()
    assert summary == "0 calls. Next: tokentape status"
    assert note == 'tokentape: openai was used, but not recorded; pip install "tokentape[openai]"'


def test_sdk_with_an_adapter_is_not_named_when_the_program_stops_recording_itself(run: Runner) -> None:
    run.write("app.py", "import openai, tokentape\ntokentape.disable()\n")
    assert run("app.py").stderr == "0 calls. Next: tokentape status\n"


def test_program_that_no_python_ran_for_is_told(run: Runner) -> None:
    summary, note = run("true").stderr.splitlines()
    assert summary == "0 calls. Next: tokentape status"
    assert note.startswith("tokentape: no Python process could be recorded")


def test_program_that_streams_nothing_has_one_line(run: Runner) -> None:
    run.write("app.py", "print('hello')")
    program = run("app.py")
    assert (program.stdout, program.stderr) == ("hello\n", "0 calls. Next: tokentape status\n")


# What cannot be started


@pytest.mark.scenario("cli/Command not found")
@pytest.mark.parametrize("name", ["nosuchcommand", "nosuch.py", "folder/nosuch.py"])
def test_missing_program_is_named(name: str, run: Runner) -> None:
    program = run(name)
    assert (program.returncode, program.stdout) == (1, "")
    assert re.fullmatch(r"Error: .+\n", program.stderr)
    assert name in program.stderr
    assert not run.tape.exists()


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without tokentape."""
    folder = tmp_path_factory.mktemp("foreign env")
    venv.create(folder, symlinks=os.name != "nt")
    return folder


def shebang(python: Path) -> str:
    return f"#!{python}\n"


def long_shebang(python: Path) -> str:
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"


def env_shebang(python: Path) -> str:
    return f"#!/usr/bin/env {python.name}\n"


@pytest.mark.scenario("cli/Foreign environment")
@pytest.mark.parametrize("first_lines", [long_shebang, env_shebang, None])
def test_command_of_an_environment_without_tokentape_is_refused_with_the_pip_line(
    first_lines: Callable[[Path], str] | None, run: Runner, foreign: Path
) -> None:
    python = foreign / "bin" / "python3"
    command = python
    if first_lines is not None:
        command = run.write("bin/serve", f"{first_lines(python)}print('ran')")
        command.chmod(0o755)
    program = run(str(command), PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}")
    assert (program.returncode, program.stdout) == (1, "")
    assert program.stderr == (
        f"Error: {command.name} belongs to {foreign}, where tokentape is not installed; "
        f"install it: '{python}' -m pip install \"tokentape[all]\"\n"
    )
    assert not run.tape.exists()


def test_shebang_of_another_environment_is_enough(run: Runner, tmp_path: Path) -> None:
    # A first line cannot hold a path with a space.
    venv.create(tmp_path / "other")
    command = run.write("serve", shebang(tmp_path / "other" / "bin" / "python"))
    command.chmod(0o755)
    assert f"belongs to {tmp_path / 'other'}," in run("./serve").stderr


def test_two_interpreters_in_one_folder_are_two_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("python3.11", 0), ("python3.12", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3.11"))
    target.require_tokentape(target.find([str(tmp_path / "python3.11")], as_module=False))
    with pytest.raises(TokentapeError, match=r"python3\.12 belongs to"):
        target.require_tokentape(target.find([str(tmp_path / "python3.12")], as_module=False))


def test_other_environment_that_finds_tokentape_is_recorded(run: Runner, foreign: Path) -> None:
    run.write("app.py", STREAM)
    # As a container image does that keeps its packages in a folder of their own.
    program = run(str(foreign / "bin" / "python"), "app.py", PYTHONPATH=os.pathsep.join(sys.path))
    assert program.returncode == 0
    assert program.stderr.startswith("1 call, ")


def test_child_of_another_environment_runs_and_is_named_at_the_end(run: Runner, foreign: Path) -> None:
    run.write("app.py", f"import subprocess\nsubprocess.run([{str(foreign / 'bin' / 'python')!r}, '-c', 'print(7)'])")
    program = run("app.py")
    assert program.stdout == "7\n"
    summary, note = program.stderr.splitlines()
    assert summary == "0 calls. Next: tokentape status"
    assert str(foreign / "bin" / "python") in note
    assert "-m pip install tokentape" in note


# A tape that cannot be used, settings


@pytest.mark.scenario("storage/Not a tape")
def test_program_runs_on_where_the_tape_cannot_be_used(run: Runner) -> None:
    run.write("app.py", f"{STREAM}\nprint('done')\nraise SystemExit(5)")
    text = run.write("notes.txt", "no tape")
    for path, reason in ((run.folder, "is a folder"), (text, "not an SQLite database")):
        program = run("--db", str(path), "app.py")
        assert (program.returncode, program.stdout) == (5, "done\n")
        (line,) = program.stderr.splitlines()
        assert str(path) in line
        assert reason in line
    assert text.read_text() == "no tape"


def test_switched_off_it_only_runs_the_program(run: Runner) -> None:
    run.write("app.py", f"{STREAM}\nprint(tokentape.status()['recording'])")
    program = run("app.py", TOKENTAPE_DISABLED="1")
    assert (program.returncode, program.stdout) == (0, "False\n")
    assert program.stderr == "tokentape: TOKENTAPE_DISABLED is set: not recording.\n"
    assert not run.tape.exists()


def test_switched_off_it_runs_commands_of_any_environment(run: Runner, foreign: Path) -> None:
    program = run(str(foreign / "bin" / "python"), "-c", "print(7)", TOKENTAPE_DISABLED="1")
    assert (program.returncode, program.stdout) == (0, "7\n")


def test_without_a_tape_the_program_runs_and_no_file_is_made(run: Runner) -> None:
    run.write("app.py", STREAM)
    program = run("--db", "none", "app.py")
    assert (program.returncode, program.stderr) == (0, "No tape was written (db is none). Next: tokentape status\n")
    assert [path.name for path in run.folder.iterdir()] == ["app.py"]


def test_labels_and_content_of_the_environment_hold_and_options_go_first(run: Runner) -> None:
    run.write("app.py", STREAM)
    run("--label", "env=test", "app.py", TOKENTAPE_LABELS="env=prod,user=17", TOKENTAPE_CONTENT="timings")
    run("--content", "full", "app.py", TOKENTAPE_CONTENT="timings")
    assert run.rows("SELECT labels_json, content_level FROM llm_calls") == [
        ('{"env": "test", "user": "17"}', "timings"),
        (None, "full"),
    ]


def test_secret_in_the_name_of_a_run_is_masked(run: Runner) -> None:
    secret = "sk-proj-" + "Ab3dEf6h" * 6
    run.write("app.py", "")
    run("--name", f"run {secret}", "app.py")
    assert secret not in run.rows("SELECT name FROM runs")[0][0]
    assert secret.encode() not in run.tape.read_bytes()


# Signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_reach_the_program_and_it_decides_about_the_exit_code(name: str, run: Runner) -> None:
    run.write(
        "app.py",
        f"""
        import signal, sys, time
        signal.signal(signal.{name}, lambda *_: sys.exit(7))
        print("ready", flush=True)
        time.sleep({PATIENCE_S})
        """,
    )
    with run.start("app.py") as program:
        program.stdout.readline()
        program.send_signal(getattr(signal, name))
        assert program.wait(PATIENCE_S) == 7
    assert run.rows("SELECT status FROM runs") == [("error",)]


def test_signal_that_comes_while_the_program_is_being_started_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*arguments, **options)

    monkeypatch.setattr(child.subprocess, "Popen", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert child.run(["sleep", str(PATIENCE_S)], os.environ) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_program_ended_by_a_signal_gives_the_exit_code_of_a_shell(run: Runner) -> None:
    run.write("app.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert run("app.py").returncode == 128 + signal.SIGKILL


def test_call_of_a_killed_program_is_lost_and_summed_up(run: Runner) -> None:
    run.write(
        "app.py",
        """
        import os, signal, tokentape
        stream = tokentape.start_llm_stream(model="m")
        stream.add_token("Hi")
        tokentape.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert run("app.py").stderr.startswith("1 call, slowest first token ")
    assert run.rows("SELECT status FROM llm_calls") == [("lost",)]


def test_ctrl_c_is_the_programs_and_the_last_line_still_comes(run: Runner) -> None:
    run.write(
        "app.py",
        f"""
        import time, tokentape
        try:
            with tokentape.start_llm_stream(model="m") as stream:
                stream.add_token("Hi")
                print("ready", flush=True)
                time.sleep({PATIENCE_S})
        except KeyboardInterrupt:
            print("stopped")
        """,
    )
    with run.start("app.py", start_new_session=True) as program:
        program.stdout.readline()
        os.killpg(program.pid, signal.SIGINT)
        stdout, stderr = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, stdout) == (0, "stopped\n")
    assert stderr.startswith("1 call, ")


def test_what_nohup_ignores_stays_ignored(run: Runner) -> None:
    run.write("app.py", "import signal\nprint(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)")
    ignore = "trap '' HUP; exec " + f"'{sys.executable}' -m tokentape run app.py"
    program = subprocess.run(
        ["sh", "-c", ignore], cwd=run.folder, env=run.environ, capture_output=True, text=True, check=False
    )
    assert program.stdout == "True\n"


# With a real SDK


def test_real_sdk_is_recorded_in_an_unchanged_program(run: Runner, server: ProviderServer) -> None:
    pytest.importorskip("openai")
    server.add([HTTPError(429, headers={"retry-after-ms": "10"})])
    server.add(Script([(0.05, Text("Hel")), Text("lo"), Finish("stop")]))
    run.write(
        "app.py",
        """
        from openai import OpenAI
        chat = OpenAI().chat.completions
        stream = chat.create(model="gpt-x", messages=[{"role": "user", "content": "?"}], stream=True)
        print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
        """,
    )
    program = run("app.py", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="none")
    assert program.stdout == "Hello\n"
    assert last_line(program.stderr).startswith("1 call, ")
    assert run.rows("SELECT adapter, request_model, status, retries, event_count, finish_reason FROM llm_calls") == [
        ("openai", "gpt-x", "completed", 1, 2, "stop")
    ]


def test_installed_command_is_on_the_path_and_finds_itself(run: Runner) -> None:
    command = Path(sysconfig.get_path("scripts")) / "tokentape"
    if not command.exists():
        pytest.skip("tokentape is not installed here")
    run.write("app.py", STREAM)
    began = time.time()
    program = subprocess.run(
        [command, "run", "app.py"], cwd=run.folder, env=run.environ, capture_output=True, text=True, check=False
    )
    assert program.stderr.startswith("1 call, ")
    assert run.rows(f"SELECT started_unix_us >= {int(began * 1e6)} FROM llm_calls") == [(1,)]
