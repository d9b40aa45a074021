"""Records the cassettes anew from the provider server on loopback: `make cassettes`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import openai

from cassettes import EXCHANGES, FOLDER, KEY, MODES, recorder, send
from tokentape.testing import ProviderServer
from tokentape.testing.rig import resolved


def record(api: str, mode: str, folder: Path) -> Path:
    """Record one cassette; the path of its file."""
    path = folder / f"{api}-{mode}.yaml"
    path.unlink(missing_ok=True)
    # A server each: ids in its answers count its requests, and are to be the same every time.
    with ProviderServer() as server, recorder("all").use_cassette(str(path)):
        asyncio.run(_exchange(server, api, mode))
    return path


async def _exchange(server: ProviderServer, api: str, mode: str) -> None:
    kind = openai.AsyncOpenAI if mode == "async" else openai.OpenAI
    client = kind(base_url=server.url, api_key=KEY, max_retries=0)
    for exchange in EXCHANGES[api]:
        server.add(exchange.script)
        with contextlib.suppress(openai.BadRequestError):
            await send(client, api, exchange)
    await resolved(client.close())


def main() -> None:
    """Record all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for api in EXCHANGES:
        for mode in MODES:
            print(record(api, mode, FOLDER).relative_to(FOLDER.parents[1]))


if __name__ == "__main__":
    main()
