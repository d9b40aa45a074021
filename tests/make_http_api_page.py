"""Writes the answers in docs/http-api.md anew, from a tape made for it: `python tests/make_http_api_page.py`."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from api_client import Listener, client, serving_here
from handmade import Handmade
from programs import eventually
from tokentape.models import Mark, Metrics, Part, Usage
from values import STARTED_US, stall

PAGE = Path(__file__).resolve().parents[1] / "docs" / "http-api.md"
# A request, and the answer below it in whatever format it has.
BLOCK = re.compile(r"^```http\nGET (\S+)\n((?:[^\n]+\n)*)```\n\n```(\w+)\n.*?^```$", re.MULTILINE | re.DOTALL)
LIVE = "/v1/live"
WIDTH = 118
RUN, STEP = "01KAS4JYC0V5T3M0Q3S6ZJ8X1A", "01KAS4JZBRD0E8HV0RBB0ANJ2B"
CALLS = ("01KAS4K00GQ0C1N5VJ2F5DJH3C", "01KAS4K03MQ7VHC5M4Y2M9QW4D", "01KAS4K2J0W5XK4T7Q9E1R2T5F")


def page() -> str:
    """The whole page, as it would be written now."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tape.db"
        made = _tape(path)
        with client(path) as api:

            def answered(block: re.Match[str]) -> str:
                target, headers, language = block[1], block[2], block[3]
                given = dict(line.split(": ", 1) for line in headers.splitlines())
                said = _live(path, target) if target.startswith(LIVE) else _answer(api, target, given, language)
                return f"```http\nGET {target}\n{headers}```\n\n```{language}\n{said}\n```"

            text = BLOCK.sub(answered, PAGE.read_text(encoding="utf-8"))
        made.close()
    return text


def _tape(path: Path) -> Handmade:
    """A run with a step inside it, two calls, one of which a framework made, and a tool between them."""
    made = Handmade(path, waited=0.99)
    made.run(RUN, name="nightly", ended_ms=9200, metadata={"branch": "main"})
    made.run(STEP, name="step", parent_uid=RUN, started_unix_us=STARTED_US + 1_000_000, ended_ms=7000)
    parts = (Part(0, "text"), Part(1, "tool_args", 0, "1", "search", "call_1"))
    events = [(412.0, 0, "It "), (448.5, 0, "is "), (4648.5, 0, "noon"), (4680.0, 1, '{"q": "time"}')]
    numbers = Metrics(
        first_chunk_latency_ms=310.0,
        first_token_latency_ms=412.0,
        headers_latency_ms=305.0,
        retry_ms=0.4,
        first_output_token_latency_ms=412.0,
        first_text_latency_ms=412.0,
        second_token_gap_ms=36.5,
        last_token_latency_ms=4680.0,
        duration_ms=4701.2,
        inter_chunk_p50_ms=36.5,
        inter_chunk_max_ms=4200.0,
        inter_token_latency_ms=533.5,
        tokens_per_second=1.923,
        decode_tokens_per_second=1.874,
        events_per_second=0.855,
        tail_gap_ms=21.2,
        stall_count=1,
        stall_excess_ms=4163.5,
        stall_threshold_ms=1000.0,
        stall_wait_ms=4121.9,
        stall_hold_ms=41.6,
        stall_blocked_ms=0.0,
        hold_ms=42.7,
    )
    billed = Usage(24, output_tokens=9, raw={"prompt_tokens": 24, "completion_tokens": 9})
    count = {
        "token_count": 9,
        "token_count_source": "usage",
        "usage": billed,
        "finish_reason": "stop",
        "chunk_count": 7,
    }
    gap = stall(2, gap_us=4_200_000, wait_us=4_158_000, hold_us=42_000, blocked_us=0)
    ended = {"ended_ms": 4701.2, "metrics": numbers, "stalls": (gap,), "finish_reason": "stop", **count}
    frame = {"run_uid": STEP, "layer": "framework", "adapter": "langchain", "labels": {"env": "prod"}}
    made.call(CALLS[0], *events, after_ms=1200, call=frame, parts=parts, **ended)
    sdk = {"run_uid": STEP, "parent_uid": CALLS[0], "labels": {"env": "prod"}, "request": {"temperature": 0.2}}
    made.call(
        CALLS[1], *events, after_ms=1210, call=sdk, parts=parts, http_status=200, response_model="gpt-x-2026", **ended
    )
    made.mark(Mark(RUN, None, STARTED_US + 6_000_000, 1_250_000, "tool", "search"))
    failed = {"status": "error", "error_type": "RateLimitError", "error_message": "slow down", "http_status": 429}
    short = Metrics(duration_ms=840.0, headers_latency_ms=838.0, tail_gap_ms=840.0)
    other = {"run_uid": RUN, "labels": {"env": "prod"}, "request_model": "gpt-y"}
    made.call(CALLS[2], after_ms=7400, ended_ms=840, call=other, metrics=short, parts=(), **failed)
    return made


def _answer(api: TestClient, target: str, headers: dict[str, str], language: str) -> str:
    answer = api.get(target, headers=headers)
    if language == "json":
        return laid_out(answer.json())
    if language == "csv":
        return answer.text.replace("\r\n", "\n").rstrip()
    tag = f"ETag: {answer.headers['etag']}\n" if "etag" in answer.headers else ""
    return f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}\n{tag}".rstrip()


def _live(path: Path, target: str) -> str:
    with serving_here(path) as url, Listener(url, after=target.partition("after=")[2]) as listener:
        eventually(lambda: listener.named("finished"), lambda found: len(found) == len(CALLS))
    lines = [line for line in listener.lines if line != ": idle"]
    return re.sub(r"\n\n+", "\n\n", "\n".join(map(_shortened, lines))).strip()


def _shortened(line: str) -> str:
    """A line of a stream; the rows of calls stand elsewhere on the page."""
    return re.sub(r'^(data: \{"id":\d+,"uid":"\w+"),.*\}$', r"\1,…}", line)


def laid_out(value: Any, indent: int = 0, before: int = 0) -> str:
    """JSON in lines that are as long as they may be, and not longer."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent + before <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    pairs = isinstance(value, dict)
    items = []
    for name, item in value.items() if pairs else enumerate(value):
        start = f"{json.dumps(name)}: " if pairs else ""
        items.append(start + laid_out(item, indent + 2, len(start) + 1))
    return ("{" if pairs else "[") + _filled(items, indent + 2) + "\n" + " " * indent + ("}" if pairs else "]")


def _filled(items: list[str], indent: int) -> str:
    lines: list[str] = []
    for number, item in enumerate(items):
        text = item + ("," if number < len(items) - 1 else "")
        if lines and "\n" not in lines[-1] + text and len(lines[-1]) + 1 + len(text) <= WIDTH - indent:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return "".join(f"\n{' ' * indent}{line}" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
