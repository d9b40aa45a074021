"""Rows in words, for the templates; numbers read as they do on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tokentape import words
from tokentape.cli.terminal import one_line, safe
from tokentape.shares import Share
from tokentape.store import columns

Row = Mapping[str, Any]

_UNKNOWN: Final = "–"
# As a terminal escapes them, but for the marks of direction that a text in Arabic or Hebrew has with good reason: those
# that turn round what follows it are none.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")

CAUSES: Final[Mapping[str, str]] = {**words.CAUSES, "upstream": "waiting for provider or network"}
MUCH: Final = "How much"
# The numbers of a call, as its page has them: column, and what it is called.
STATISTICS: Final[Mapping[str, Mapping[str, str]]] = {
    "When it came": {
        "retry_ms": "failed attempts before it",
        "headers_latency_ms": "response headers",
        "first_chunk_latency_ms": "first chunk",
        "first_token_latency_ms": "first token",
        "first_output_token_latency_ms": "first token of the answer",
        "first_text_latency_ms": "first text",
        "second_token_gap_ms": "from the first event to the second",
        "last_token_latency_ms": "last token",
        "duration_ms": "end",
    },
    "How fast": {
        "tokens_per_second": "tokens, end to end",
        "decode_tokens_per_second": "tokens, while decoding",
        "inter_token_latency_ms": "time per token",
        "events_per_second": "events",
    },
    "Gaps between chunks": {
        "inter_chunk_p50_ms": "median",
        "inter_chunk_p95_ms": "95th percentile",
        "inter_chunk_p99_ms": "99th percentile",
        "inter_chunk_max_ms": "longest",
        "inter_chunk_mean_ms": "mean",
        "inter_chunk_stdev_ms": "standard deviation",
        "tail_gap_ms": "silence before the end",
        "hold_ms": "in your code, in all",
    },
    "Stalls": {
        "stall_count": "how many",
        "stall_excess_ms": "longer than usual, in all",
        "stall_wait_ms": "of that, waiting for provider or network",
        "stall_blocked_ms": "of that, event loop busy",
        "stall_hold_ms": "of that, in your code",
        "stall_threshold_ms": "what counts as one",
    },
    MUCH: {
        "input_tokens": "input tokens",
        "cached_input_tokens": "of them from a cache",
        "cache_write_tokens": "of them written to a cache",
        "output_tokens": "output tokens",
        "reasoning_tokens": "of them reasoning",
        "token_count": "tokens counted",
        "event_count": "token events",
        "chunk_count": "chunks",
        "dropped_count": "events dropped",
    },
}


class Number(NamedTuple):
    """A number of a call in words, and what exactly it is."""

    column: str
    label: str
    value: str
    definition: columns.Definition


def statistics(call: Row) -> Iterator[tuple[str, list[Number]]]:
    """The numbers of a call in groups; counts that the provider did not give are left out."""
    for group, names in STATISTICS.items():
        yield (
            group,
            [
                Number(name, label, exact(name, call[name]), columns.definition(name))
                for name, label in names.items()
                if call[name] is not None or group != MUCH
            ],
        )


def exact(column: str, number: float | None) -> str:
    """A number in the unit of its column, with all that is worth telling; a dash where it is not known."""
    return milliseconds(number) if column.endswith("_ms") else value(column, number)


def value(column: str, number: float | None) -> str:
    """A number in the unit of its column; a dash where it is not known."""
    if number is None:
        return _UNKNOWN
    if column.endswith("_ms"):
        return words.duration(number)
    if column.endswith("tokens_per_second"):
        return f"{number:.1f} tok/s"
    if column.endswith("_per_second"):
        return f"{number:.1f} events/s"
    return f"{number:,}"


def moment(at: str | None) -> str:
    """A time of the tape, to the second: `2026-11-23 18:00:00`."""
    return _UNKNOWN if at is None else at[:19].replace("T", " ")


def milliseconds(number: float | None) -> str:
    """A time within a call, to be compared with others: `2,347.1 ms`."""
    return _UNKNOWN if number is None else f"{number:,.1f} ms"


def text(recorded: str) -> str:
    """Recorded text with control characters escaped; breaks, tabs and the directions of writing are kept."""
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), recorded)


def as_json(found: Any) -> str:
    """A value of a JSON column, laid out to be read."""
    return json.dumps(found, indent=2, ensure_ascii=False)


def spent(shares: Sequence[Share]) -> dict[str, float]:
    """Where the time of a run went, in milliseconds: in models, in what was marked, outside of both."""
    found = {"model": 0.0, "marked": 0.0, "outside": 0.0}
    for share in shares:
        found[share.kind if share.kind in found and share.name is None else "marked"] += share.duration_us / 1000
    return found


FOR_TEMPLATES: Final[Mapping[str, Any]] = {
    "words": words,
    "cause": lambda name: CAUSES.get(name, name),
    "statistics": statistics,
    "value": value,
    "moment": moment,
    "milliseconds": milliseconds,
    "text": text,
    "safe_text": safe,
    "line": one_line,
    "as_json": as_json,
    "spent": spent,
    "definition": columns.definition,
}
