"""Turns the values that travel through the hooks into rows of the tape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..clock import utc_text
from ..models import Call, FinishedCall, Mark, Part, Process, Run, Stall, Usage
from .text import storable

Row = dict[str, Any]


def process_row(process: Process, seen_at: str) -> Row:
    """A row of `processes`."""
    return _storable(asdict(process) | {"last_seen_at": seen_at})


def run_row(run: Run) -> Row:
    """A row of `runs`, with the uid of its parent in place of the id."""
    return _storable(
        {
            "uid": run.uid,
            "parent_uid": run.parent_uid,
            "name": run.name,
            "status": run.status,
            "started_at": utc_text(run.started_unix_us),
            "ended_at": None if run.ended_unix_us is None else utc_text(run.ended_unix_us),
            "metadata_json": _json(run.metadata),
        }
    )


def call_row(call: Call) -> Row:
    """A row of `llm_calls` as it is when the request is sent, with uids of run and parent in place of their ids."""
    return _storable(
        {
            "uid": call.uid,
            "name": call.name or f"{call.request_model or call.operation} {utc_text(call.started_unix_us)[11:19]}",
            "run_uid": call.run_uid,
            "parent_uid": call.parent_uid,
            "layer": call.layer,
            "adapter": call.adapter,
            "provider": call.provider,
            "server_address": call.server_address,
            "operation": call.operation,
            "request_model": call.request_model,
            "streaming": int(call.streaming),
            "status": "running",
            "started_at": utc_text(call.started_unix_us),
            "started_unix_us": call.started_unix_us,
            "content_level": call.content_level,
            "events_kept": "all" if call.sampled else "sampled_out",
            "framework_run_id": call.framework_run_id,
            "trace_id": call.trace_id,
            "span_id": call.span_id,
            "event_count": 0,
            "dropped_count": 0,
            "in_flight_at_start": call.in_flight_at_start,
            "labels_json": labels_json(call.labels),
            "request_json": _json(call.request),
            "metadata_json": _json(call.metadata),
            "prompt_json": call.prompt_json,
        }
    )


def finished_row(call: FinishedCall) -> Row:
    """The columns of `llm_calls` that are known when the call has ended."""
    usage = call.usage or Usage()
    return _storable(
        {
            "streaming": int(call.streaming),
            "status": call.status,
            "finish_reason": call.finish_reason,
            "error_type": call.error_type,
            "error_message": call.error_message,
            "http_status": call.http_status,
            "retries": call.retries,
            "response_model": call.response_model,
            "response_id": call.response_id,
            "provider_request_id": call.provider_request_id,
            "ended_at": utc_text(call.started_unix_us + call.ended_us),
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "usage_json": _json(usage.raw),
            "reasoning_hidden": int(call.reasoning_hidden),
            "token_count": call.token_count,
            "token_count_source": call.token_count_source,
            "chunk_count": call.chunk_count,
            "event_count": call.event_count,
            "response_meta_json": _json(call.response_meta),
        }
        | asdict(call.metrics)
    )


def part_row(part: Part) -> Row:
    """A row of `llm_parts`, with the name of its kind in place of the id."""
    return _storable(asdict(part) | {"content": None})


def stall_row(stall: Stall) -> Row:
    """A row of `llm_stalls`."""
    return asdict(stall)


def mark_row(mark: Mark) -> Row:
    """A row of `marks`, with uids of run and call in place of their ids."""
    return _storable(asdict(mark))


def label_rows(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Keys and values for `call_labels`."""
    return [(storable(str(key)), storable(str(value))) for key, value in labels.items()]


def labels_json(labels: Mapping[str, str]) -> str | None:
    """Labels as JSON text; None where there are none."""
    text = _json(labels)
    return text if text is None else storable(text)


def logprobs_json(value: Any) -> str:
    """Log-probabilities as JSON text."""
    return storable(_dumps(value))


def fits(value: Any) -> bool:
    """Whether it is a whole number that SQLite has room for: eight bytes at the most."""
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _storable(row: Row) -> Row:
    return {name: _stored(value) for name, value in row.items()}


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    # Nobody has been billed for more than fits, and no column is for what is neither text nor number: what a provider
    # says is not known then.
    return value if isinstance(value, float) or fits(value) else None


def _json(value: Any) -> str | None:
    """JSON text; None for nothing, so that a column without a meaning is NULL."""
    return None if value is None or value == {} else _dumps(value)


def _dumps(value: Any) -> str:
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, skipkeys=True, default=str)
    except ValueError:
        # NaN and infinities, such as the log of probability 0, are no JSON: null.
        plain = json.loads(json.dumps(value, skipkeys=True, default=str), parse_constant=lambda _: None)
        return json.dumps(plain, ensure_ascii=False)
