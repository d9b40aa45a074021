"""Records the cassettes anew from the provider server on loopback: `make cassettes`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from cassettes import EXCHANGES, FOLDER, KEY, MODES, SDKS, name_of, recorder, send
from tokentape.testing import ProviderServer
from tokentape.testing.rig import resolved


def record(api: str, mode: str, folder: Path) -> Path:
    """Record one cassette; the path of its file."""
    path = folder / name_of(api, mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    # A server each: ids in its answers count its requests, and are to be the same every time.
    with ProviderServer() as server, recorder("all").use_cassette(str(path)):
        asyncio.run(_exchange(server, api, mode))
    return path


async def _exchange(server: ProviderServer, api: str, mode: str) -> None:
    client = SDKS[api].client(mode, server.origin, KEY)
    for exchange in EXCHANGES[api]:
        server.add(exchange.script)
        with contextlib.suppress(SDKS[api].refused):
            await send(client, api, exchange)
    await resolved(client.close())


def main() -> None:
    """Record all of them."""
    for api in EXCHANGES:
        for mode in MODES:
            print(record(api, mode, FOLDER).relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()
