"""The numbers of a call in plain words; every function takes rows as the tape gives them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .shares import Share

Row = Mapping[str, Any]

CAUSES: Final[Mapping[str, str]] = {
    "upstream": "waiting (provider or network)",
    "blocked": "event loop busy",
    "own": "in your code",
    "unknown": "cause not known (events fed by hand, or by a framework)",
}
# A sign for each status, so that none is told by its colour.
SIGNS: Final[Mapping[str, str]] = {
    "running": "●",
    "completed": "✓",
    "error": "✕",
    "cancelled": "⊘",
    "abandoned": "◇",
    "lost": "?",
}
KINDS: Final[Mapping[str, str]] = {
    "text": "text",
    "reasoning": "thinking",
    "tool_args": "tool arguments",
    "refusal": "refusal",
    "audio_transcript": "transcript",
}
# Why token events of a call are not on the tape.
_NOT_KEPT: Final[Mapping[str, str]] = {
    "sampled_out": "by the sample rate they were not kept",
    "dropped": "the tape could not be written, and no more could be held",
    "packed": "they were packed",
    "aggregated": "the tape had reached its size (max_mb)",
}
# The word `tpot` has two meanings in this field; it is taken for the one that is written beside it.
ALIASES: Final[Mapping[str, str]] = {"tpot": "inter_token_latency_ms"}
FORMULAS: Final[Mapping[str, str]] = {
    "inter_token_latency_ms": "(last token - first token) / (tokens - those of the first event), hidden reasoning apart"
}

# From how many milliseconds on a duration has no decimal, is shown in seconds, and as whole seconds.
_WHOLE_MS: Final = 9.95
_SHOWN_IN_S: Final = 99.5
_WHOLE_S: Final = 99_950
_NEXT_UNIT: Final = 1000


def duration(ms: float) -> str:
    """A duration in the unit that reads best: `2.3 ms`, `23 ms`, `8.1 s`, `184 s`."""
    if ms < _SHOWN_IN_S:
        return f"{ms:.{int(ms < _WHOLE_MS)}f} ms"
    return f"{ms / 1000:.{int(ms < _WHOLE_S)}f} s"


def plural(count: int, noun: str) -> str:
    """`1 event`, `2 events`, `12,000 events`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def first_token(call: Row) -> str | None:
    """How long the first token took and what that time went into; None when no token came.

    Where attempts failed: `first token 8.1 s = 6.2 retries (2 × 429) + 0.4 headers + 1.5 first chunk`.
    """
    total = call["first_token_latency_ms"]
    if total is None:
        return None
    said = f"first token {duration(total)}"
    pieces = _pieces(call, total)
    return f"{said} = {_sum(total, pieces)}" if pieces else said


def thinking(call: Row) -> str | None:
    """`first 0.4 s (thinking), answer 9.1 s`; None for a call whose first event was no reasoning, or may not be."""
    first, answer = call["first_token_latency_ms"], call["first_output_token_latency_ms"]
    # While a call runs, only its first token is known.
    if first is None or answer == first or (answer is None and call["status"] == "running"):
        return None
    then = f"answer {duration(answer)}" if answer is not None else "no answer"
    return f"first {duration(first)} (thinking), {then}"


def rate(call: Row) -> str | None:
    """`19.5 tok/s`, or `17.8 events/s` where the number of tokens is not known; None for a call without events."""
    if call["tokens_per_second"] is not None:
        return f"{call['tokens_per_second']:.1f} tok/s"
    return f"{call['events_per_second']:.1f} events/s" if call["events_per_second"] is not None else None


def amount(call: Row) -> str:
    """`45 tokens, 19.5 tok/s`, or `41 events, 17.8 events/s` where the number of tokens is not known."""
    counted, events = call["token_count"], call["event_count"] or 0
    said = plural(events, "event") if counted is None else plural(counted, "token")
    speed = rate(call)
    said = f"{said}, {speed}" if speed else said
    return said if counted is None or not events else f"{said}, in {plural(events, 'event')}"


def gaps(call: Row) -> str | None:
    """Median, 95th percentile and longest of the gaps between events; None where there was none."""
    if call["inter_chunk_max_ms"] is None:
        return None
    named = (("median", "p50"), ("p95", "p95"), ("longest", "max"))
    return "gaps: " + ", ".join(f"{word} {duration(call[f'inter_chunk_{column}_ms'])}" for word, column in named)


def usage(call: Row) -> str | None:
    """`billed: input 120 tokens (100 cached), output 45 tokens`; None where the provider did not say."""
    said = []
    for name, within, kind in (("input", "cached_input", "cached"), ("output", "reasoning", "reasoning")):
        count, part = call[f"{name}_tokens"], call[f"{within}_tokens"]
        if count is not None:
            said.append(f"{name} {plural(count, 'token')}" + (f" ({part:,} {kind})" if part else ""))
    return "billed: " + ", ".join(said) if said else None


def stall(row: Row, event_count: int) -> str:
    """Where one stall was, how long, and whose time it took: `4.2 s before event 12/41: in your code`."""
    where = f"before event {row['token_index'] + 1}/{event_count}"
    if row["position"] == "tail":
        where = "after the last event" if event_count else "without any event"
    return f"{duration(row['gap_us'] / 1000)} {where}: {CAUSES.get(row['cause'], row['cause'])}"


def outcome(call: Row) -> str:
    """How a call ended: status, the provider's reason, how long it took, and the error where there was one."""
    said = str(call["status"])
    if call["finish_reason"]:
        said += f" ({call['finish_reason']})"
    if call["duration_ms"] is not None:
        said += f" after {duration(call['duration_ms'])}"
    if call["status"] == "lost":
        last = call["last_token_latency_ms"]
        said += f": its process has gone; {'nothing had come' if last is None else f'last event at {duration(last)}'}"
    problem = ": ".join(str(call[column]) for column in ("error_type", "error_message") if call[column])
    http = f" (HTTP {call['http_status']})" if problem and call["http_status"] else ""
    return f"{said}: {problem}{http}" if problem else said


def left(call: Row) -> str | None:
    """What is left of a call that was not kept whole; None where it was.

    Args:
        call: with `kept`, as the tape gives it.
    """
    kept = call["kept"]
    reason = _NOT_KEPT.get(kept["events"])
    if reason is None:
        return None
    some = f"{kept['event_count']:,}" if kept["event_count"] else "None"
    verb = "are" if kept["event_count"] > 1 else "is"
    content = "its text" if kept["content"] else "no text"
    said = f"{some} of its {plural(call['event_count'], 'token event')} {verb} left: {reason}"
    return f"{said}. Its numbers are those of all events; {content} is kept."


def waits_for(call: Row) -> str:
    """What a call in flight waits for: `the first token, for 3.2 s`, `event 35, for 1.2 s`."""
    what = f"event {call['event_count'] + 1:,}" if call["event_count"] else "the first token"
    return f"{what}, for {duration(call['silent_for_ms'])}"


def in_flight(call: Row) -> str:
    """`gpt-x: waiting 184 s, 212 events so far`."""
    model = call["model"] or call["name"]
    return f"{model}: waiting {call['silent_for_ms'] / 1000:.0f} s, {plural(call['event_count'], 'event')} so far"


def summary(run: Row) -> str:
    """A run in one line: `3 calls, slowest first token 2.1 s, 1 stall (upstream 4.2 s)`.

    Args:
        run: `call_count`, `slowest_first_token_ms`, and `stalls`: rows with `cause`, `stall_count` and `gap_ms`.
    """
    said = [plural(run["call_count"], "call")]
    if run["slowest_first_token_ms"] is not None:
        said.append(f"slowest first token {duration(run['slowest_first_token_ms'])}")
    if run["stalls"]:
        count = sum(row["stall_count"] for row in run["stalls"])
        causes = ", ".join(f"{row['cause']} {duration(row['gap_ms'])}" for row in run["stalls"])
        said.append(f"{plural(count, 'stall')} ({causes})")
    return ", ".join(said)


def time_spent(spent: Sequence[Share]) -> str:
    """Where the time of a run went, so that what is shown adds up: `15.3 s: model 2.1 s · tool search 12.4 s · …`."""
    total = sum(share.duration_us for share in spent) / 1000
    scale, places, unit = (1000, 1, "s") if total >= _SHOWN_IN_S else (1, int(total < _WHOLE_MS), "ms")
    shown, so_far, before = [], 0.0, 0.0
    for share in spent:
        # Rounded where each ends, as `_sum` does; one too short to show leaves its time to the next.
        so_far += share.duration_us / 1000
        until = round(so_far / scale, places)
        if until > before:
            name = f"{share.kind} {share.name}" if share.name else share.kind
            shown.append(f"{name} {until - before:.{places}f} {unit}")
            before = until
    return f"{round(total / scale, places):.{places}f} {unit}" + (f": {' · '.join(shown)}" if shown else "")


def size(count: float) -> str:
    """A file's size: `4.0 kB`, `1.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < _NEXT_UNIT:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _NEXT_UNIT
    return f"{count:.1f} GB"


def _pieces(call: Row, total: float) -> list[tuple[str, float]]:
    """What the time until the first token went into, in order: names and the moment each ends."""
    ends = [("headers", call["headers_latency_ms"]), ("first chunk", call["first_chunk_latency_ms"])]
    if call["headers_latency_ms"] is None:
        return []
    if call["retries"] and call["retry_ms"] is not None:
        ends.insert(0, (f"retries ({_attempts(call)})", call["retry_ms"]))
    known = [(name, end) for name, end in ends if end is not None]
    if known[-1][1] < total:
        known.append(("first content", total))
    return known


def _attempts(call: Row) -> str:
    """Why attempts failed, `2 × 429`, where that was noted; else how many did."""
    noted = json.loads(call["response_meta_json"] or "{}").get("retry_statuses") or []
    return ", ".join(f"{count} × {status}" for status, count in Counter(noted).items()) or str(call["retries"])


def _sum(total: float, pieces: Sequence[tuple[str, float]]) -> str:
    """The pieces in the unit of the total, rounded at their ends, so that what is shown adds up."""
    scale, places = (1000, 1) if total >= _SHOWN_IN_S else (1, int(total < _WHOLE_MS))
    shown, before = [], 0.0
    for name, end in pieces:
        until = round(min(end, total) / scale, places)
        if until > before:
            shown.append(f"{until - before:.{places}f} {name}")
            before = until
    return " + ".join(shown)
