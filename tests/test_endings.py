"""A server that hands an answer on stops when its own client is gone; the rest of how streams end is in the suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from anthropic_drivers import MessagesDriver
from langchain_drivers import LangChainDriver
from llama_index_drivers import LlamaIndexDriver
from openai_drivers import ChatDriver
from tokentape.testing import Hang
from tokentape.testing.conformance.suite import words
from tokentape.testing.rig import Rig

DRIVERS = {
    "openai": ChatDriver(),
    "anthropic": MessagesDriver(),
    "langchain": LangChainDriver(),
    "llama-index": LlamaIndexDriver(),
}


@pytest.mark.scenario("capture/Task cancelled")
@pytest.mark.parametrize("adapter", DRIVERS)
async def test_the_client_of_a_server_that_hands_an_answer_on_disconnects(adapter: str, tmp_path: Path) -> None:
    with Rig(DRIVERS[adapter], tmp_path / "tape.db", asynchronous=True).running(plugins=[adapter]) as rig:
        rig.server.add([*words(3), Hang(30)])
        left = anyio.Event()
        handed_on: list[str] = []

        async def respond() -> None:
            async for chunk in await rig.send():
                handed_on.append(rig.driver.text(chunk))
                if "word2 " in handed_on:
                    left.set()

        await first_to_end(respond, left.wait)
        await rig.collect()
        await rig.finish()
        assert "".join(handed_on) == "word0 word1 word2 "
        assert (rig.call()["status"], rig.call()["error_type"], rig.call()["event_count"]) == (
            *("cancelled", "CancelledError", 3),
        )
        assert rig.complaints() == []


async def first_to_end(*steps: Callable[[], Awaitable[Any]]) -> None:
    """As web frameworks send a stream: the answer and the wait for the client's end side by side, and one ends both."""
    async with anyio.create_task_group() as group:

        async def run(step: Callable[[], Awaitable[Any]]) -> None:
            await step()
            group.cancel_scope.cancel()

        for step in steps:
            group.start_soon(run, step)
