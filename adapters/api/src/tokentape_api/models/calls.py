"""Calls and their token events as they are answered."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import Answer, Labels, Metrics


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


class Token(Answer):
    """One token event: what one chunk added to one part, not always one model token."""

    token_index: int
    token: str | None = Field(description="Null where no text is kept.")
    kind: str | None
    part: int
    choice: int | None
    timestamp_ms: float = Field(description="Since the call started.")
    delta_ms: float | None = Field(description="Since the previous event of the call; null where that one was removed.")
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


class ComparedCall(Metrics, CallRow):
    """A call with all its metrics."""


class Comparison(Answer):
    """Calls side by side, in the order they were named."""

    calls: list[ComparedCall]
    duration_ms: float | None = Field(description="The longest of them, so far.")
