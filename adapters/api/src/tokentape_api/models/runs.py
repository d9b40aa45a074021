"""Runs as they are answered."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import Answer, Labels, Metrics
from .calls import Stall


class Run(Answer):
    """One execution, with its calls in total: those of runs inside it count, and each token once."""

    id: int
    uid: str
    parent_uid: str | None = Field(description="The run around it.")
    name: str
    status: str = Field(description="running, completed, error, or lost when its process is gone.")
    started_at: str
    ended_at: str | None
    duration_ms: float | None = Field(description="Null where it has not ended, or nobody saw the end.")
    streaming: bool = Field(description="Whether any of its calls was streamed.")
    call_count: int
    failed_count: int = Field(description="Calls that ended, and not as completed.")
    running_count: int
    input_tokens: int | None
    token_count: int | None
    event_count: int | None
    slowest_first_token_ms: float | None
    stall_count: int | None
    models: list[str]
    labels: Labels = Field(description="Those that all its calls have.")


class RunDetail(Run):
    """A run and what was noted about it."""

    metadata: Any


class Runs(Answer):
    """A page of runs, newest first."""

    runs: list[Run]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class Span(Answer):
    """How many events came in a stretch of time, counted from the run's start."""

    start_ms: float
    end_ms: float
    events: int


class TimelineCall(Answer):
    """A call on the clock of its run."""

    id: int
    uid: str
    name: str
    model: str | None
    provider: str | None
    adapter: str
    operation: str
    layer: str
    parent_uid: str | None
    run_uid: str | None
    start_ms: float = Field(description="Since the run started.")
    duration_ms: float | None = Field(description="Null while it runs, and where nobody saw the end.")
    status: str
    error_type: str | None
    streaming: bool
    token_count: int | None
    tokens_per_second: float | None
    event_count: int
    events_per_second: float | None
    first_token_latency_ms: float | None
    first_output_token_latency_ms: float | None
    last_token_latency_ms: float | None
    counted: bool = Field(description="False where calls it made hold the same tokens.")
    profile: list[Span] = Field(
        description="The time from its first event to its last in equal pieces; those without events are left out."
    )
    stalls: list[Stall]
    children: list[TimelineCall] = Field(description="Calls it made.")


class Mark(Answer):
    """Time between calls that was marked: a tool, a retrieval, a node."""

    kind: str
    name: str
    start_ms: float
    duration_ms: float


class Timeline(Answer):
    """A run as it went."""

    run: Run
    duration_ms: float = Field(description="Until now while it runs; until it was last heard of where it is lost.")
    calls: list[TimelineCall]
    marks: list[Mark]


class _Measured(Answer):
    uid: str
    name: str
    model: str | None
    layer: str
    counted: bool
    status: str
    streaming: bool
    input_tokens: int | None
    token_count: int | None
    token_count_source: str | None
    event_count: int
    dropped_count: int


class CallStats(Metrics, _Measured):
    """The metrics of one call."""


class Totals(Answer):
    """The calls of a run in total, each token counted once; percentiles by linear interpolation."""

    call_count: int
    completed_count: int
    failed_count: int
    running_count: int
    streaming_count: int
    input_tokens: int | None
    token_count: int | None
    event_count: int | None
    dropped_count: int | None
    stall_count: int | None
    stall_excess_ms: float | None
    stall_wait_ms: float | None
    stall_hold_ms: float | None
    stall_blocked_ms: float | None
    first_token_latency_p50_ms: float | None
    first_token_latency_p95_ms: float | None
    first_output_token_latency_p50_ms: float | None
    first_output_token_latency_p95_ms: float | None
    inter_token_latency_p50_ms: float | None
    inter_token_latency_p95_ms: float | None
    tokens_per_second_p50: float | None
    tokens_per_second_p95: float | None
    decode_tokens_per_second_p50: float | None
    decode_tokens_per_second_p95: float | None
    duration_p50_ms: float | None
    duration_p95_ms: float | None


class StreamingStats(Answer):
    """The metrics of each call of a run, and of all of them."""

    run_uid: str
    calls: list[CallStats]
    total: Totals


class Bucket(Answer):
    """A stretch of a run."""

    start_ms: float
    events: int = Field(description="Token events that came in it, each counted once.")
    calls: int = Field(description="Calls that were open in it.")


class Timeseries(Answer):
    """How many events came when, in ms since the run started."""

    start_ms: float
    end_ms: float
    bucket_ms: float
    buckets: list[Bucket]
