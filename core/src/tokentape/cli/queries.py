"""Questions that people ask of a tape, as SQL that plain Datasette runs; what is asked for is always bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SLOWEST: Final = """
select uid, name, model, first_token_latency_ms, headers_latency_ms, retry_ms, retries, started_at
from (select *, coalesce(request_model, response_model) as model from llm_calls)
where first_token_latency_ms is not null
order by first_token_latency_ms desc limit 50
"""
_WHOSE_TIME: Final = """
select model, cause, count(*) as stalls, sum(gap_ms) as gap_ms, max(gap_ms) as longest_gap_ms
from stalls where position <> 'first'
group by model, cause order by gap_ms desc
"""
_FAILED: Final = """
select uid, started_at, name, status, error_type, error_message, http_status, event_count
from llm_calls where status not in ('completed', 'running')
order by started_unix_us desc limit 100
"""
_TOKENS: Final = """
select substr(c.started_at, 1, 10) as day, coalesce(c.request_model, c.response_model) as model, count(*) as calls,
  sum(c.input_tokens) as input_tokens, sum(c.token_count) as token_count
from llm_calls c
where c.layer = 'sdk' or not exists (select 1 from llm_calls made where made.parent_id = c.id)
group by day, model order by day desc, token_count desc
"""
_RETRIED: Final = """
select uid, started_at, name, retries, retry_ms, response_meta_json, status
from llm_calls where retries > 0 order by retry_ms desc limit 50
"""
_EVENTS: Final = """
select token_index, timestamp_ms, delta_ms, wait_ms, kind, choice, token
from token_timeline where call_id = (select id from llm_calls where uid = :uid)
"""
_SAID: Final = """
select uid, started_at, name, model, status, text
from responses where text like '%' || :text || '%' order by call_id desc limit 50
"""
_LABELS: Final = """
select l.value, count(*) as calls, sum(c.status not in ('completed', 'running')) as failed,
  sum(c.input_tokens) as input_tokens, sum(c.token_count) as token_count, sum(c.stall_count) as stalls
from call_labels l join llm_calls c on c.id = l.call_id
where l.key = :key group by l.value order by calls desc limit 100
"""

QUERIES: Final[Mapping[str, Mapping[str, str]]] = {
    "slowest_first_tokens": {"title": "Which calls waited longest for their first token?", "sql": _SLOWEST.strip()},
    "whose_time": {"title": "Whose time was it when streams stalled?", "sql": _WHOSE_TIME.strip()},
    "failed": {"title": "What did not complete?", "sql": _FAILED.strip()},
    "tokens_by_day": {"title": "How many tokens a day, by model?", "sql": _TOKENS.strip()},
    "retried": {"title": "What did failed attempts cost?", "sql": _RETRIED.strip()},
    "events_of_a_call": {"title": "When did each token event of a call come?", "sql": _EVENTS.strip()},
    "said": {"title": "Which answers said this?", "sql": _SAID.strip()},
    "by_label": {"title": "How do the values of a label compare?", "sql": _LABELS.strip()},
}
