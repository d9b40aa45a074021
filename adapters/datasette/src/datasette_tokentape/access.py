"""Who may see a tape, and under which names this machine is asked for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from tokentape.store.columns import tables

from . import compat
from .databases import tapes

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

Actor = dict[str, Any] | None

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::\d{1,5})?")


async def may_see(datasette: Datasette, actor: Actor, database: str) -> bool:
    """Whether an actor may see a tape: the database, and every table of it, since pages and API read them all."""
    return await compat.may_view(datasette, actor, database, tables())


async def visible_tapes(datasette: Datasette, actor: Actor) -> list[Database]:
    """The tapes that an actor may see."""
    return [tape for tape in await tapes(datasette) if await may_see(datasette, actor, tape.name)]


def is_loopback(address: str) -> bool:
    """Whether an address, or a name that stands for one, leads to the machine itself whoever resolves it."""
    name = address.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def is_asked_for_by_name(scope: Mapping[str, Any], hosts: Collection[str]) -> bool:
    """Whether a request that came in on loopback names the machine as somebody on it would.

    A page of another site can make its own name lead to 127.0.0.1, and a browser then lets it read what answers there.
    It cannot make the browser send another name.

    Args:
        scope: of the request.
        hosts: other names that are right, those that a proxy in front sends.
    """
    server = scope.get("server")
    if server is None or not is_loopback(server[0]):
        return True
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    match = _HOST.fullmatch(sent[0].strip()) if len(sent) == 1 else None
    return match is not None and (is_loopback(match["name"]) or match["name"].lower() in hosts)
