"""What the columns of a tape mean: the comments of its tables and views, for pages, documentation and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from .tables import TABLES
from .views import VIEWS

# What the letters in the definitions of metrics stand for.
SYMBOLS: Final[Mapping[str, str]] = {
    "t0": "just before the request is sent, before the SDK's own retries",
    "c1": "arrival of the first chunk with content",
    "c2": "arrival of the second chunk with content",
    "cm": "arrival of the last chunk with content",
    "m": "how many chunks came with content",
    "N": "output tokens, where it is known how many",
    "n1": "tokens in the first chunk with content; 1 where that is not known",
    "Ns": "output tokens, without reasoning that was billed but not streamed",
    "gaps": (
        "times between consecutive chunks with content, never divided by tokens; of several choices each choice's own, "
        "then pooled"
    ),
}

_TABLE: Final = re.compile(r"^CREATE TABLE (\w+) \(  -- (.*)\n((?:.*\n)*?)\)", re.MULTILINE)
_TABLE_COLUMN: Final = re.compile(r"^  (\w+) .*?-- (.*)$", re.MULTILINE)
_VIEW: Final = re.compile(r"^SELECT  -- (.*)$", re.MULTILINE)
_VIEW_NAME: Final = re.compile(r"(\w+)(?:,(?:  -- .*)?$|(?:  -- .*)?\nFROM)", re.MULTILINE)
_VIEW_COLUMN: Final = re.compile(r"(\w+),?  -- (.*)$", re.MULTILINE)
_SYMBOL: Final = re.compile("|".join(rf"\b{symbol}\b" for symbol in SYMBOLS))
_IS_MISSING: Final = "; NULL "
# The tables whose columns a view shows under their own names.
_SHOWN_IN: Final[Mapping[str, tuple[str, ...]]] = {
    "calls": ("llm_calls",),
    "token_timeline": ("llm_parts", "llm_tokens"),
    "responses": ("llm_parts", "llm_calls"),
    "streaming_stats": ("llm_calls",),
    "run_stats": ("runs",),
    "model_stats": (),
    "stalls": ("llm_calls", "llm_stalls"),
    "in_flight": ("processes", "llm_calls"),
}


class Described(NamedTuple):
    """A table or view: what it holds, and what those of its columns mean that do not say so themselves."""

    text: str
    columns: Mapping[str, str]


class Definition(NamedTuple):
    """What a number is.

    Attributes:
        text: its definition, in the symbols of `SYMBOLS`.
        missing: when it is NULL, as in `where no content came`; None where it never is.
    """

    text: str
    missing: str | None

    @property
    def symbols(self) -> dict[str, str]:
        """The symbols in it, in the order they appear, and what they stand for."""
        return {symbol: SYMBOLS[symbol] for symbol in dict.fromkeys(_SYMBOL.findall(self.text))}


@cache
def tables() -> Mapping[str, Described]:
    """All tables of a tape, in the order they are created."""
    return {
        name: Described(text, dict(_TABLE_COLUMN.findall(columns))) for name, text, columns in _TABLE.findall(TABLES)
    }


@cache
def views() -> Mapping[str, Described]:
    """All views of a tape. What a view shows of a table means what it means there, unless the view says more."""
    return {name: _view(sql, _SHOWN_IN[name]) for name, sql in VIEWS.items()}


def _view(sql: str, shown: Sequence[str]) -> Described:
    head = _VIEW.search(sql)
    assert head is not None  # noqa: S101  # each begins so
    columns = sql[head.end() :]
    own = dict(_VIEW_COLUMN.findall(columns))
    known = {column: text for table in shown for column, text in tables()[table].columns.items()}
    names = _VIEW_NAME.findall(columns)
    return Described(head[1], {name: {**known, **own}[name] for name in names if name in known or name in own})


def definition(column: str) -> Definition:
    """What a number of `llm_calls`, or of the view `calls`, is.

    Raises:
        KeyError: the column has no definition.
    """
    found = {**views()["calls"].columns, **tables()["llm_calls"].columns}
    text, _, missing = found[column].partition(_IS_MISSING)
    return Definition(text, missing or None)
