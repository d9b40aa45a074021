"""What all answers have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Labels = dict[str, str]


class Answer(BaseModel):
    """A row of the tape; columns that are not named here are not answered."""

    model_config = ConfigDict(extra="ignore")


class Metrics(Answer):
    """The numbers of a call; null where one has no meaning or is not known yet."""

    first_chunk_latency_ms: float | None
    first_token_latency_ms: float | None
    headers_latency_ms: float | None
    retry_ms: float | None
    first_output_token_latency_ms: float | None
    first_text_latency_ms: float | None
    second_token_gap_ms: float | None
    last_token_latency_ms: float | None
    duration_ms: float | None
    inter_chunk_p50_ms: float | None
    inter_chunk_p95_ms: float | None
    inter_chunk_p99_ms: float | None
    inter_chunk_max_ms: float | None
    inter_chunk_mean_ms: float | None
    inter_chunk_stdev_ms: float | None
    inter_token_latency_ms: float | None
    tokens_per_second: float | None
    decode_tokens_per_second: float | None
    events_per_second: float | None
    tail_gap_ms: float | None
    stall_count: int | None
    stall_excess_ms: float | None
    stall_threshold_ms: float | None
    stall_wait_ms: float | None
    stall_hold_ms: float | None
    stall_blocked_ms: float | None
    hold_ms: float | None
