"""A tape recorded through real SDKs, with every kind of ending, for tests and pictures of the pages.

`python tests/recorded_tape.py PATH` records it; that takes a few seconds and happens in a process of its own, so that
no test's patches are on it and no patch of its is left behind.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import tokentape
from hostile import HOSTILE, HOSTILE_NAME
from tokentape.testing import (
    Drop,
    Event,
    Finish,
    Hang,
    HTTPError,
    ProviderServer,
    Reasoning,
    Role,
    Script,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)

# A gap from here on is a stall on this tape; the pauses below are longer.
STALL_MS = 200
PAUSE_S = 0.35
EVERY_S = 0.01
# Exit code of the process that is gone in the middle of a call.
GONE = 3

Steps = list[Event | tuple[float, Event]]


@pytest.fixture(scope="session")
def recorded_tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the tape; tests that change it copy it. `RECORDED_TAPE` names one that is there already."""
    there = os.environ.get("RECORDED_TAPE")
    return Path(there) if there else _recorded(tmp_path_factory.getbasetemp() / "recorded" / "tape.db")


@functools.cache
def _recorded(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENTAPE_")}
    done = subprocess.run(
        [sys.executable, __file__, str(path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return path


def record(path: Path) -> None:
    """Record the tape."""
    _lose_a_call(path)
    tokentape.enable(db=path, content="full", stall_ms=STALL_MS, labels={"env": "test"})
    with ProviderServer() as server:
        program = Program(server)
        with tokentape.run("support-agent", metadata={"ticket": 1182}):
            program.answer_with_a_pause()
            program.framework()
            with tokentape.mark("search_orders", kind="tool"):
                time.sleep(0.05)
            program.read_slowly()
            program.block_the_loop()
            program.think()
            with tokentape.run("inner"):
                program.give_up()
        with tokentape.run("failures"):
            program.drop()
            program.refuse()
            program.cancel()
        with tokentape.run(HOSTILE_NAME, metadata={HOSTILE_NAME: HOSTILE_NAME}):
            program.say(HOSTILE_NAME, *HOSTILE)
            program.call_tools()
            program.choose()
            program.in_one_piece()
            program.without_text()
    tokentape.disable()


class Program:
    """A program that streams through SDKs.

    Args:
        server: the provider.
    """

    def __init__(self, server: ProviderServer) -> None:
        import anthropic
        import openai

        self.server = server
        self._openai = openai
        options: dict[str, Any] = {"base_url": server.url, "api_key": "none", "max_retries": 1}
        self.client = openai.OpenAI(**options, http_client=openai.DefaultHttpxClient(trust_env=False))
        self.async_options = options
        self.claude = anthropic.Anthropic(base_url=server.origin, api_key="none", max_retries=0)

    def ask(self, model: str, client: Any = None, **more: Any) -> Any:
        """Ask for a streamed chat completion."""
        options = {"stream": True, "stream_options": {"include_usage": True}, **more}
        return (client or self.client).chat.completions.create(model=model, messages=[], **options)

    def answer_with_a_pause(self) -> None:
        halves = (
            _paced("Your order left our warehouse on Monday "),
            _paced("and reached the sorting centre in Leipzig."),
        )
        self.server.add([(0.1, Role()), *halves[0], (PAUSE_S, Text("… ")), *halves[1], Finish(), Usage(24, 30)])
        _drain(self.ask("gpt-x"))

    def framework(self) -> None:
        from langchain_openai import ChatOpenAI

        self.server.add(
            [(0.1, Role()), *_paced("LangChain says this, and so does the SDK beneath."), Finish(), Usage(9, 12)]
        )
        http = self._openai.DefaultHttpxClient(trust_env=False)
        model = ChatOpenAI(model="gpt-x", base_url=self.server.url, api_key="none", max_retries=0, http_client=http)
        with tokentape.label(user="17"):
            _drain(model.stream("hi"))

    def read_slowly(self) -> None:
        self.server.add([*_paced("The provider was quick, the program was not."), Finish(), Usage(12, 11)])
        stream = self.claude.messages.create(model="claude-y", messages=[], max_tokens=99, stream=True)
        for number, _ in enumerate(stream):
            time.sleep(PAUSE_S if number == 5 else 0)

    def block_the_loop(self) -> None:
        self.server.add(
            [*_paced("Somebody else kept the event loop busy while this came. " * 4), Finish(), Usage(7, 40)]
        )

        async def program() -> None:
            options = {**self.async_options, "http_client": self._openai.DefaultAsyncHttpxClient(trust_env=False)}
            async with self._openai.AsyncOpenAI(**options) as client:
                await asyncio.gather(self._read(client), self._block())

        asyncio.run(program())

    def think(self) -> None:
        thoughts: Steps = [
            (EVERY_S, Reasoning(word)) for word in _words("First the question, then what follows from it.")
        ]
        self.server.add(
            [(0.1, Role()), *thoughts, *_paced("The answer came after."), Finish(), Usage(30, 25, reasoning=12)]
        )
        _drain(self.client.responses.create(model="o-think", input="Think.", stream=True))

    def give_up(self) -> None:
        self.server.add([*_paced("The reader has seen enough of this after a few words and leaves."), Finish()])
        with self.ask("gpt-x") as stream:
            for number, _ in enumerate(stream):
                if number == 4:
                    break

    def drop(self) -> None:
        self.server.add([(0.05, Role()), *_paced("This sentence was never"), (0.05, Drop())])
        with suppress(Exception):
            _drain(self.ask("gpt-x"))

    def refuse(self) -> None:
        self.server.add([HTTPError(400, "no such <b>parameter</b>")])
        with suppress(Exception):
            _drain(self.ask("gpt-x"))

    def cancel(self) -> None:
        self.server.add([*_paced("Nobody waited for the rest of"), Hang(20)])

        async def program() -> None:
            options = {**self.async_options, "http_client": self._openai.DefaultAsyncHttpxClient(trust_env=False)}
            async with self._openai.AsyncOpenAI(**options) as client:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._read(client), 0.4)

        asyncio.run(program())

    def say(self, model: str, *tokens: str) -> None:
        self.server.add([Role(), *((EVERY_S, Text(token)) for token in tokens), Finish(), Usage(3, 20)])
        with tokentape.label(user=HOSTILE_NAME):
            _drain(self.ask(model))

    def call_tools(self) -> None:
        pieces: Steps = [(EVERY_S, ToolArgs(0, piece)) for piece in ('{"q": "', *HOSTILE[:3], '"}')]
        self.server.add([(0.05, ToolCall(0, "call_1", "<u>search</u>")), *pieces, Finish("tool_calls"), Usage(40, 17)])
        _drain(self.ask("gpt-x"))

    def choose(self) -> None:
        both: Steps = [(EVERY_S, Text(word, choice)) for word in _words("One of two answers.") for choice in (0, 1)]
        self.server.add([Role(), *both, Finish("stop", 0), Finish("length", 1)])
        _drain(self.ask("gpt-x", n=2))

    def in_one_piece(self) -> None:
        self.server.add([(0.05, Text("All at once.")), Finish(), Usage(5, 4)])
        self.client.chat.completions.create(model="gpt-x", messages=[])

    def without_text(self) -> None:
        self.server.add([*_paced("Nobody is to know what this says."), Finish(), Usage(5, 9)])
        with tokentape.content("timings"):
            _drain(self.ask("gpt-x"))

    async def _read(self, client: Any) -> None:
        async for _ in await self.ask("gpt-x", client):
            pass

    async def _block(self) -> None:
        await asyncio.sleep(0.2)
        time.sleep(PAUSE_S)  # noqa: ASYNC251  # the mistake that this call is about


def _paced(text: str) -> Steps:
    return [(EVERY_S, Text(word)) for word in _words(text)]


def _words(text: str) -> Iterator[str]:
    return (f"{word} " for word in text.split())


def _drain(stream: Any) -> None:
    for _ in stream:
        pass


def _lose_a_call(path: Path) -> None:
    """A process records the beginning of a call, and is gone."""
    done = subprocess.run([sys.executable, __file__, str(path), "and be gone"], timeout=180, check=False)
    assert done.returncode == GONE


def _be_gone(path: Path) -> None:
    tokentape.enable(db=path, content="full", stall_ms=STALL_MS)
    with ProviderServer() as server:
        server.add(Script([*_paced("The process of this call was gone before"), Hang(20)]))
        stream = Program(server).ask("gpt-x")
        for _ in range(6):
            next(stream)
        assert tokentape.flush(60)
        os._exit(GONE)


if __name__ == "__main__":
    started: Callable[[Path], None] = record if len(sys.argv) == 2 else _be_gone
    started(Path(sys.argv[1]))
