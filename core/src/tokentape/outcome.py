"""Turns an ended recording into the value that the hooks receive."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from . import metrics
from .models import Call, FinishedCall, Usage
from .redaction import Gate

if TYPE_CHECKING:
    from .call import CallRecorder

MAX_ERROR_CHARS = 2000


@dataclass(slots=True)
class Seen:
    """What the writer has seen of a call's events: their times, which the metrics need, but none of their text."""

    offset_us: array[int] = field(default_factory=lambda: array("q"))
    wait_us: array[int] = field(default_factory=lambda: array("q"))
    part: array[int] = field(default_factory=lambda: array("l"))
    counted_tokens: int = 0
    counted_events: int = 0
    first_n_tokens: int | None = None


def finished(call: Call, recorded: CallRecorder, seen: Seen, stall_ms: float, gate: Gate) -> FinishedCall:
    """Put together how a call ended, its usage and its numbers.

    Args:
        call: as it was announced.
        recorded: the ended recording; its events have all been taken.
        seen: what was taken.
        stall_ms: a gap at least this long is a stall.
        gate: what the provider has said passes it.
    """
    told = gate.told
    usage = recorded.usage_counts
    count, source = _token_count(usage, seen)
    timings = _timings(recorded, seen, stall_ms, count, usage.reasoning_tokens if usage else None)
    numbers, stalls = metrics.compute(timings)
    return FinishedCall(
        **{f.name: getattr(call, f.name) for f in fields(Call)} | {"streaming": recorded.call.streaming},
        status=recorded.status,
        ended_us=timings.end_us,
        finish_reason=_finish_reason(recorded.finish_reasons, told),
        error_type=told(recorded.error_type),
        error_message=gate.text(recorded.error_message, MAX_ERROR_CHARS),
        http_status=recorded.http_status,
        # Of a call whose attempts nobody sees, nobody knows.
        retries=recorded.attempts - 1 if recorded.attempts else None,
        response_model=told(recorded.response_model),
        response_id=told(recorded.response_id),
        provider_request_id=told(recorded.request_id),
        response_meta=told(dict(recorded.response_meta)),
        usage=None if usage is None else replace(usage, raw=told(usage.raw)),
        token_count=count,
        token_count_source=source,
        reasoning_hidden=metrics.reasoning_hidden(timings),
        chunk_count=len(seen.offset_us) + recorded.chunks_beyond_events,
        event_count=len(seen.offset_us),
        parts=tuple(map(gate.part, recorded.parts)),
        stalls=stalls,
        metrics=numbers,
    )


def _token_count(usage: Usage | None, seen: Seen) -> tuple[int | None, Literal["usage", "logprobs"] | None]:
    if usage is not None and usage.output_tokens is not None:
        return usage.output_tokens, "usage"
    # Log-probabilities count tokens only if every event brought them.
    if seen.counted_events and seen.counted_events == len(seen.offset_us):
        return seen.counted_tokens, "logprobs"
    return None, None


def _finish_reason(reasons: dict[int, str], told: Callable[[Any], Any]) -> str | None:
    in_order = [told(reasons[choice]) for choice in sorted(reasons)]
    return json.dumps(in_order) if len(in_order) > 1 else (in_order[0] if in_order else None)


def _timings(
    recorded: CallRecorder, seen: Seen, stall_ms: float, token_count: int | None, reasoning: int | None
) -> metrics.Timings:
    def since_start(at_ns: Any) -> Any:
        return None if at_ns is None else (at_ns - recorded.start_ns) // 1000

    responded = recorded.headers_ns is not None
    return metrics.Timings(
        offset_us=seen.offset_us,
        wait_us=seen.wait_us,
        part=seen.part,
        parts=tuple(recorded.parts),
        end_us=since_start(recorded.end_ns),
        tail_wait_us=(recorded.carry_ns + recorded.tail_wait_ns) // 1000,
        first_chunk_us=since_start(recorded.first_ns),
        headers_us=since_start(recorded.headers_ns),
        attempt_us=since_start(recorded.attempt_ns) if responded else None,
        blocked=[(max(0, since_start(a)), since_start(b)) for a, b in recorded.blocked],
        threshold_ms=stall_ms,
        streaming=recorded.call.streaming,
        fed_by_hand=recorded.fed_by_hand,
        token_count=token_count,
        reasoning_tokens=reasoning,
        first_n_tokens=seen.first_n_tokens,
    )
