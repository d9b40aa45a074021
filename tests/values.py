"""Made-up values of the models, for tests of the store: every field has a value, each can be given another."""

from __future__ import annotations

import dataclasses
from typing import Any

from tokentape.models import Call, FinishedCall, Metrics, Process, Run, Stall

STARTED_US = 1_795_456_800_000_000  # 2026-11-23T18:00:00Z


def process_value(**fields: Any) -> Process:
    values = {
        "host": "box",
        "boot_id": "boot",
        "pid": 7,
        "pid_started_at": "2026-11-23T17:00:00.000000Z",
        "name": "app.py",
        "started_at": "2026-11-23T17:59:59.000000Z",
    }
    return Process(**values | fields)


def run_value(uid: str = "RUN", **fields: Any) -> Run:
    return Run(**{"uid": uid, "parent_uid": None, "name": "nightly", "started_unix_us": STARTED_US} | fields)


def call_value(uid: str = "CALL", **fields: Any) -> Call:
    values = {
        "uid": uid,
        "run_uid": "RUN",
        "parent_uid": None,
        "layer": "sdk",
        "adapter": "openai",
        "provider": "openai",
        "server_address": "api.example.com",
        "operation": "chat",
        "request_model": "gpt-x",
        "streaming": True,
        "started_unix_us": STARTED_US,
        "content_level": "full",
    }
    return Call(**values | fields)


def finished(call: Call, **fields: Any) -> FinishedCall:
    own = {field.name: getattr(call, field.name) for field in dataclasses.fields(Call)}
    return FinishedCall(**own | fields)


def metrics_value(**fields: Any) -> Metrics:
    """Metrics in which every number differs from every other."""
    names = [field.name for field in dataclasses.fields(Metrics)]
    values: dict[str, Any] = {name: float(i) + 0.5 for i, name in enumerate(names)}
    return Metrics(**values | {"stall_count": 1} | fields)


def stall(token_index: int, **fields: Any) -> Stall:
    values = {
        "position": "middle",
        "gap_us": 2000,
        "wait_us": 1500,
        "hold_us": 500,
        "blocked_us": 100,
        "cause": "upstream",
    }
    return Stall(token_index, **values | fields)
