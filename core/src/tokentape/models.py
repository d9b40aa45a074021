"""The frozen values that travel from the writer to the hooks; they know nothing of SQLite or of any SDK.

Times inside a call are whole microseconds since the call started (`…_us`), taken from a monotonic clock. The call
carries the one wall-clock reading, `started_unix_us`, to which they can be added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

Kind = Literal["text", "reasoning", "tool_args", "refusal", "audio_transcript"]
Layer = Literal["sdk", "framework"]
ContentLevel = Literal["timings", "redacted", "full"]
Status = Literal["running", "completed", "error", "cancelled", "abandoned", "lost"]
Cause = Literal["upstream", "blocked", "own", "unknown"]
Position = Literal["first", "middle", "tail"]

KINDS: Final[tuple[Kind, ...]] = ("text", "reasoning", "tool_args", "refusal", "audio_transcript")
CONTENT_LEVELS: Final[tuple[ContentLevel, ...]] = ("timings", "redacted", "full")
FINAL_STATUSES: Final[tuple[Status, ...]] = ("completed", "error", "cancelled", "abandoned", "lost")


@dataclass(frozen=True, slots=True)
class Process:
    """The operating-system process that recorded something.

    Attributes:
        boot_id: identifies one boot of the host, so that a pid is not mistaken across restarts; None where unknown.
        pid_started_at: when the process with this pid started (UTC text); None where unknown.
        name: base name of the script; never arguments, environment or folder.
    """

    host: str
    boot_id: str | None
    pid: int
    pid_started_at: str | None
    name: str
    started_at: str


@dataclass(frozen=True, slots=True)
class Run:
    """One execution the user cares about; it groups calls and may hang under another run.

    Attributes:
        status: `running` until it ends, then `completed` or `error`.
        metadata: what the user gave; redacted like everything else before it reaches a hook.
    """

    uid: str
    parent_uid: str | None
    name: str
    started_unix_us: int
    status: Status = "running"
    ended_unix_us: int | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A span of time between calls: a tool, a retrieval, a graph node. No arguments, no results."""

    run_uid: str
    call_uid: str | None
    started_unix_us: int
    duration_us: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of an answer, numbered within its call from 0 as parts first appear.

    Attributes:
        provider_index: as the provider numbers it, e.g. `1/0`.
        name: the tool's name, or `summary` for reasoning that is a summary.
        external_id: the provider's id of the tool call or item.
    """

    part: int
    kind: Kind
    choice: int = 0
    provider_index: str | None = None
    name: str | None = None
    external_id: str | None = None


class Token(NamedTuple):
    """One row of a `TokenBatch`: what one chunk added to one part."""

    offset_us: int
    wait_us: int
    part: int
    token: str | None
    n_tokens: int | None
    logprobs: Any


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token events of one call in the order they came, as columns of equal length; iterate for rows.

    Attributes:
        offset_us: arrival since the call started.
        wait_us: time inside the SDK's `next()` since the previous event; 0 for the second row of one chunk.
        part: number of the part each event belongs to.
        token: the text exactly as received; None throughout at content level `timings`.
        n_tokens: how many model tokens an event holds, by position in the batch, only where that is known.
        logprobs: plain Python values, by position in the batch, only where they came.
        parts: the parts that appeared since the previous batch.
    """

    offset_us: Sequence[int]
    wait_us: Sequence[int]
    part: Sequence[int]
    token: Sequence[str | None]
    n_tokens: Mapping[int, int] = field(default_factory=dict)
    logprobs: Mapping[int, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        return len(self.offset_us)

    def __iter__(self) -> Iterator[Token]:
        columns = zip(self.offset_us, self.wait_us, self.part, self.token, strict=True)
        for i, (offset, wait, part, token) in enumerate(columns):
            yield Token(offset, wait, part, token, self.n_tokens.get(i), self.logprobs.get(i))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider billed, normalised, and the last usage object as it came.

    Attributes:
        input_tokens: those read from a cache or written to it included.
        cached_input_tokens: of those, how many were read from the provider's cache.
        cache_write_tokens: of those, how many were written to it.
        output_tokens: reasoning included.
        reasoning_tokens: of those, how many were reasoning.
        raw: the provider's own object as plain JSON values.
    """

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: Any = None


@dataclass(frozen=True, slots=True)
class Stall:
    """A gap at least as long as the threshold, and where its time went.

    Attributes:
        token_index: the event that ended it; the number of events for the tail.
        gap_us: `wait_us` + `hold_us`.
        blocked_us: the part of `wait_us` in which the event loop or the process was not running.
    """

    token_index: int
    position: Position
    gap_us: int
    wait_us: int
    hold_us: int
    blocked_us: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Metrics:
    """The numbers of one ended call. Each field is a column of `llm_calls`; None where it has no meaning.

    Definitions: `docs/metrics.md`. Milliseconds are floats; percentiles interpolate linearly.
    """

    first_chunk_latency_ms: float | None = None
    first_token_latency_ms: float | None = None
    headers_latency_ms: float | None = None
    retry_ms: float | None = None
    first_output_token_latency_ms: float | None = None
    first_text_latency_ms: float | None = None
    second_token_gap_ms: float | None = None
    last_token_latency_ms: float | None = None
    duration_ms: float | None = None
    inter_chunk_p50_ms: float | None = None
    inter_chunk_p95_ms: float | None = None
    inter_chunk_p99_ms: float | None = None
    inter_chunk_max_ms: float | None = None
    inter_chunk_mean_ms: float | None = None
    inter_chunk_stdev_ms: float | None = None
    inter_token_latency_ms: float | None = None
    tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    events_per_second: float | None = None
    tail_gap_ms: float | None = None
    stall_count: int | None = None
    stall_excess_ms: float | None = None
    stall_threshold_ms: float | None = None
    stall_wait_ms: float | None = None
    stall_hold_ms: float | None = None
    stall_blocked_ms: float | None = None
    hold_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model: what was known when it was sent.

    Attributes:
        layer: `sdk` for a provider's client, `framework` for what calls one.
        provider: one of OpenTelemetry's `gen_ai.provider.name` values.
        server_address: host only.
        sampled: whether its token events are kept; metrics always are.
        request: allow-listed scalars of the request.
        prompt_json: the request body as JSON text, only when asked for.
    """

    uid: str
    run_uid: str
    parent_uid: str | None
    layer: Layer
    adapter: str
    provider: str | None
    server_address: str | None
    operation: str
    request_model: str | None
    streaming: bool
    started_unix_us: int
    content_level: ContentLevel
    name: str | None = None
    sampled: bool = True
    request: Mapping[str, Any] = field(default_factory=dict)
    prompt_json: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    framework_run_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    trace_id: str | None = None
    span_id: str | None = None
    in_flight_at_start: int = 0


@dataclass(frozen=True, slots=True)
class FinishedCall(Call):
    """A call that has ended: how, with what usage, and the numbers computed from its events.

    Attributes:
        ended_us: end since the start; the same instant as `metrics.duration_ms`.
        finish_reason: the provider's word; a JSON list in order of choice where there are several.
        retries: attempts after the first; None where the adapter does not see attempts.
        reasoning_hidden: reasoning was billed but only a summary, or nothing, was streamed.
        token_count_source: `usage` or `logprobs`; None when the count is not known.
        chunk_count: what the SDK yielded; `event_count` what of it was content, per part.
    """

    status: Status = "completed"
    ended_us: int = 0
    finish_reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    retries: int | None = None
    response_model: str | None = None
    response_id: str | None = None
    provider_request_id: str | None = None
    response_meta: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage | None = None
    token_count: int | None = None
    token_count_source: Literal["usage", "logprobs"] | None = None
    reasoning_hidden: bool = False
    chunk_count: int = 0
    event_count: int = 0
    parts: tuple[Part, ...] = ()
    stalls: tuple[Stall, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
