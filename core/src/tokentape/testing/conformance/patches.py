"""What an adapter patches is patched once, in whatever order things happen, and put back as it was found."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape import patching

from ..events import Finish, Text
from ..rig import Rig
from ..script import Script
from .suite import Suite, scenario

SCRIPT = Script([Text("Hel"), Text("lo"), Finish("stop")], repeat=True)
# Recording is switched on and off before and after the client is made.
ORDERS = ("client on", "client on on", "on client", "on off client on", "client on off on", "on client off on")
# A program that begins to record before it imports the SDK, and reads an answer in each mode.
LATE = """
import asyncio, importlib, sys

sys.path[:] = {path!r}
import tokentape

tokentape.enable(db={db!r}, plugins={plugins!r}, flush_ms=20)
assert tokentape.status()["patches"] == []
driver = importlib.import_module({module!r}).{name}()

from tokentape.testing.rig import resolved

async def ask(asynchronous):
    client = driver.client({url!r}, asynchronous)
    stream = await resolved(driver.send(client))
    if asynchronous:
        async for chunk in stream:
            pass
    else:
        for chunk in stream:
            pass
    await resolved(driver.close_client(client))

asyncio.run(ask(False))
asyncio.run(ask(True))
"""


class Patches(Suite):
    """Switching on and off."""

    @pytest.fixture
    def nothing_left_behind(self) -> Iterator[None]:
        """Patches that had to stay, because another tool was on top, go with the test."""
        yield
        tokentape.disable()
        patching._sets.clear()

    @pytest.mark.scenario("adapters/Any order")
    @scenario(uses="nothing_left_behind")
    async def test_recording_begins_before_or_after_the_client_is_made(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        for order in ORDERS:
            tokentape.disable()
            for step in order.split():
                match step:
                    case "on":
                        tokentape.enable(db=rig.db, plugins=self.plugins)
                    case "off":
                        tokentape.disable()
                    case "client":
                        await rig.finish()
                        rig.client()
            await rig.read(await rig.send())
        self._expect_recorded(rig, len(ORDERS))

    @pytest.mark.scenario("adapters/Any order", "adapters/SDK never imported")
    @scenario("once", uses="nothing_left_behind")
    async def test_recording_begins_before_the_sdk_is_imported(self, rig: Rig) -> None:
        tokentape.disable()
        rig.server.add(SCRIPT)
        kind = type(self.driver)
        program = LATE.format(
            path=sys.path, db=str(rig.db), plugins=self.plugins, module=kind.__module__, name=kind.__name__,
            url=rig.server.url,
        )  # fmt: skip
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        self._expect_recorded(rig, 2)

    @pytest.mark.scenario("adapters/Restored by identity")
    @scenario(uses="nothing_left_behind")
    async def test_stopping_puts_back_the_very_objects(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        await rig.read(await rig.send())
        targets = self._targets(rig)
        tokentape.disable()
        originals = [target.found() for target in targets]
        for _ in range(2):
            rig.record()
            assert [target.path for target in self._targets(rig)] == [target.path for target in targets]
            assert not any(t.found() is original for t, original in zip(targets, originals, strict=True))
            tokentape.disable()
            assert all(t.found() is original for t, original in zip(targets, originals, strict=True))
            assert tokentape.status()["patches"] == []
        await rig.read(await rig.send())
        self._expect_recorded(rig, 1)

    @pytest.mark.scenario("adapters/Another tool on top")
    @scenario(uses="nothing_left_behind")
    async def test_another_tool_on_top_works_on_after_recording_stops(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        await rig.read(await rig.send())
        for recorded, target in enumerate(self._every_target(rig), start=1):
            tokentape.disable()
            with target.restored():
                rig.record()
                with wrapped(target) as tool:
                    assert self._patches(rig)["wrapped_over"] == [target.path]
                    await rig.read(await rig.send())
                    tokentape.disable()
                    assert target.found() is tool
                    assert [left["wrapped_over"] for left in tokentape.status()["patches"]] == [[target.path]]
                    await rig.read(await rig.send())
                # Without the tool ours is what the SDK calls, and does nothing any more.
                await rig.read(await rig.send())
            patching._sets.clear()
            self._expect_recorded(rig, recorded + 1)

    @pytest.mark.scenario("adapters/Restored by identity")
    @scenario(uses="nothing_left_behind")
    async def test_another_tool_below_is_put_back_when_recording_stops(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        await rig.read(await rig.send())
        for recorded, target in enumerate(self._every_target(rig), start=1):
            tokentape.disable()
            with wrapped(target) as tool:
                rig.record()
                await rig.read(await rig.send())
                tokentape.disable()
                assert target.found() is tool
                await rig.read(await rig.send())
            self._expect_recorded(rig, recorded + 1)

    @pytest.mark.scenario("adapters/Seam missing")
    @scenario(uses="nothing_left_behind")
    async def test_a_target_that_is_missing_is_named_and_the_others_are_patched(self, rig: Rig) -> None:
        rig.server.add(SCRIPT)
        await rig.read(await rig.send())
        paths = [target.path for target in self._targets(rig)]
        for target in self._every_target(rig):
            tokentape.disable()
            with target.restored():
                target.remove()
                rig.record()
            patches = self._patches(rig)
            (missing,) = patches["missing"]
            # Where an SDK gives its public classes another module's name, it is looked for under its own.
            assert missing.split(".")[-2:] == target.path.split(".")[-2:]
            assert patches["patched"] == [path for path in paths if path != target.path]
            chunks = await rig.read(await rig.send())
            assert "".join(map(rig.driver.text, chunks)) == "Hello"
        tokentape.disable()
        assert tokentape.status()["patches"] == []

    @pytest.mark.scenario("capture/Disabled by environment")
    @scenario(uses="nothing_left_behind")
    async def test_switched_off_by_the_environment(
        self, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig.server.add(SCRIPT)
        await rig.read(await rig.send())
        targets = self._targets(rig)
        tokentape.disable()
        originals = [target.found() for target in targets]
        monkeypatch.setenv("TOKENTAPE_DISABLED", "1")
        rig.record(db=tmp_path / "off.db")
        assert tokentape.status()["reason"] == "TOKENTAPE_DISABLED is set"
        chunks = await rig.read(await rig.send())
        assert "".join(map(rig.driver.text, chunks)) == "Hello"
        assert all(t.found() is original for t, original in zip(targets, originals, strict=True))
        assert not (tmp_path / "off.db").exists()
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("tokentape")] == []
        assert tokentape.status()["patches"] == []

    def _patches(self, rig: Rig) -> dict[str, Any]:
        """What the adapter under test has patched; those of other SDKs have patched too."""
        adapter = rig.calls()[0]["adapter"]
        (patches,) = (found for found in tokentape.status()["patches"] if found["adapter"] == adapter)
        return dict(patches)

    def _targets(self, rig: Rig) -> list[Target]:
        return [Target(path) for path in self._patches(rig)["patched"]]

    def _every_target(self, rig: Rig) -> list[Target]:
        targets = self._targets(rig)
        assert targets, "an adapter that patches nothing declares this test not possible"
        return targets

    def _expect_recorded(self, rig: Rig, calls: int) -> None:
        """So many whole answers are on the tape, each piece once."""
        assert [(call["status"], call["event_count"]) for call in rig.calls()] == [("completed", 2)] * calls
        assert rig.text() == "Hello" * calls


class Target:
    """A method that is patched.

    Args:
        path: module, class and name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        module, owner, self._name = path.rsplit(".", 2)
        self._owner = getattr(sys.modules[module], owner)

    def found(self) -> Any:
        """What is there now."""
        return vars(self._owner)[self._name]

    def put(self, value: Any) -> None:
        """Replace what is there."""
        setattr(self._owner, self._name, value)

    def remove(self) -> None:
        """As if a release of the SDK had moved it."""
        delattr(self._owner, self._name)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Afterwards it is what it was before the block."""
        found = self.found()
        try:
            yield
        finally:
            self.put(found)


@contextmanager
def wrapped(target: Target) -> Iterator[Any]:
    """Another tool has patched a method, and calls what it found; what it put there."""
    found = target.found()

    def patch(instance: Any, *args: Any, **kwargs: Any) -> Any:
        return found.__get__(instance)(*args, **kwargs)

    with target.restored():
        target.put(patch)
        yield patch
