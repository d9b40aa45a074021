# ruff: noqa: S608  # the pieces put together are the constants below
"""The views of a tape as SQL: plain questions that plain SQL and plain Datasette can ask.

They are written so that SQLite can stream them: a page of 101 rows, or a filter on one call, never computes the rest.
Nothing here runs a window over `llm_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# A framework's call and the SDK call that it made both hold the answer: totals take the SDK's. Of a call `c`.
COUNTED: Final = (
    "(c.layer = 'sdk' OR NOT EXISTS (SELECT 1 FROM llm_calls inner_call WHERE inner_call.parent_id = c.id))"
)
# The model that was asked for; what the provider calls it is known only when the answer comes.
MODEL: Final = "coalesce(c.request_model, c.response_model)"
TEXT_KIND: Final = "(SELECT id FROM token_kinds WHERE name = 'text')"
NOW_MS: Final = "(julianday('now') - 2440587.5) * 86400000.0"

# The gap before an event `t`; NULL where the event before it has been removed. That is looked up by key: a LAG window
# over one call of a big tape takes a thousand times longer.
DELTA_MS: Final = """(t.offset_us - CASE t.token_index WHEN 0 THEN 0 ELSE (
    SELECT prior.offset_us FROM llm_tokens prior
    WHERE prior.call_id = t.call_id AND prior.token_index = t.token_index - 1
  ) END) / 1000.0"""
TOKEN_TIMELINE: Final = f"""
SELECT  -- token events, their times in milliseconds
  t.call_id,
  t.token_index,
  t.offset_us / 1000.0 AS timestamp_ms,  -- since the call started
  {DELTA_MS} AS delta_ms,  -- since the event before it, or since the call started; NULL where that one was removed
  t.wait_us / 1000.0 AS wait_ms,  -- of that, time inside next(); the rest was the program's
  k.name AS kind,
  p.choice,
  t.part,
  t.token
FROM llm_tokens t
LEFT JOIN llm_parts p ON p.call_id = t.call_id AND p.part = t.part
LEFT JOIN token_kinds k ON k.id = p.kind_id
"""

CALLS: Final = f"""
SELECT  -- calls, the newest first
  c.id AS call_id,
  c.uid,
  c.started_at,
  c.name,
  c.layer,
  {MODEL} AS model,  -- the model that was asked for; else the one that answered
  c.status,
  c.first_token_latency_ms,
  c.tokens_per_second,
  c.events_per_second,
  CASE WHEN c.inter_chunk_max_ms IS NULL OR c.tail_gap_ms > c.inter_chunk_max_ms
    THEN c.tail_gap_ms ELSE c.inter_chunk_max_ms END AS longest_gap_ms,  -- between events, or before the end
  (SELECT s.cause FROM llm_stalls s WHERE s.call_id = c.id AND s.position <> 'first'
    ORDER BY s.gap_us DESC LIMIT 1) AS cause,  -- whose time the longest stall was: upstream, blocked, own, unknown
  (SELECT substr(p.content, 1, 80) FROM llm_parts p WHERE p.call_id = c.id AND p.kind_id = {TEXT_KIND}
    ORDER BY p.part LIMIT 1) AS text_start  -- what the answer begins with
FROM llm_calls c
ORDER BY c.started_unix_us DESC, c.id DESC
"""

# One row for each choice of a call; a call without text has one row too.
RESPONSES: Final = f"""
SELECT  -- the text of each answer; a call with several choices has several
  c.id AS call_id,
  c.uid,
  c.started_at,
  c.name,
  {MODEL} AS model,
  c.status,
  c.finish_reason,
  coalesce(p.choice, 0) AS choice,
  (SELECT group_concat(piece.content, '') FROM (
    SELECT other.content FROM llm_parts other
    WHERE other.call_id = p.call_id AND other.kind_id = p.kind_id AND other.choice = p.choice
    ORDER BY other.part
  ) piece) AS text  -- parts of one choice joined
FROM llm_calls c
LEFT JOIN llm_parts p ON p.call_id = c.id AND p.kind_id = {TEXT_KIND} AND NOT EXISTS (
  SELECT 1 FROM llm_parts earlier
  WHERE earlier.call_id = p.call_id AND earlier.kind_id = p.kind_id
    AND earlier.choice = p.choice AND earlier.part < p.part
)
"""

# Of both layers, each with its own times; adding up those that are `counted` counts each token once.
STREAMING_STATS: Final = f"""
SELECT  -- the numbers of each call
  c.id AS call_id,
  c.uid,
  c.name,
  c.layer,
  {COUNTED} AS counted,
  {MODEL} AS model,
  c.status,
  c.streaming,
  c.input_tokens,
  c.token_count,
  c.token_count_source,
  c.event_count,
  c.dropped_count,
  c.first_chunk_latency_ms,
  c.first_token_latency_ms,
  c.first_output_token_latency_ms,
  c.first_text_latency_ms,
  c.headers_latency_ms,
  c.retry_ms,
  c.second_token_gap_ms,
  c.last_token_latency_ms,
  c.duration_ms,
  c.inter_chunk_p50_ms,
  c.inter_chunk_p95_ms,
  c.inter_chunk_p99_ms,
  c.inter_chunk_max_ms,
  c.inter_chunk_mean_ms,
  c.inter_chunk_stdev_ms,
  c.inter_token_latency_ms,
  c.tokens_per_second,
  c.decode_tokens_per_second,
  c.events_per_second,
  c.tail_gap_ms,
  c.hold_ms,
  c.stall_count,
  c.stall_threshold_ms,
  c.stall_excess_ms,
  c.stall_wait_ms,
  c.stall_hold_ms,
  c.stall_blocked_ms
FROM llm_calls c
"""

# A run's own calls; those of the runs inside it are in their own rows, so that rows can be added up.
RUN_STATS: Final = f"""
SELECT  -- runs with the sums of their own calls; each token counts once
  r.id AS run_id,
  r.uid,
  r.parent_id,
  r.name,
  r.status,
  r.started_at,
  r.ended_at,
  count(c.id) AS call_count,  -- those of runs inside it are in their rows
  count(CASE WHEN c.status NOT IN ('running', 'completed') THEN 1 END) AS failed_count,  -- ended, not completed
  sum(c.input_tokens) AS input_tokens,
  sum(c.token_count) AS token_count,
  sum(c.event_count) AS event_count,
  max(c.first_token_latency_ms) AS slowest_first_token_ms,  -- the longest first_token_latency_ms
  sum(c.stall_count) AS stall_count,
  sum(c.stall_excess_ms) AS stall_excess_ms,
  sum(c.stall_wait_ms) AS stall_wait_ms,
  sum(c.stall_hold_ms) AS stall_hold_ms,
  sum(c.stall_blocked_ms) AS stall_blocked_ms
FROM runs r
LEFT JOIN llm_calls c ON c.run_id = r.id AND {COUNTED}
GROUP BY r.id
"""

# Percentiles are taken over the calls that completed, never over percentiles. Linear interpolation as one sum: of the
# ranked numbers only the two beside the wanted position, (n - 1) * share, have a weight.
MODEL_STATS: Final = f"""
WITH counted AS (
  SELECT c.provider, {MODEL} AS model, c.status, c.input_tokens, c.token_count, c.stall_count,
    c.first_token_latency_ms AS first_token, c.inter_token_latency_ms AS inter_token,
    c.decode_tokens_per_second AS decode
  FROM llm_calls c
  WHERE {COUNTED}
),
ranked AS (
  SELECT provider, model, first_token, inter_token, decode,
    row_number() OVER (PARTITION BY provider, model ORDER BY first_token IS NULL, first_token) - 1 AS first_token_rank,
    count(first_token) OVER (PARTITION BY provider, model) - 1 AS first_token_last,
    row_number() OVER (PARTITION BY provider, model ORDER BY inter_token IS NULL, inter_token) - 1 AS inter_token_rank,
    count(inter_token) OVER (PARTITION BY provider, model) - 1 AS inter_token_last,
    row_number() OVER (PARTITION BY provider, model ORDER BY decode IS NULL, decode) - 1 AS decode_rank,
    count(decode) OVER (PARTITION BY provider, model) - 1 AS decode_last
  FROM counted
  WHERE status = 'completed'
),
percentiles AS (
  SELECT provider, model,
    sum(first_token * max(0.0, 1 - abs(first_token_rank - 0.5 * first_token_last))) AS first_token_latency_p50_ms,
    sum(first_token * max(0.0, 1 - abs(first_token_rank - 0.95 * first_token_last))) AS first_token_latency_p95_ms,
    sum(inter_token * max(0.0, 1 - abs(inter_token_rank - 0.5 * inter_token_last))) AS inter_token_latency_p50_ms,
    sum(inter_token * max(0.0, 1 - abs(inter_token_rank - 0.95 * inter_token_last))) AS inter_token_latency_p95_ms,
    sum(decode * max(0.0, 1 - abs(decode_rank - 0.5 * decode_last))) AS decode_tokens_per_second_p50,
    sum(decode * max(0.0, 1 - abs(decode_rank - 0.95 * decode_last))) AS decode_tokens_per_second_p95
  FROM ranked
  GROUP BY provider, model
),
totals AS (
  SELECT provider, model,
    count(*) AS call_count,
    count(CASE WHEN status = 'completed' THEN 1 END) AS completed_count,
    count(CASE WHEN status NOT IN ('running', 'completed') THEN 1 END) AS failed_count,
    sum(input_tokens) AS input_tokens,
    sum(token_count) AS token_count,
    sum(stall_count) AS stall_count
  FROM counted
  GROUP BY provider, model
)
SELECT  -- models with percentiles over their completed calls; each token counts once
  totals.*,
  first_token_latency_p50_ms,  -- median of first_token_latency_ms
  first_token_latency_p95_ms,  -- 95th percentile of it
  inter_token_latency_p50_ms,  -- median of inter_token_latency_ms
  inter_token_latency_p95_ms,  -- 95th percentile of it
  decode_tokens_per_second_p50,  -- median of decode_tokens_per_second
  decode_tokens_per_second_p95  -- 95th percentile of it
FROM totals
LEFT JOIN percentiles ON percentiles.provider IS totals.provider AND percentiles.model IS totals.model
"""

STALLS: Final = f"""
SELECT  -- where streams stalled, how long, and whose time it was
  s.call_id,
  c.uid,
  c.name,
  {MODEL} AS model,
  c.started_at,
  s.position,
  s.token_index,
  s.gap_us / 1000.0 AS gap_ms,  -- wait_ms + hold_ms
  s.wait_us / 1000.0 AS wait_ms,  -- time inside next()
  s.hold_us / 1000.0 AS hold_ms,  -- the program's own time
  s.blocked_us / 1000.0 AS blocked_ms,  -- of the wait, time the event loop or the process was not running
  s.cause
FROM llm_stalls s
JOIN llm_calls c ON c.id = s.call_id
"""

IN_FLIGHT: Final = f"""
SELECT  -- calls that have not ended, in any process
  c.id AS call_id,
  c.uid,
  c.name,
  {MODEL} AS model,
  c.event_count,
  max(0.0, round({NOW_MS} - coalesce((julianday(c.last_event_at) - 2440587.5) * 86400000.0,
    c.started_unix_us / 1000.0), 1)) AS silent_for_ms,  -- since the last event, or the start
  max(0.0, round({NOW_MS} - c.started_unix_us / 1000.0, 1)) AS running_for_ms,  -- since the start
  c.started_at,
  c.last_event_at,
  p.host,
  p.pid,
  p.name AS process  -- base name of its script
FROM llm_calls c
JOIN processes p ON p.id = c.process_id
WHERE c.status = 'running'
"""

VIEWS: Final[Mapping[str, str]] = {
    "calls": CALLS,
    "token_timeline": TOKEN_TIMELINE,
    "responses": RESPONSES,
    "streaming_stats": STREAMING_STATS,
    "run_stats": RUN_STATS,
    "model_stats": MODEL_STATS,
    "stalls": STALLS,
    "in_flight": IN_FLIGHT,
}
