# ruff: noqa: S608  # the pieces put together are constants; values are bound
"""What has happened since a position: calls that are new, events that came, calls that have ended.

A position says which calls are known and how far each that runs was read, so that nothing is told twice or left out,
whoever asks and however often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple
from zlib import crc32

from .calls import Calls
from .events import Columns, Events
from .reader import STATUS, Row

UNTOLD: Final = -1
# How many events one change holds at the most, how many all of them, and how many calls are told at once.
EVENTS_AT_ONCE: Final = 2_000
ALL_EVENTS_AT_ONCE: Final = 20_000
CALLS_AT_ONCE: Final = 200
HEXADECIMAL: Final = frozenset("0123456789abcdef")
_ID_LIMIT: Final = 2**63

_NEW: Final = "SELECT id FROM llm_calls WHERE id > :highest ORDER BY id LIMIT :limit"
_STATE: Final = f"""
SELECT c.id, c.uid, {STATUS} AS status, EXISTS (
  SELECT 1 FROM llm_tokens t WHERE t.call_id = c.id AND t.token_index >= json_extract(open.value, '$[1]')
) AS has_more
FROM json_each(:open) open JOIN llm_calls c ON c.id = json_extract(open.value, '$[0]')
ORDER BY c.id
"""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a tape was told.

    Attributes:
        highest: row id of the newest call that is known; 0 before the first.
        mark: made of that call's uid, by which the tape is told from another in its place.
        open: index of the next event of each call that is not known to have ended, by row id; `UNTOLD` for one that is
            itself still to be told.
    """

    highest: int = 0
    mark: str = ""
    open: Mapping[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """As text, `17-9ae0daaf_15.230_16.0`, of characters that pass every header and address as they are."""
        calls = (f"{call}.{index}" for call, index in sorted(self.open.items()))
        return "_".join([f"{self.highest}-{self.mark}" if self.mark else str(self.highest), *calls])

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        known, *calls = text.split("_")
        highest, _, mark = known.partition("-")
        pairs = [call.partition(".") for call in calls]
        position = cls(_number(highest), mark, {_number(call): _number(index, UNTOLD) for call, _, index in pairs})
        if str(position) != text or max([0, *position.open]) > position.highest or not HEXADECIMAL.issuperset(mark):
            raise ValueError(text)
        return position


@dataclass(frozen=True, slots=True)
class Started:
    """A call is new."""

    call: Row

    def after(self, position: Position) -> Position:
        """The position when this has been told."""
        call_id = self.call["id"]
        told = {**position.open, call_id: 0}
        if call_id <= position.highest:
            return replace(position, open=told)
        return Position(call_id, _mark(self.call["uid"]), told)

    def since(self, position: Position) -> Started | None:
        """What of this has not been told at a position; None if all has."""
        call_id = self.call["id"]
        return self if call_id > position.highest or position.open.get(call_id) == UNTOLD else None


@dataclass(frozen=True, slots=True)
class Came:
    """Token events came, and perhaps parts with them.

    Attributes:
        parts: all parts of the call so far.
    """

    call_id: int
    call_uid: str
    events: Columns
    parts: list[Row]

    def after(self, position: Position) -> Position:
        """The position when this has been told."""
        return replace(position, open={**position.open, self.call_id: self.events.token_index[-1] + 1})

    def since(self, position: Position) -> Came | None:
        """What of this has not been told at a position; None if all has."""
        first = position.open.get(self.call_id)
        if first is None:
            return None
        told = sum(index < first for index in self.events.token_index)
        if told == len(self.events.token_index):
            return None
        return replace(self, events=self.events.beyond(told)) if told else self


@dataclass(frozen=True, slots=True)
class Ended:
    """A call has ended, or its process is gone."""

    call: Row

    def after(self, position: Position) -> Position:
        """The position when this has been told."""
        return replace(position, open={call: at for call, at in position.open.items() if call != self.call["id"]})

    def since(self, position: Position) -> Ended | None:
        """What of this has not been told at a position; None if all has."""
        return self if self.call["id"] in position.open else None


Change = Started | Came | Ended


class Happened(NamedTuple):
    """What has happened between two positions."""

    since: Position
    changes: list[Change]
    until: Position


class Live(Calls, Events):
    """Questions about what is going on."""

    def beginning(self) -> Position:
        """The position before the calls that are running; what has ended counts as told."""
        newest = self._rows("SELECT id, uid FROM llm_calls ORDER BY id DESC LIMIT 1")
        if not newest:
            return Position()
        asked = f"SELECT c.id FROM llm_calls c WHERE c.status = 'running' AND {STATUS} = 'running'"
        running = self._rows(asked, {"gone": self.gone()})
        return Position(newest[0]["id"], _mark(newest[0]["uid"]), {row["id"]: UNTOLD for row in running})

    def now(self) -> Position:
        """The position at which everything that is on the tape counts as told."""
        with self.snapshot():
            start = self.beginning()
            return replace(start, open={call_id: self.last_index(call_id) + 1 for call_id in start.open})

    def changes(self, position: Position) -> Happened:
        """What has happened since a position, in an order in which it can be told.

        Of much only the beginning is given: ask again from the position after it. From a position of another tape it
        starts with the calls that are running.
        """
        with self.snapshot():
            if position.highest and not self._knows(position):
                position = self.beginning()
            since, found = position, list[Change]()
            left = ALL_EVENTS_AT_ONCE
            for change in self._since(position):
                found.append(change)
                position = change.after(position)
                if isinstance(change, Came):
                    left -= len(change.events.token_index)
                    if left <= 0:
                        break
            return Happened(since, found, position)

    def _knows(self, position: Position) -> bool:
        found = self._rows("SELECT uid FROM llm_calls WHERE id = ?", [position.highest])
        return any(_mark(row["uid"]) == position.mark for row in found)

    def _since(self, position: Position) -> Iterator[Change]:
        new = [row["id"] for row in self._rows(_NEW, {"highest": position.highest, "limit": CALLS_AT_ONCE})]
        untold = new + [call for call, index in position.open.items() if index == UNTOLD]
        rows = {row["id"]: row for row in self.rows_of_calls(untold)} if untold else {}
        upcoming = {**{call: max(0, index) for call, index in position.open.items()}, **dict.fromkeys(new, 0)}
        asked = {"open": json.dumps([*upcoming.items()]), "gone": self.gone()}
        for call in self._rows(_STATE, asked) if upcoming else ():
            if call["id"] in rows:
                yield Started(rows[call["id"]])
            if call["has_more"]:
                yield from self._came(call["id"], call["uid"], upcoming[call["id"]])
            if call["status"] != "running":
                yield Ended(self.rows_of_calls([call["id"]])[0])

    def _came(self, call_id: int, call_uid: str, first: int) -> Iterator[Came]:
        parts = self.parts(call_id)
        while (events := self.columns(call_id, first - 1, EVENTS_AT_ONCE)).token_index:
            yield Came(call_id, call_uid, events, parts)
            first = events.token_index[-1] + 1


def _mark(uid: str) -> str:
    return f"{crc32(uid.encode()):x}"


def _number(text: str, least: int = 0) -> int:
    number = int(text)
    if not least <= number < _ID_LIMIT:
        raise ValueError(text)
    return number
