"""What is answered. Names are those of the tape's columns; a number that is not known is null, never 0."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .metrics import Metrics

Labels = dict[str, str]


class Answer(BaseModel):
    """A row of the tape; columns that are not named here are not answered."""

    model_config = ConfigDict(extra="ignore")


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


class Stall(Answer):
    """A gap at least as long as the call's threshold. Times count from when the call started."""

    token_index: int = Field(description="The event that ended it; the number of events for the tail.")
    position: str = Field(description="first, middle or tail.")
    start_ms: float | None = Field(description="Null where the event that ended it is not kept.")
    end_ms: float | None
    gap_ms: float
    wait_ms: float = Field(description="Spent inside next().")
    hold_ms: float = Field(description="The program's own.")
    blocked_ms: float = Field(description="Part of the wait in which the event loop or the process did not run.")
    cause: str = Field(description="upstream, blocked, own or unknown.")


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


class Token(Answer):
    """One token event: what one chunk added to one part, not always one model token."""

    token_index: int
    token: str | None = Field(description="Null where no text is kept.")
    kind: str | None
    part: int
    choice: int | None
    timestamp_ms: float = Field(description="Since the call started.")
    delta_ms: float = Field(description="Since the previous event of the call.")
    wait_ms: float = Field(description="How much of that was spent inside next().")
    n_tokens: int | None = Field(description="How many model tokens it holds, where that is known.")


class Tokens(Answer):
    """A page of token events, in the order they came."""

    tokens: list[Token]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class CallRow(Answer):
    """A call in a list."""

    id: int
    uid: str
    name: str
    run_uid: str | None
    run_name: str | None
    parent_uid: str | None
    layer: str
    counted: bool = Field(description="False where calls it made hold the same tokens.")
    adapter: str
    provider: str | None
    model: str | None
    operation: str
    streaming: bool
    status: str = Field(description="running, completed, error, cancelled, abandoned, or lost.")
    finish_reason: str | None
    error_type: str | None
    error_message: str | None
    http_status: int | None
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    running_for_ms: float | None = Field(description="Null once it has ended.")
    silent_for_ms: float | None = Field(description="Since the last event, or the start; null once it has ended.")
    input_tokens: int | None
    output_tokens: int | None
    token_count: int | None
    token_count_source: str | None
    event_count: int
    events_kept: str
    first_token_latency_ms: float | None
    first_output_token_latency_ms: float | None
    last_token_latency_ms: float | None
    inter_token_latency_ms: float | None
    tokens_per_second: float | None
    decode_tokens_per_second: float | None
    events_per_second: float | None
    longest_gap_ms: float | None
    cause: str | None = Field(description="Whose the longest stall was: upstream, blocked, own or unknown.")
    stall_count: int | None
    text_start: str | None = Field(description="The first 80 characters of its text.")
    labels: Labels


class Calls(Answer):
    """A page of calls, newest first."""

    calls: list[CallRow]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class LinkedCall(Answer):
    """The call that made a call, or one that it made."""

    uid: str
    name: str
    layer: str
    status: str


class Part(Answer):
    """A piece of an answer: a choice's text, a tool call's arguments, a block, a summary."""

    part: int
    kind: str
    choice: int
    provider_index: str | None
    name: str | None
    external_id: str | None


class WholePart(Part):
    """A part with its text so far."""

    content: str | None = Field(description="Null where no text is kept.")


class Kept(Answer):
    """What is on the tape of a call."""

    events: str = Field(description="all, sampled_out, dropped, packed or aggregated.")
    event_count: int = Field(description="Token events that are on the tape.")
    content: bool = Field(description="Whether the text of its parts is.")


class _Described(Answer):
    id: int
    uid: str
    name: str
    run_uid: str | None
    run_name: str | None
    parent: LinkedCall | None
    children: list[LinkedCall]
    layer: str
    counted: bool
    adapter: str
    provider: str | None
    server_address: str | None
    operation: str
    model: str | None
    request_model: str | None
    response_model: str | None
    response_id: str | None
    provider_request_id: str | None
    streaming: bool
    status: str
    finish_reason: str | None
    error_type: str | None
    error_message: str | None
    http_status: int | None
    retries: int | None
    started_at: str
    started_unix_us: int
    ended_at: str | None
    last_event_at: str | None
    running_for_ms: float | None
    silent_for_ms: float | None
    content_level: str
    events_kept: str
    framework_run_id: str | None
    trace_id: str | None
    span_id: str | None
    input_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    reasoning_hidden: int | None
    token_count: int | None
    token_count_source: str | None
    chunk_count: int | None
    event_count: int
    dropped_count: int
    in_flight_at_start: int


class CallDetail(Metrics, _Described):
    """Everything about a call but its events."""

    longest_gap_ms: float | None
    cause: str | None
    labels: Labels
    request: Any
    response_meta: Any
    usage: Any
    metadata: Any
    prompt: Any
    parts: list[WholePart]
    stalls: list[Stall]
    kept: Kept


class EventColumns(Answer):
    """Token events as columns of equal length, for drawing."""

    call_uid: str
    status: str
    parts: list[Part]
    token_index: list[int]
    offset_us: list[int] = Field(description="Since the call started.")
    wait_us: list[int]
    part: list[int]
    token: list[str | None]
    next: int | None = Field(description="Ask again with `after` this; null where there are no more by now.")


class LiveTokens(Answer):
    """Token events that came, as columns of equal length."""

    call_uid: str
    after: int = Field(description="Index of the event before them; -1 before the first.")
    token_index: list[int]
    offset_us: list[int]
    wait_us: list[int]
    part: list[int]
    token: list[str | None]
    parts: list[Part] = Field(description="All parts of the call so far.")


class Histogram(Answer):
    """Counts between edges; there is one edge more than counts, or none of either."""

    edges: list[float]
    counts: list[int]


class StalledCall(Answer):
    """A call of a model that stalled."""

    uid: str
    name: str
    started_at: str
    status: str
    stall_count: int
    stall_excess_ms: float | None


class ModelStats(Answer):
    """A model over its calls, each token counted once; percentiles by linear interpolation."""

    provider: str | None
    model: str | None
    call_count: int
    completed_count: int
    failed_count: int
    running_count: int
    input_tokens: int | None
    token_count: int | None
    stall_count: int | None
    first_token_latency_p50_ms: float | None
    first_token_latency_p95_ms: float | None
    inter_token_latency_p50_ms: float | None
    inter_token_latency_p95_ms: float | None
    decode_tokens_per_second_p50: float | None
    decode_tokens_per_second_p95: float | None
    first_token_histogram: Histogram = Field(description="Of first token latencies in ms; edges grow by one factor.")
    rate_histogram: Histogram = Field(description="Of tokens per second while decoding; edges are equally far apart.")
    most_stalled: list[StalledCall]


class Models(Answer):
    """All models, most used first; histograms of all have the same edges."""

    models: list[ModelStats]


class ComparedCall(Metrics, CallRow):
    """A call with all its metrics."""


class Comparison(Answer):
    """Calls side by side, in the order they were named."""

    calls: list[ComparedCall]
    duration_ms: float | None = Field(description="The longest of them, so far.")
