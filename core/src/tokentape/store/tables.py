"""The tables of a tape as SQL, as the first migration creates them."""

from __future__ import annotations

from typing import Final

# Never edited once released: a change is a new migration. What is long stands last in `llm_calls`, so that reading a
# number does not mean walking over a prompt.
TABLES: Final = """
CREATE TABLE processes (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  boot_id TEXT,              -- one boot of the host and one pid namespace: a pid means nothing without it
  pid INTEGER NOT NULL,
  pid_started_at TEXT,
  name TEXT NOT NULL,        -- base name of the script; never arguments, environment or folder
  started_at TEXT NOT NULL,
  last_seen_at TEXT NOT NULL
);

CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,  -- ULID
  parent_id INTEGER REFERENCES runs(id) ON DELETE SET NULL,
  process_id INTEGER NOT NULL REFERENCES processes(id),
  name TEXT NOT NULL,
  status TEXT NOT NULL,      -- running, completed, error, lost
  started_at TEXT NOT NULL,
  ended_at TEXT,
  metadata_json TEXT
);

CREATE TABLE llm_calls (
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,  -- ULID
  name TEXT NOT NULL,
  run_id INTEGER REFERENCES runs(id) ON DELETE SET NULL,
  process_id INTEGER NOT NULL REFERENCES processes(id),
  parent_id INTEGER REFERENCES llm_calls(id) ON DELETE SET NULL,  -- the framework call that made this one
  layer TEXT NOT NULL,       -- sdk, framework
  adapter TEXT NOT NULL,
  provider TEXT,             -- as OpenTelemetry's gen_ai.provider.name
  server_address TEXT,       -- host only
  operation TEXT NOT NULL,
  request_model TEXT,
  response_model TEXT,
  response_id TEXT,
  provider_request_id TEXT,
  streaming INTEGER NOT NULL,
  status TEXT NOT NULL,      -- running, completed, error, cancelled, abandoned, lost
  finish_reason TEXT,        -- the provider's word; a JSON list in order of choice where there are several
  error_type TEXT,
  error_message TEXT,
  http_status INTEGER,
  retries INTEGER,
  started_at TEXT NOT NULL,
  started_unix_us INTEGER NOT NULL,
  ended_at TEXT,
  last_event_at TEXT,        -- kept fresh while the call runs
  content_level TEXT NOT NULL,
  events_kept TEXT NOT NULL, -- all, sampled_out, dropped, packed, aggregated
  framework_run_id TEXT,
  trace_id TEXT,
  span_id TEXT,
  input_tokens INTEGER,      -- cached ones included
  cached_input_tokens INTEGER,
  cache_write_tokens INTEGER,
  output_tokens INTEGER,     -- reasoning included
  reasoning_tokens INTEGER,
  reasoning_hidden INTEGER,  -- reasoning was billed, but at most a summary was streamed
  token_count INTEGER,       -- model tokens, never chunks; NULL where nobody said how many
  token_count_source TEXT,   -- usage, logprobs
  chunk_count INTEGER,       -- what the SDK yielded
  event_count INTEGER NOT NULL,    -- what of it was content, per part; kept fresh while the call runs
  dropped_count INTEGER NOT NULL,  -- events that could not be kept
  in_flight_at_start INTEGER NOT NULL,
  first_chunk_latency_ms REAL,
  first_token_latency_ms REAL,
  headers_latency_ms REAL,
  retry_ms REAL,
  first_output_token_latency_ms REAL,
  first_text_latency_ms REAL,
  second_token_gap_ms REAL,
  last_token_latency_ms REAL,
  duration_ms REAL,
  inter_chunk_p50_ms REAL,
  inter_chunk_p95_ms REAL,
  inter_chunk_p99_ms REAL,
  inter_chunk_max_ms REAL,
  inter_chunk_mean_ms REAL,
  inter_chunk_stdev_ms REAL,
  inter_token_latency_ms REAL,
  tokens_per_second REAL,
  decode_tokens_per_second REAL,
  events_per_second REAL,
  tail_gap_ms REAL,
  stall_count INTEGER,
  stall_excess_ms REAL,
  stall_threshold_ms REAL,
  stall_wait_ms REAL,
  stall_hold_ms REAL,
  stall_blocked_ms REAL,
  hold_ms REAL,
  labels_json TEXT,
  request_json TEXT,         -- allow-listed scalars of the request
  response_meta_json TEXT,   -- allow-listed values of the response's headers
  usage_json TEXT,           -- the last usage object as it came
  metadata_json TEXT,
  prompt_json TEXT
);
CREATE INDEX llm_calls_run ON llm_calls(run_id);
CREATE INDEX llm_calls_parent ON llm_calls(parent_id);
CREATE INDEX llm_calls_process ON llm_calls(process_id);
CREATE INDEX llm_calls_started ON llm_calls(started_unix_us);
CREATE INDEX llm_calls_running ON llm_calls(process_id) WHERE status = 'running';
CREATE INDEX runs_parent ON runs(parent_id);
CREATE INDEX runs_process ON runs(process_id);

CREATE TABLE token_kinds (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE llm_parts (
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  part INTEGER NOT NULL,     -- numbered from 0 as parts first appear
  kind_id INTEGER NOT NULL REFERENCES token_kinds(id),
  choice INTEGER NOT NULL,
  provider_index TEXT,       -- as the provider numbers it, e.g. 1/0
  name TEXT,                 -- the tool's; summary for a reasoning summary
  external_id TEXT,
  content TEXT,              -- its events joined, when the call has ended
  PRIMARY KEY (call_id, part)
);

CREATE TABLE llm_tokens (
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  token_index INTEGER NOT NULL,  -- from 0, no holes
  offset_us INTEGER NOT NULL,    -- since the call started
  wait_us INTEGER NOT NULL,      -- time inside next() since the previous event; the rest of the gap was the program's
  part INTEGER NOT NULL,
  token TEXT,                    -- what one chunk added, exactly as received: not always one model token
  n_tokens INTEGER,              -- how many model tokens it holds, where that is known
  PRIMARY KEY (call_id, token_index)
) WITHOUT ROWID;

CREATE TABLE llm_token_logprobs (
  call_id INTEGER NOT NULL,
  token_index INTEGER NOT NULL,
  logprobs_json TEXT NOT NULL,
  PRIMARY KEY (call_id, token_index),
  FOREIGN KEY (call_id, token_index) REFERENCES llm_tokens(call_id, token_index) ON DELETE CASCADE
);

CREATE TABLE llm_stalls (
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  token_index INTEGER NOT NULL,  -- the event that ended it; event_count for the tail
  position TEXT NOT NULL,        -- first, middle, tail
  gap_us INTEGER NOT NULL,       -- wait_us + hold_us
  wait_us INTEGER NOT NULL,
  hold_us INTEGER NOT NULL,      -- the program's own time
  blocked_us INTEGER NOT NULL,   -- the part of wait_us in which the event loop or the process was not running
  cause TEXT NOT NULL,           -- upstream, blocked, own, unknown
  PRIMARY KEY (call_id, token_index)
);

CREATE TABLE call_labels (
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (call_id, key)
);
CREATE INDEX call_labels_key_value ON call_labels(key, value);

CREATE TABLE marks (
  id INTEGER PRIMARY KEY,
  run_id INTEGER REFERENCES runs(id) ON DELETE CASCADE,
  call_id INTEGER REFERENCES llm_calls(id) ON DELETE SET NULL,
  started_unix_us INTEGER NOT NULL,
  duration_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL
);
CREATE INDEX marks_run ON marks(run_id);
CREATE INDEX marks_call ON marks(call_id);
"""
