"""Links from rows of a tape, as Datasette shows them, to our pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup

from .databases import is_tape, tapes
from .policy import BASE

if TYPE_CHECKING:
    from datasette.app import Datasette

# Tables and views with a row for a call, or a run, each: what its page is below, and what the link says.
_LEADS_TO: Final = {
    **dict.fromkeys(("llm_calls", "calls", "streaming_stats", "responses", "stalls", "in_flight"), ("calls", "play")),
    **dict.fromkeys(("runs", "run_stats"), ("runs", "timeline")),
}


def link(datasette: Datasette, database: str, table: str | None, column: str, value: Any) -> Any:
    """What a cell shows instead of its value: for a uid, the uid and a link behind it; None for any other."""
    leads_to = _LEADS_TO.get(table or "")
    if column != "uid" or leads_to is None or not isinstance(value, str):
        return None
    page, says = leads_to

    async def cell() -> Markup | None:
        if not await is_tape(datasette.get_database(database)):
            return None
        query = f"?{urlencode({'db': database})}" if len(await tapes(datasette)) > 1 else ""
        path = datasette.urls.path(f"{BASE}/{page}/{quote(value, safe='')}")
        return Markup('{} <a href="{}{}">▶ {}</a>').format(value, path, query, says)

    return cell
