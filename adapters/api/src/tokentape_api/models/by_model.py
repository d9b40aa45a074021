"""Models over all their calls as they are answered."""

from __future__ import annotations

from pydantic import Field

from .base import Answer


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
