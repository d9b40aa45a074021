"""Writes what commands print anew into docs/cli.md, from a tape made for it: `python tests/make_cli_page.py`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import tokentape
from tokentape.clock import Clock
from tokentape.testing import FakeClock, Finish, ProviderServer, Script, Text, Usage

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n\$ ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line that says which command's JSON the next line describes.
SHAPE = re.compile(r"^<!-- keys of: (.*) -->\n.*$", re.MULTILINE)
# What these print has process ids, sizes, versions or real times in it.
VARYING = re.compile(r"tokentape (ps|run|status|plugins|snapshot|forget)\b(?!.*--help)")
NUMBER = re.compile(r"\d[\d.,]*")
# Commands that look at another tape than the one that stands still.
OTHER_TAPES = {"tokentape ps": "ps.db", "tokentape run": "run.db"}
# Long ago, so that the page does not depend on the day it is made.
STARTED_NS = 1_740_819_600 * 10**9
APP = """import openai

stream = openai.OpenAI().chat.completions.create(model="gpt-x", messages=[], stream=True)
print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
"""


def page() -> str:
    """The whole page, as it would be written now."""
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, _stage(Path(folder)) as environment:

        def printed(command: str) -> str:
            """What a command prints, on stdout and stderr together."""
            tape = next((tape for start, tape in OTHER_TAPES.items() if command.startswith(start)), "tape.db")
            return subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env={**environment, "TOKENTAPE_DB": tape},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                check=False,
            ).stdout

        text = BLOCK.sub(lambda block: f"```console\n$ {block[1]}\n{_tidy(printed(block[1]))}```", text)
        return SHAPE.sub(lambda line: f"<!-- keys of: {line[1]} -->\n{_shape(json.loads(printed(line[1])))}", text)


def comparable(text: str) -> str:
    """A page without the numbers that differ from one time to the next, or between installations."""
    return BLOCK.sub(lambda block: NUMBER.sub("N", block[0]) if VARYING.match(block[1]) else block[0], text)


def _tidy(printed: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return f"A list of objects with {_keys(value[0])}."
    return f"One object with {_keys(value)}."


def _keys(value: dict[str, Any]) -> str:
    return ", ".join(f"`{key}`{_inside(inner)}" for key, inner in value.items())


def _inside(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f" (a list of objects with {_keys(value[0])})"
    return f" ({_keys(value)})" if isinstance(value, dict) else ""


@contextlib.contextmanager
def _stage(folder: Path) -> Iterator[dict[str, str]]:
    """A folder with the tapes and the program of the page; gives the environment of the commands."""
    _fill(folder / "tape.db")
    (folder / "app.py").write_text(APP)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TOKENTAPE_")}
    with ProviderServer() as server, _in_flight(folder / "ps.db"):
        server.add(Script([(0.3, Text("Hel")), Text("lo"), Finish("stop"), Usage(12, 2)], repeat=True))
        yield bare | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "none",
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }


def _fill(tape: Path) -> None:
    fake = FakeClock(unix_ns=STARTED_NS)
    with _recording(tape, fake.clock), tokentape.run("nightly-eval"):
        _read(fake, "Hello, ", "tape", ".")
        _read(fake, "Half an ", ConnectionError("connection reset by peer"))
        with tokentape.mark("search", kind="retriever"):
            fake.advance(ms=120)
        with tokentape.label(env="test"):
            _read(fake, "Wait ", "for ", 1400.0, "it", ".")


def _read(fake: FakeClock, *said: str | float | Exception) -> None:
    """Record one call: pieces 50 ms apart, pauses in milliseconds, and an error at the end."""

    def stream() -> Iterator[str]:
        fake.advance(ms=350)
        for item in said:
            fake.advance(ms=item if isinstance(item, float) else 50)
            if isinstance(item, Exception):
                raise item
            if isinstance(item, str):
                yield item

    fake.advance(seconds=60)
    with contextlib.suppress(ConnectionError), tokentape.start_llm_stream(model="acme-1", provider="acme") as call:
        for _ in call.wrap(stream(), events=lambda text: [("text", text)]):
            pass
        call.usage(input_tokens=12, output_tokens=len(said))
        call.finish("stop")


@contextlib.contextmanager
def _in_flight(tape: Path) -> Iterator[None]:
    """A call that has been waiting for three minutes, while the block lasts."""
    clock = Clock(unix_ns=lambda: time.time_ns() - 184 * 10**9)
    with _recording(tape, clock), tokentape.start_llm_stream(model="acme-1", provider="acme") as call:
        call.add_token("Well")
        assert tokentape.flush()
        yield


@contextlib.contextmanager
def _recording(tape: Path, clock: Clock) -> Iterator[None]:
    uids = (f"01JN8RZ5X0K7M2Q4S6T8V9WX{number:02}" for number in range(10))
    with (
        mock.patch("tokentape.recorder.new_uid", side_effect=uids),
        mock.patch("tokentape.runs.new_uid", side_effect=uids),
        mock.patch("tokentape.recording._script_name", return_value="app.py"),
    ):
        # One round of the writer at the end: a clock moved by hand would look to it like a process that stood still.
        tokentape.enable(db=tape, clock=clock, flush_ms=60_000, plugins=())
        try:
            yield
        finally:
            tokentape.disable()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
