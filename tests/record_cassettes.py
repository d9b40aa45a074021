"""Records the cassettes anew from the provider server on loopback: `make cassettes`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from cassette_clients import client_for
from cassettes import EXCHANGES, FOLDER, KEY, MODES, name_of, recorder
from tokentape.testing import ProviderServer


def record(cassette: str, mode: str, folder: Path) -> Path:
    """Record one cassette; the path of its file."""
    path = folder / name_of(cassette, mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    # A server each: ids in its answers count its requests, and are to be the same every time.
    with ProviderServer() as server, recorder("all").use_cassette(str(path)):
        asyncio.run(_exchange(server, cassette, mode))
    return path


async def _exchange(server: ProviderServer, cassette: str, mode: str) -> None:
    client = client_for(cassette, mode, server.origin, KEY)
    for exchange in EXCHANGES[cassette]:
        server.add(exchange.script)
        with contextlib.suppress(client.refused):
            await client.send(exchange)
    await client.close()


def main() -> None:
    """Record all of them."""
    for cassette in EXCHANGES:
        for mode in MODES:
            print(record(cassette, mode, FOLDER).relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()
