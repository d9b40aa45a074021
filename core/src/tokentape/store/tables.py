"""The tables of a tape as SQL, as the first migration creates them."""

from __future__ import annotations

from typing import Final

# Never edited once released: a change is a new migration. What is long stands last in `llm_calls`, so that reading a
# number does not mean walking over a prompt.
TABLES: Final = """
CREATE TABLE processes (  -- programs that recorded
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  boot_id TEXT,              -- one boot of the host and one pid namespace: a pid means nothing without it
  pid INTEGER NOT NULL,
  pid_started_at TEXT,  -- tells it from a later process with the same pid
  name TEXT NOT NULL,        -- base name of the script; never arguments, environment or folder
  started_at TEXT NOT NULL,
  last_seen_at TEXT NOT NULL  -- kept fresh while it records
);

CREATE TABLE runs (  -- executions that group calls
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,  -- ULID
  parent_id INTEGER REFERENCES runs(id) ON DELETE SET NULL,  -- the run it was opened in
  process_id INTEGER NOT NULL REFERENCES processes(id),
  name TEXT NOT NULL,
  status TEXT NOT NULL,      -- running, completed, error, lost
  started_at TEXT NOT NULL,
  ended_at TEXT,
  metadata_json TEXT  -- as the program gave it, secrets masked
);

CREATE TABLE llm_calls (  -- requests to models, from just before each was sent until its stream ended
  id INTEGER PRIMARY KEY,
  uid TEXT NOT NULL UNIQUE,  -- ULID
  name TEXT NOT NULL,  -- the program's; else model and time of day
  run_id INTEGER REFERENCES runs(id) ON DELETE SET NULL,
  process_id INTEGER NOT NULL REFERENCES processes(id),
  parent_id INTEGER REFERENCES llm_calls(id) ON DELETE SET NULL,  -- the framework call that made this one
  layer TEXT NOT NULL,       -- sdk, framework
  adapter TEXT NOT NULL,  -- what recorded it
  provider TEXT,             -- as OpenTelemetry's gen_ai.provider.name
  server_address TEXT,       -- host only
  operation TEXT NOT NULL,  -- chat, text_completion, responses, messages, …
  request_model TEXT,  -- the model that was asked for
  response_model TEXT,  -- the model that answered, as the provider calls it
  response_id TEXT,
  provider_request_id TEXT,
  streaming INTEGER NOT NULL,  -- 0 where it was answered at once: no token events then
  status TEXT NOT NULL,      -- running, completed, error, cancelled, abandoned, lost
  finish_reason TEXT,        -- the provider's word; a JSON list in order of choice where there are several
  error_type TEXT,  -- also where something went wrong after the answer was complete
  error_message TEXT,
  http_status INTEGER,
  retries INTEGER,  -- attempts that failed before one succeeded
  started_at TEXT NOT NULL,
  started_unix_us INTEGER NOT NULL,  -- t0: just before the request was sent
  ended_at TEXT,
  last_event_at TEXT,        -- kept fresh while the call runs
  content_level TEXT NOT NULL,  -- full, redacted, timings (no text)
  events_kept TEXT NOT NULL, -- all, sampled_out, dropped, packed, aggregated
  framework_run_id TEXT,
  trace_id TEXT,
  span_id TEXT,
  input_tokens INTEGER,      -- cached ones included
  cached_input_tokens INTEGER,  -- of input_tokens, read from a cache
  cache_write_tokens INTEGER,  -- of input_tokens, written to a cache
  output_tokens INTEGER,     -- reasoning included
  reasoning_tokens INTEGER,  -- of output_tokens
  reasoning_hidden INTEGER,  -- reasoning was billed, but at most a summary was streamed
  token_count INTEGER,       -- model tokens, never chunks; NULL where nobody said how many
  token_count_source TEXT,   -- usage, logprobs
  chunk_count INTEGER,       -- what the SDK yielded
  event_count INTEGER NOT NULL,    -- what of it was content, per part; kept fresh while the call runs
  dropped_count INTEGER NOT NULL,  -- events that could not be kept
  in_flight_at_start INTEGER NOT NULL,  -- how many others this process had open then
  first_chunk_latency_ms REAL,  -- the first chunk of any kind - t0; NULL where no chunk came
  first_token_latency_ms REAL,  -- c1 - t0, whatever kind (what others call TTFT); NULL where no content came
  headers_latency_ms REAL,  -- headers of the attempt that succeeded - t0; NULL where there was no response
  retry_ms REAL,  -- start of that attempt - t0: what failed ones and back-off cost; NULL where there was no response
  first_output_token_latency_ms REAL,  -- first content that is no reasoning - t0; NULL where none came
  first_text_latency_ms REAL,  -- first content of kind text - t0: what a reader waits for; NULL where no text came
  second_token_gap_ms REAL,  -- c2 - c1; NULL where m < 2
  last_token_latency_ms REAL,  -- cm - t0; NULL where no content came
  duration_ms REAL,  -- closed, failed or given up - t0; NULL while it runs
  inter_chunk_p50_ms REAL,  -- median of the gaps, interpolated linearly; NULL where m < 2
  inter_chunk_p95_ms REAL,  -- 95th percentile of the gaps, interpolated linearly; NULL where m < 2
  inter_chunk_p99_ms REAL,  -- 99th percentile of the gaps, interpolated linearly; NULL where m < 2
  inter_chunk_max_ms REAL,  -- longest of the gaps; NULL where m < 2
  inter_chunk_mean_ms REAL,  -- mean of the gaps; NULL where m < 2
  inter_chunk_stdev_ms REAL,  -- standard deviation of the gaps, the population's; NULL where m < 2
  inter_token_latency_ms REAL,  -- (cm - c1) / (Ns - n1); NULL where N is unknown, or nothing to divide by
  tokens_per_second REAL,  -- N / (cm - t0), end to end; not streamed: N / duration; NULL where N is unknown
  decode_tokens_per_second REAL,  -- (Ns - n1) / (cm - c1); NULL where N is unknown, or m < 2
  events_per_second REAL,  -- m / (cm - t0), never called tokens; NULL where no content came
  tail_gap_ms REAL,  -- end - cm: silence before the end, where timeouts hide; NULL while it runs
  stall_count INTEGER,  -- gaps of at least the threshold, the tail included; NULL where nothing came
  stall_excess_ms REAL,  -- by how much stalls exceed the median gap, summed; NULL where nothing came
  stall_threshold_ms REAL,  -- what counted as a stall (the setting stall_ms)
  stall_wait_ms REAL,  -- of that excess, in proportion: waiting, not blocked; NULL where whose time it was is unknown
  stall_hold_ms REAL,  -- of that excess, in proportion: the program's own time; NULL where whose time it was is unknown
  stall_blocked_ms REAL,  -- of that excess, in proportion: event loop busy; NULL where whose time it was is unknown
  hold_ms REAL,  -- all time the program took between chunks; NULL where m < 2, or whose time it was is unknown
  labels_json TEXT,  -- as in call_labels
  request_json TEXT,         -- allow-listed scalars of the request
  response_meta_json TEXT,   -- allow-listed values of the response's headers
  usage_json TEXT,           -- the last usage object as it came
  metadata_json TEXT,
  prompt_json TEXT  -- the request body, where prompts are kept
);
CREATE INDEX llm_calls_run ON llm_calls(run_id);
CREATE INDEX llm_calls_parent ON llm_calls(parent_id);
CREATE INDEX llm_calls_process ON llm_calls(process_id);
CREATE INDEX llm_calls_started ON llm_calls(started_unix_us);
CREATE INDEX llm_calls_running ON llm_calls(process_id) WHERE status = 'running';
CREATE INDEX runs_parent ON runs(parent_id);
CREATE INDEX runs_process ON runs(process_id);

CREATE TABLE token_kinds (  -- what a part can be
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE llm_parts (  -- pieces of an answer: the text of a choice, the arguments of a tool call, …
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  part INTEGER NOT NULL,     -- numbered from 0 as parts first appear
  kind_id INTEGER NOT NULL REFERENCES token_kinds(id),
  choice INTEGER NOT NULL,  -- which of several answers it belongs to, from 0
  provider_index TEXT,       -- as the provider numbers it, e.g. 1/0
  name TEXT,                 -- the tool's; summary for a reasoning summary
  external_id TEXT,
  content TEXT,              -- its events joined, when the call has ended
  PRIMARY KEY (call_id, part)
);

CREATE TABLE llm_tokens (  -- token events: what one chunk added to one part
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  token_index INTEGER NOT NULL,  -- from 0, no holes unless events_kept is aggregated
  offset_us INTEGER NOT NULL,    -- since the call started
  wait_us INTEGER NOT NULL,      -- time inside next() since the previous event; the rest of the gap was the program's
  part INTEGER NOT NULL,
  token TEXT,                    -- what one chunk added, exactly as received: not always one model token
  n_tokens INTEGER,              -- how many model tokens it holds, where that is known
  PRIMARY KEY (call_id, token_index)
) WITHOUT ROWID;

CREATE TABLE llm_token_logprobs (  -- log-probabilities of token events
  call_id INTEGER NOT NULL,
  token_index INTEGER NOT NULL,
  logprobs_json TEXT NOT NULL,
  PRIMARY KEY (call_id, token_index),
  FOREIGN KEY (call_id, token_index) REFERENCES llm_tokens(call_id, token_index) ON DELETE CASCADE
);

CREATE TABLE llm_stalls (  -- where streams stalled, how long, and whose time it was
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

CREATE TABLE call_labels (  -- labels of calls
  call_id INTEGER NOT NULL REFERENCES llm_calls(id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (call_id, key)
);
CREATE INDEX call_labels_key_value ON call_labels(key, value);

CREATE TABLE marks (  -- time between calls: a tool, a retrieval, a node
  id INTEGER PRIMARY KEY,
  run_id INTEGER REFERENCES runs(id) ON DELETE CASCADE,
  call_id INTEGER REFERENCES llm_calls(id) ON DELETE SET NULL,
  started_unix_us INTEGER NOT NULL,
  duration_us INTEGER NOT NULL,  -- how long it took
  kind TEXT NOT NULL,  -- tool, retriever, node, …
  name TEXT NOT NULL
);
CREATE INDEX marks_run ON marks(run_id);
CREATE INDEX marks_call ON marks(call_id);
"""
