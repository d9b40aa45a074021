"""What the parts of the suite stand on: the driver under test, its rig, and scenarios that run in both modes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

import tokentape

from ..driver import Driver, Traits
from ..events import Event, Finish, Logprob, Reasoning, Refusal, Role, Text, ToolArgs, ToolCall, Usage
from ..rig import END, Rig
from ..script import Script

Steps = Iterable[Event | tuple[float, Event]]
Body = Callable[..., Coroutine[Any, Any, None]]
Test = Callable[..., None]

BOTH = ("sync", "async")
# What it means that a driver's `send` does not take an option.
WITHOUT = {
    "choices": "it streams one answer a request",
    "include_usage": "a request has no say in whether usage is told",
    "prompt": "the driver always asks the same",
}


class Needs(NamedTuple):
    """What a scenario cannot do without.

    Attributes:
        kinds: what the SDK has to be able to stream.
        options: what the driver's `send` has to take.
        hostile: whether the driver has to name what a server should not send.
    """

    kinds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    hostile: bool = False

    def missing(self, driver: Driver) -> str | None:
        """What of it this driver does not have, in words; None where nothing is missing."""
        traits = Traits.of(driver)
        kinds, options = set(self.kinds) - driver.kinds, set(self.options) - traits.options
        if kinds:
            return f"it streams no {', '.join(sorted(kinds))}"
        if options:
            return "; ".join(WITHOUT[option] for option in sorted(options))
        return "the driver names no hostile chunks" if self.hostile and not traits.hostile else None


def scenario(
    *modes: str,
    uses: str = "rig",
    attempts: int = 1,
    differs: Mapping[tuple[str, Any], str] | None = None,
    **needs: Any,
) -> Callable[[Body], Test]:
    """Make a coroutine over a rig into a test.

    Args:
        modes: `sync`, `async`, or `once` for what does both in one go; each of the first two if none is named.
        uses: a fixture that prepares it. One that is used by itself would be by all tests of the class put together.
        attempts: how often it may be tried; more than once where a busy machine can make a right time look wrong.
        differs: what is expected instead of a driver that has this value of a trait.
        **needs: fields of `Needs`.
    """

    def decorate(body: Body) -> Test:
        @functools.wraps(body)
        def test(self: Suite, rig: Rig, **fixtures: Any) -> None:
            reason = self.why_not(body.__name__)
            if reason is not None:
                pytest.skip(f"not possible here: {reason}")

            async def whole() -> None:
                try:
                    await body(self, rig, **fixtures)
                finally:
                    await rig.collect()
                    await rig.finish()

            for left in reversed(range(attempts)):
                try:
                    rig.run(whole())
                except AssertionError:
                    if not left:
                        raise
                    rig.renew()
                else:
                    break
            assert rig.complaints() == []

        marked: Any = pytest.mark.parametrize("rig", modes or BOTH, indirect=True)(test)
        marked = pytest.mark.usefixtures(uses)(marked)
        marked.modes, marked.needs, marked.differs = modes or BOTH, Needs(**needs), differs or {}
        return marked  # type: ignore[no-any-return]

    return decorate


class Seen(NamedTuple):
    """What a program sees of one answer.

    Attributes:
        chunks: type of each chunk with what of it is always the same.
        failure: type, words, cause and context of the exception that ended the reading.
    """

    chunks: list[tuple[type, Any]]
    failure: tuple[Any, ...] | None


class Suite:
    """One class of tests of one driver.

    Attributes:
        driver: which SDK.
        plugins: which adapters record; None for all that are installed. A framework's adapter is tested by itself.
        not_possible: tests that the framework does not allow, by name, each with the reason.
    """

    driver: ClassVar[Driver]
    plugins: ClassVar[Sequence[str] | None] = None
    not_possible: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def rig(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
        """Server, tape and driver in one of the two modes."""
        with Rig(self.driver, tmp_path / "tape.db", request.param == "async").running(plugins=self.plugins) as rig:
            yield rig

    @classmethod
    def scenarios(cls) -> list[str]:
        """Names of the tests that are scenarios, in the order of the suite."""
        return [name for part in cls.__mro__ for name, test in vars(part).items() if hasattr(test, "needs")]

    @classmethod
    def why_not(cls, name: str) -> str | None:
        """Why a scenario is not possible for this driver; None where it is."""
        needs: Needs = getattr(cls, name).needs
        return cls.not_possible.get(name) or needs.missing(cls.driver)

    @classmethod
    def difference(cls, name: str) -> str | None:
        """What a scenario expects of this driver instead; None where it expects what it says."""
        traits = Traits.of(cls.driver)
        differs: Mapping[tuple[str, Any], str] = getattr(cls, name).differs
        return next((text for (trait, value), text in differs.items() if getattr(traits, trait) == value), None)

    def test_what_is_declared_not_possible_is_on_the_list(self) -> None:
        assert set(self.not_possible) <= set(self.scenarios())

    async def seen(self, rig: Rig, stream: Any = None, **options: Any) -> Seen:
        """Read an answer to its end, or to what ends it.

        Args:
            rig: asks for it, unless it has.
            stream: what it got if it has.
            **options: of those that the driver's `send` takes.
        """
        chunks: list[Any] = []
        failure = None
        try:
            stream = await rig.send(**options) if stream is None else stream
            while (chunk := await rig.next(stream)) is not END:
                chunks.append(chunk)
        except Exception as raised:
            failure = type(raised), str(raised), type(raised.__cause__), type(raised.__context__)
        return Seen([(type(chunk), rig.traits.value(chunk)) for chunk in chunks], failure)

    async def same_unrecorded(self, rig: Rig, steps: Steps, use: Callable[[Rig], Coroutine[Any, Any, Any]]) -> Any:
        """What a program gets while it is recorded; unrecorded it sends and gets the same.

        Args:
            rig: nobody has asked its server yet; recording is off afterwards.
            steps: answer every request.
            use: the program.
        """
        script = Script(steps, repeat=True)
        rig.server.add(script)
        recorded = await use(rig)
        async with rig.unrecorded() as twin:
            twin.server.add(script)
            plain = await use(twin)
            assert recorded == plain
            assert rig.sent() == twin.sent()
        return recorded

    async def unrecorded(self, rig: Rig, steps: Steps, **options: Any) -> Seen:
        """What a program sees of an answer in the middle of all that is recorded."""
        rig.server.add(steps)
        with tokentape.suppress():
            return await self.seen(rig, **options)


def words(count: int, delay: float = 0.0) -> list[Any]:
    """A script of that many words."""
    return [(delay, Text(f"word{i} ")) for i in range(count)]


def everything(driver: Driver) -> list[Any]:
    """A script of all that an SDK can stream."""
    tools: list[Any] = [ToolCall(0, "call_1", "look"), ToolArgs(0, '{"a":'), ToolArgs(0, "1}")]
    return [
        Role(),
        *([Reasoning("hm "), Reasoning("ah")] if "reasoning" in driver.kinds else []),
        Text("Hel"),
        Text("lo", logprobs=(Logprob("lo", -0.5, top=(("la", -1.5),)),)),
        Text(""),
        *([Refusal("no")] if "refusal" in driver.kinds else []),
        *(tools if "tool_args" in driver.kinds else []),
        Finish("tool_calls" if "tool_args" in driver.kinds else "stop"),
        Usage(30, 12, cached=5),
    ]
