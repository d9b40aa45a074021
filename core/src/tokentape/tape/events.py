"""Token events of one call: as rows, a page at a time, and as columns."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..store.views import DELTA_MS
from .reader import Reader, Row, holds

_PAGE: Final = f"""
SELECT t.token_index, t.token, k.name AS kind, t.part, p.choice, t.offset_us / 1000.0 AS timestamp_ms,
  {DELTA_MS} AS delta_ms,
  t.wait_us / 1000.0 AS wait_ms, t.n_tokens
FROM llm_tokens t
LEFT JOIN llm_parts p ON p.call_id = t.call_id AND p.part = t.part
LEFT JOIN token_kinds k ON k.id = p.kind_id
WHERE t.call_id = :call AND t.token_index > :after
  AND (:kind IS NULL OR k.name = :kind)
  AND (:q IS NULL OR {holds("t.token")})
  AND (:start_us IS NULL OR t.offset_us >= :start_us)
  AND (:end_us IS NULL OR t.offset_us < :end_us)
ORDER BY t.token_index
LIMIT :limit OFFSET :offset
"""  # noqa: S608  # put together from constants; values are bound


class Event(NamedTuple):
    """One token event: what one chunk added to one part. Times are microseconds, `offset_us` since the call started."""

    token_index: int
    offset_us: int
    wait_us: int
    part: int
    token: str | None
    n_tokens: int | None


class Columns(NamedTuple):
    """Token events as columns of one length."""

    token_index: list[int]
    offset_us: list[int]
    wait_us: list[int]
    part: list[int]
    token: list[str | None]

    def beyond(self, count: int) -> Columns:
        """All but the first events."""
        return Columns(
            self.token_index[count:],
            self.offset_us[count:],
            self.wait_us[count:],
            self.part[count:],
            self.token[count:],
        )


class Events(Reader):
    """Questions about the token events of a call."""

    def events(self, call_id: int) -> list[Event]:
        """The token events of a call, in the order they came."""
        asked = (
            "SELECT token_index, offset_us, wait_us, part, token, n_tokens FROM llm_tokens "
            "WHERE call_id = ? ORDER BY token_index"
        )
        return self._fetched(asked, [call_id], lambda rows: list(map(Event._make, rows)))

    def columns(self, call_id: int, after: int = -1, limit: int = -1) -> Columns:
        """The token events of a call, in the order they came, as columns.

        Args:
            after: only events with a higher index.
            limit: how many at the most; -1 for all.
        """
        asked = (
            "SELECT token_index, offset_us, wait_us, part, token FROM llm_tokens "
            "WHERE call_id = ? AND token_index > ? ORDER BY token_index LIMIT ?"
        )
        rows = self._tuples(asked, [call_id, after, limit])
        return Columns(*map(list, zip(*rows, strict=True))) if rows else Columns([], [], [], [], [])

    def page_of_events(
        self,
        call_id: int,
        limit: int,
        *,
        after: int = -1,
        offset: int = 0,
        kind: str | None = None,
        q: str | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
    ) -> list[Row]:
        """Token events of a call with kind and times in milliseconds, in the order they came.

        Args:
            limit: how many at the most; -1 for all.
            after: only events with a higher index.
            offset: how many of those that are asked for to leave out at the beginning.
            kind: only events of parts of this kind.
            q: only events with this text; letters of ASCII in either case.
            start_us: only events at this time since the call started or later, and `end_us` before it.
        """
        wanted: dict[str, Any] = {
            "call": call_id,
            "after": after,
            "kind": kind,
            "q": q,
            "start_us": start_us,
            "end_us": end_us,
            "limit": limit,
            "offset": offset,
        }
        return self._rows(_PAGE, wanted)

    def last_index(self, call_id: int) -> int:
        """Index of the last token event that is on the tape; -1 where there is none."""
        asked = "SELECT coalesce(max(token_index), -1) AS last FROM llm_tokens WHERE call_id = ?"
        return int(self._rows(asked, [call_id])[0]["last"])
