"""How long the HTTP API takes on a tape of 1,000,000 token events, and how soon it tells what is recorded elsewhere."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from harness import ROUNDS, Row, best

from api_client import Listener, client, serving
from million import build

# One event every 20 ms, which says when it was recorded.
RECORD = """
import sys, time, tokentape
tokentape.enable(db=sys.argv[1])
with tokentape.start_llm_stream(model="m", provider="acme") as stream:
    for _ in range(250):
        stream.add_token(f"{time.time()} ")
        time.sleep(0.02)
    stream.finish("stop")
tokentape.disable()
"""


def rows() -> Iterator[Row]:
    """The answers that have a limit, without a network, and the live stream over one."""
    with tempfile.TemporaryDirectory() as folder:
        tape = build(Path(folder) / "tape.db")
        with client(tape.path) as api:
            call = api.get(f"/v1/llm-calls/{tape.call_id}").json()
            run = next(run for run in api.get("/v1/runs").json()["runs"] if run["call_count"] == 100)
            tokens = f"/v1/runs/{call['run_uid']}/llm-calls/{call['uid']}/tokens?limit=1000"
            asked = {
                tokens: [],
                f"/v1/runs/{run['uid']}/streaming-stats": [],
                f"/v1/llm-calls/{call['uid']}/events": [],
                f"/v1/runs/{run['uid']}/timeline": [],
            }
            for _ in range(ROUNDS):
                for path, took in asked.items():
                    took.append(_took(api, path))
    of_tokens, of_stats, of_columns, of_timeline = asked.values()
    yield best("API: 1,000 token events as JSON", of_tokens, 20.0, "ms")
    yield best("API: streaming-stats of a run with 100 calls", of_stats, 50.0, "ms")
    yield best("API: 10,000 token events as columns", of_columns, 100.0, "ms")
    yield best("API: timeline of a run with 100 calls and 200,000 events", of_timeline, 500.0, "ms")
    late = sorted(_told_late())
    spread = f"of {len(late)} events the 95th percentile {late[len(late) * 95 // 100]:.0f} ms, worst {late[-1]:.0f}"
    yield Row("API: from recorded in another process to told live, median", median(late), 500.0, "ms", spread)


def _took(api: object, path: str) -> float:
    start = time.perf_counter()
    answer = api.get(path)
    took = (time.perf_counter() - start) * 1e3
    assert answer.status_code == 200, answer.text
    return took


def _told_late() -> Iterator[float]:
    """How many ms after it was recorded each event was told."""
    with tempfile.TemporaryDirectory() as folder, _recorded(Path(folder) / "tape.db") as path:
        with serving(path) as server, Listener(server.url) as listener:
            subprocess.run([sys.executable, "-c", RECORD, str(path)], check=True)
            time.sleep(1)
        for message in listener.messages:
            if message.name == "tokens":
                yield from ((message.at - float(token)) * 1e3 for token in message.data["token"])


@contextmanager
def _recorded(path: Path) -> Iterator[Path]:
    """A tape on which something is already."""
    record = RECORD.replace("250", "1")
    subprocess.run([sys.executable, "-c", record, str(path)], check=True)
    yield path
