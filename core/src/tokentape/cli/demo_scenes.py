"""The scenes of `tokentape demo`: what the server sends, and what the program that reads it does."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..testing import Drop, Event, Finish, HTTPError, Reasoning, Role, Script, Text, ToolArgs, ToolCall, Usage

# Above the second from which a gap counts as a stall, with room to be seen in a drawing.
PAUSE_S: Final = 1.4
# What the slow reader does with every chunk, and the chunk that keeps it longer; how much the other one reads.
REST_S: Final = 0.05
LONG_CHUNK: Final = 5
ENOUGH: Final = 6

Steps = list[Event | tuple[float, Event]]


class Stage:
    """What a scene's program needs: clients of the server, and somebody to tell what it reads.

    Args:
        sdk: the module `openai`.
        url: base URL of the server.
        said: called with each piece of text.
    """

    def __init__(self, sdk: Any, url: str, said: Callable[[str], None]) -> None:
        self._sdk = sdk
        self._url = url
        self.said = said
        self.client = self._connect(sdk.OpenAI, sdk.DefaultHttpxClient)

    def async_client(self) -> Any:
        """A client for the event loop that is running; to be closed there."""
        return self._connect(self._sdk.AsyncOpenAI, self._sdk.DefaultAsyncHttpxClient)

    def ask(self, model: str, client: Any = None) -> Any:
        """Ask for a streamed chat completion as a program would; an asynchronous client gives an awaitable of it."""
        return (client or self.client).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is this scene about?"}],
            stream=True,
            stream_options={"include_usage": True},
        )

    def read(self, stream: Any, pause: Callable[[int], float] = lambda number: 0.0) -> None:
        """Read a stream to its end, resting so many seconds after each chunk."""
        for number, chunk in enumerate(stream):
            self.said(_text(chunk))
            time.sleep(pause(number))

    async def read_async(self, client: Any, model: str) -> None:
        """Ask for a stream and read it to its end."""
        async for chunk in await self.ask(model, client):
            self.said(_text(chunk))

    def _connect(self, kind: Any, http: Any) -> Any:
        # A proxy that the environment names must not come between us and loopback.
        return kind(base_url=self._url, api_key="none", max_retries=2, http_client=http(trust_env=False))


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that happens to streams.

    Attributes:
        name: its label on the tape.
        scripts: what the server answers, request by request.
        play: the program.
    """

    name: str
    title: str
    scripts: tuple[Script, ...]
    play: Callable[[Stage], None]


def _text(chunk: Any) -> str:
    """What a chunk adds, for the eye: an event of Responses has it as its delta, a chunk of chat in its choice's."""
    if not hasattr(chunk, "choices"):
        return str(getattr(chunk, "delta", ""))
    delta = chunk.choices[0].delta if chunk.choices else None
    tools = getattr(delta, "tool_calls", None) or ()
    return getattr(delta, "content", None) or "".join(tool.function.arguments or "" for tool in tools)


def _read_slowly(stage: Stage) -> None:
    stage.read(stage.ask("demo-slow-reader"), lambda number: PAUSE_S if number == LONG_CHUNK else REST_S)


def _block_the_loop(stage: Stage) -> None:
    async def block() -> None:
        await asyncio.sleep(0.5)
        time.sleep(PAUSE_S)  # noqa: ASYNC251  # the mistake that this scene is about

    async def program() -> None:
        async with stage.async_client() as client:
            await asyncio.gather(stage.read_async(client, "demo-blocked-loop"), block())

    asyncio.run(program())


def _read_two(stage: Stage) -> None:
    async def program() -> None:
        async with stage.async_client() as client:
            await asyncio.gather(*(stage.read_async(client, f"demo-parallel-{which}") for which in "ab"))

    asyncio.run(program())


def _reason(stage: Stage) -> None:
    stage.read(stage.client.responses.create(model="demo-reasoning", input="Think first.", stream=True))


def _survive_the_drop(stage: Stage) -> None:
    try:
        stage.read(stage.ask("demo-drop"))
    except Exception as error:
        # Of which class it is depends on the SDK's version.
        stage.said(f"… {type(error).__name__}")


def _give_up(stage: Stage) -> None:
    with stage.ask("demo-gives-up") as stream:
        for number, chunk in enumerate(stream):
            stage.said(_text(chunk))
            if number == ENOUGH:
                break


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def _paced(text: str, every: float = 0.03) -> Steps:
    return [(every, Text(word)) for word in _words(text)]


def _answer(first: float, *content: Steps, reasoning: int | None = None) -> Steps:
    steps: Steps = [step for steps in content for step in steps]
    # Tokens are what is billed, and not what the stream was cut into.
    return [(first, Role()), *steps, Finish(), Usage(24, len(steps) * 4 // 3, reasoning=reasoning)]


def _two_answers() -> tuple[Script, ...]:
    quick = _answer(0.2, _paced("One of two streams on one event loop, the quick one."))
    slow = _answer(0.3, _paced("The other of two streams, which is slower.", 0.1))
    return Script(quick, model="demo-parallel-a"), Script(slow, model="demo-parallel-b")


def _tool_call() -> Steps:
    pieces = ('{"city', '": "', "Nu", "uk", '", "', "unit", '": "', "cel", "sius", '"}')
    arguments: Steps = [(0.04, ToolArgs(0, piece)) for piece in pieces]
    return [(0.3, ToolCall(0, "call_weather", "get_weather")), *arguments, Finish("tool_calls"), Usage(61, 17)]


def _thoughts() -> Steps:
    text = "First the question, then what is known, then what follows from it, step by step."
    return [(0.04, Reasoning(word)) for word in _words(text)]


def _scene(name: str, title: str, *answers: Steps, play: Callable[[Stage], None] | None = None) -> Scene:
    scripts = tuple(Script(steps, model=f"demo-{name}") for steps in answers)
    return Scene(name, title, scripts, play or (lambda stage: stage.read(stage.ask(f"demo-{name}"))))


WARM_UP: Final = _scene("warm-up", "getting ready", _answer(0.0, _paced("Ready.")))

SCENES: Final = (
    _scene(
        "steady",
        "steady stream",
        _answer(0.2, _paced("A steady stream: one word every thirty milliseconds, and nothing to complain about.")),
    ),
    _scene(
        "slow-first-token",
        "slow first token",
        _answer(1.9, _paced("It took the model two seconds to begin, and none to go on.")),
    ),
    _scene(
        "stall",
        "stall in mid-stream",
        _answer(
            0.2,
            _paced("Half of the answer came at an even pace, then the provider fell silent "),
            [(PAUSE_S, Text("… "))],
            _paced("and after a while it went on as if nothing had been."),
        ),
    ),
    _scene(
        "slow-reader",
        "slow reader",
        _answer(0.1, _paced("The provider was quick, but the program took its time.", 0.01)),
        play=_read_slowly,
    ),
    _scene(
        "blocked-loop",
        "blocked event loop",
        _answer(0.1, _paced("Another task never awaited, and so the event loop stood still; " * 4)),
        play=_block_the_loop,
    ),
    _scene("tool-call", "tool call", _tool_call()),
    _scene(
        "reasoning",
        "reasoning",
        _answer(0.2, _thoughts(), _paced("The answer came after the thinking."), reasoning=15),
        play=_reason,
    ),
    Scene("parallel", "two parallel streams", _two_answers(), _read_two),
    _scene(
        "retry",
        "a 429 and its retry",
        [HTTPError(429, "slow down", headers={"retry-after": "1"})],
        _answer(0.2, _paced("The first attempt was refused, the second one answered.")),
    ),
    _scene(
        "drop",
        "connection drops",
        [(0.2, Role()), *_paced("This sentence was never"), (0.2, Drop())],
        play=_survive_the_drop,
    ),
    _scene(
        "gives-up",
        "reader gives up",
        _answer(0.2, _paced("The reader has seen enough of this after a few words, closes the stream and leaves.")),
        play=_give_up,
    ),
)
