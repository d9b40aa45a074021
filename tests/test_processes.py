"""Fifty streams at once, and the process ends: what is on the tape, what is missing, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from array import array
from pathlib import Path

import pytest

from programs import CLIENT, Program, eventually
from tokentape.process import is_alive
from tokentape.tape import Tape
from tokentape.testing import Finish, ProviderServer, Script, Text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

STREAMS = 50
EVENTS = 400
FLUSH_MS = 250
# What may be missing beyond `flush_ms`: the round of the writer itself, on a machine that leaves it some CPU.
ROUND_MS = 100
SAYS = [f"word{i} " for i in range(EVENTS)]

# Every reader notes when it had which event, in memory that outlives the process. One more thread notes for how long of
# the last second it could not run although it wanted to: nor could the writer.
NOTES = f"""
import asyncio, collections, mmap, signal, struct, threading

notes = mmap.mmap(os.open(os.environ["NOTES"], os.O_RDWR), {(STREAMS * EVENTS + 2) * 8})

def note(stream, index):
    struct.pack_into("d", notes, (stream * {EVENTS} + index) * 8, time.monotonic())

def witness():
    late = collections.deque(maxlen=100)
    while True:
        due = time.monotonic() + 0.01
        time.sleep(0.01)
        late.append(time.monotonic() - due)
        struct.pack_into("d", notes, {STREAMS * EVENTS * 8}, sum(late))

def at_end():
    struct.pack_into("d", notes, {(STREAMS * EVENTS + 1) * 8}, time.monotonic())

threading.Thread(target=witness, daemon=True).start()
signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))
tokentape.enable(flush_ms={FLUSH_MS})
"""

WITH_ASYNCIO = f"""
client = openai.AsyncOpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)

async def read(stream):
    index = 0
    async for chunk in await ask(f"m-{{stream:02}}"):
        if chunk.choices and chunk.choices[0].delta.content:
            note(stream, index)
            index += 1

async def main():
    readers = [asyncio.ensure_future(read(stream)) for stream in range({STREAMS})]
    try:
        await asyncio.wait(readers, timeout=TIMEOUT)
    finally:
        END

asyncio.run(main())
"""

WITH_THREADS = f"""
def read(stream):
    index = 0
    for chunk in ask(f"m-{{stream:02}}"):
        if chunk.choices and chunk.choices[0].delta.content:
            note(stream, index)
            index += 1

readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in range({STREAMS})]
[reader.start() for reader in readers]
try:
    readers[0].join(TIMEOUT)
finally:
    END
"""


class Fifty:
    """A program that reads fifty streams at once, and what it has noted of them."""

    def __init__(
        self, folder: Path, server: ProviderServer, code: str, *, timeout: float = 60, end: str = "pass"
    ) -> None:
        # Fifty threads that read fifty events a second each would leave the interpreter to nobody.
        pace_s = 0.02 if code == WITH_ASYNCIO else 0.1
        server.add(Script([(pace_s, Text(text)) for text in SAYS] + [Finish("stop")], repeat=True))
        self._notes = folder / "notes"
        self._notes.write_bytes(bytes((STREAMS * EVENTS + 2) * 8))
        code = CLIENT + NOTES + code.replace("TIMEOUT", str(timeout)).replace("END", end)
        self.program = Program(folder, code, server=server.url, environment={"NOTES": str(self._notes)})

    def received(self) -> list[list[float]]:
        """When each stream's events came to the program, as far as they did."""
        times = self._times()
        streams = [times[stream * EVENTS : (stream + 1) * EVENTS] for stream in range(STREAMS)]
        return [[at for at in stream if at] for stream in streams]

    def ended_s(self) -> float:
        """When the program began to end: by itself, or by an exception."""
        return self._times()[-1]

    def late_s(self) -> float:
        """For how long of its last second a thread of the program could not run although it wanted to."""
        return self._times()[-2]

    def on_tape(self) -> list[str]:
        """The text of each stream's events on the tape."""
        rows = self.program.rows(
            "select c.request_model, (select group_concat(token, '') from llm_tokens t where t.call_id = c.id) as text "
            "from llm_calls c order by c.request_model"
        )
        assert [row["request_model"] for row in rows] == [f"m-{stream:02}" for stream in range(STREAMS)]
        return [row["text"] or "" for row in rows]

    def run_for(self, words: int) -> subprocess.Popen[str]:
        """Start it, and wait until every stream has brought so many words."""
        process = self.program.start()
        eventually(self.received, lambda all_: min(map(len, all_)) >= words or process.poll() is not None, within=60)
        return process

    def wait_for_rounds(self) -> None:
        """Wait until the writer has had some of each stream; opening fifty calls takes it longer than what follows."""
        written = f"select count(*) as n from llm_calls where event_count >= 10 having n = {STREAMS}"
        assert eventually(lambda: self.program.rows(written), bool, within=60)

    def _times(self) -> array[float]:
        times = array("d")
        times.frombytes(self._notes.read_bytes())
        return times


def assert_no_more_is_missing_than_promised(fifty: Fifty, ended_s: float) -> None:
    """Age of what is missing when the process ended: of the last events of each stream, without an undecided word."""
    ages = []
    for arrived, text in zip(fifty.received(), fifty.on_tape(), strict=True):
        kept = text.count(" ")
        # In order, from the first on, and each once.
        assert text == "".join(SAYS[:kept])
        missing = arrived[kept + 1 :]
        ages.append((ended_s - missing[0]) * 1000 if missing else 0.0)
    could_not_run_ms = fifty.late_s() * 1000
    print(f"oldest event missing: {max(ages):.0f} ms; could not run: {could_not_run_ms:.0f} ms of the last second")
    assert max(ages) <= FLUSH_MS + ROUND_MS + could_not_run_ms


def assert_each_is_accounted_for(fifty: Fifty) -> None:
    with Tape.open(fifty.program.tape) as tape:
        assert tape.mark_lost() == STREAMS
    assert fifty.program.rows(
        "select status, count(*) as calls, sum(first_token_latency_ms > 0 and inter_chunk_max_ms > 0 "
        "and events_per_second > 0 and ended_at is null) as measured from llm_calls group by status"
    ) == [{"status": "lost", "calls": STREAMS, "measured": STREAMS}]
    assert fifty.program.rows("select distinct status from runs") == [{"status": "lost"}]
    assert [
        part["content"]
        for part in fifty.program.rows(
            "select p.content from llm_parts p join llm_calls c on c.id = p.call_id order by c.request_model"
        )
    ] == fifty.on_tape()
    assert fifty.program.rows("pragma integrity_check") == [{"integrity_check": "ok"}]
    assert fifty.program.rows("pragma foreign_key_check") == []


@pytest.mark.scenario("capture/Killed during fifty streams")
@pytest.mark.parametrize(
    ("code", "number"),
    [
        (WITH_ASYNCIO, signal.SIGKILL),
        (WITH_THREADS, signal.SIGKILL),
        (WITH_ASYNCIO, signal.SIGTERM),
        (WITH_ASYNCIO, signal.SIGUSR1),
    ],
    ids=["asyncio, SIGKILL", "threads, SIGKILL", "asyncio, SIGTERM", "asyncio, os._exit"],
)
def test_killed_during_fifty_streams(server: ProviderServer, tmp_path: Path, code: str, number: signal.Signals) -> None:
    fifty = Fifty(tmp_path, server, code)
    with fifty.run_for(words=20) as process:
        fifty.wait_for_rounds()
        with Tape.open(fifty.program.tape) as tape:
            assert tape.mark_lost() == 0  # it is alive
        ended_s = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == (3 if number == signal.SIGUSR1 else -number)
    assert_no_more_is_missing_than_promised(fifty, ended_s)
    assert_each_is_accounted_for(fifty)


@pytest.mark.nightly
@pytest.mark.parametrize("code", [WITH_ASYNCIO, WITH_THREADS], ids=["asyncio", "threads"])
def test_killed_at_any_moment_of_fifty_streams(server: ProviderServer, tmp_path: Path, code: str) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        fifty = Fifty(folder, server, code)
        with fifty.run_for(words=20) as process:
            fifty.wait_for_rounds()
            time.sleep(number * FLUSH_MS / 20 / 1000)  # at each phase of the writer's round
            ended_s = time.monotonic()
            process.kill()
            process.wait(30)
        assert_no_more_is_missing_than_promised(fifty, ended_s)
        assert_each_is_accounted_for(fifty)


@pytest.mark.scenario("capture/Ends during fifty streams")
@pytest.mark.parametrize(
    ("code", "ending", "status"),
    [
        (WITH_ASYNCIO, "falls off the end", "cancelled"),
        (WITH_ASYNCIO, "Ctrl-C", "cancelled"),
        (WITH_THREADS, "falls off the end", "abandoned"),
    ],
    ids=["asyncio, end", "asyncio, Ctrl-C", "threads, end"],
)
def test_an_ordinary_end_during_fifty_streams(
    server: ProviderServer, tmp_path: Path, code: str, ending: str, status: str
) -> None:
    fifty = Fifty(tmp_path, server, code, timeout=60 if ending == "Ctrl-C" else 1.5, end="at_end()")
    with fifty.run_for(words=5) as process:
        if ending == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    kept = [text.count(" ") for text in fifty.on_tape()]
    # Threads go on for a moment while the program ends, and asyncio reads no more once its tasks are cancelled.
    at_end = [sum(at <= fifty.ended_s() for at in arrived) for arrived in fifty.received()]
    assert [count >= had for count, had in zip(kept, at_end, strict=True)] == [True] * STREAMS
    assert [count <= len(arrived) + 1 for count, arrived in zip(kept, fifty.received(), strict=True)] == [
        True
    ] * STREAMS
    assert [text == "".join(SAYS[:count]) for text, count in zip(fifty.on_tape(), kept, strict=True)] == [
        True
    ] * STREAMS
    assert fifty.program.rows("select status, count(*) as calls from llm_calls group by status") == [
        {"status": status, "calls": STREAMS}
    ]
    assert fifty.program.rows("pragma integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.scenario("capture/Pid used again")
def test_a_call_of_a_killed_process_is_lost_although_its_pid_is_in_use(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([Text("word0 "), Text("word1 "), (60, Finish("stop"))], repeat=True))
    code = (
        CLIENT
        + "tokentape.enable(flush_ms=20)\nstream = ask()\ntake(stream, 2)\nprint('two', flush=True)\nnext(stream)"
    )
    program = Program(tmp_path, code, server=server.url)
    with program.start() as killed, program.start() as alive:
        for process in (killed, alive):
            assert process.stdout is not None
            process.stdout.readline()
        on_tape = "select count(*) as n from llm_calls where event_count = 2"
        eventually(lambda: program.rows(on_tape), lambda rows: rows == [{"n": 2}])
        killed.kill()
        killed.wait(30)
        with Tape.open(program.tape) as tape:
            # As if the living one had got the pid of the killed one.
            tape_process = program.rows(f"select * from processes where pid = {killed.pid}")[0]
            assert not is_alive(tape_process | {"pid": alive.pid, "pid_started_at": "2026-01-01T00:00:00.000000Z"})
            assert is_alive(program.rows(f"select * from processes where pid = {alive.pid}")[0])
            assert tape.mark_lost() == 1
        rows = program.rows(
            "select p.pid, c.status, c.first_token_latency_ms > 0 as measured from llm_calls c "
            "join processes p on p.id = c.process_id"
        )
        assert {row["pid"]: (row["status"], row["measured"]) for row in rows} == {
            killed.pid: ("lost", 1),
            alive.pid: ("running", None),
        }
        alive.kill()


SERVERLESS = (
    CLIENT
    + """
tokentape.enable(flush_ms=60_000)
half_read = ask()
take(half_read, 2)
for chunk in ask():
    pass
print(tokentape.flush(10), flush=True)
time.sleep(60)
"""
)


@pytest.mark.scenario("capture/Frozen after a flush")
def test_what_was_flushed_survives_a_freeze_and_a_kill(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([*map(Text, SAYS[:5]), Finish("stop")], repeat=True))
    program = Program(tmp_path, SERVERLESS, server=server.url)
    with program.start() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGSTOP)
        rows = (
            "select status, (select count(*) from llm_tokens where call_id = c.id) as events "
            "from llm_calls c order by id"
        )
        frozen = program.rows(rows)
        with Tape.open(program.tape) as tape:
            assert tape.mark_lost() == 0  # frozen is not dead
        process.kill()
        process.wait(30)
    assert frozen == [{"status": "running", "events": 2}, {"status": "completed", "events": 5}]
    with Tape.open(program.tape) as tape:
        assert tape.mark_lost() == 1
    assert program.rows(rows) == [{"status": "lost", "events": 2}, {"status": "completed", "events": 5}]


JOBS = (
    CLIENT
    + """
import signal

def job(number):
    client = globals()["client"] = openai.OpenAI(base_url=os.environ["SERVER"], api_key="none", max_retries=0)
    with tokentape.run(f"job-{number}"):
        for chunk in ask(f"m-{number}"):
            pass
    AFTER

def work(number):
    child = os.fork()
    if child:
        deadline = time.monotonic() + 30
        while not os.waitpid(child, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                raise SystemExit(f"job {number} hangs")
            time.sleep(0.01)
        return
    try:
        job(number)
    finally:
        os._exit(0)

tokentape.enable(flush_ms=50)
BEFORE
for number in range(3):
    work(number)
"""
)


@pytest.mark.scenario("capture/Worker that forks for each job")
@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("pass", "assert tokentape.flush(10)", {"completed"}),
        ("list(ask('m-parent'))", "assert tokentape.flush(10)", {"completed"}),
        ("list(ask('m-parent'))", "time.sleep(0.5)", {"completed"}),
        # Without a flush the end of a job that is left at once is what the interval may cost.
        ("list(ask('m-parent'))", "pass", {"completed", "lost"}),
    ],
    ids=["flush", "flush, the parent has recorded", "longer than the interval", "at once"],
)
def test_a_worker_that_forks_for_each_job(
    server: ProviderServer, tmp_path: Path, before: str, after: str, status: set[str]
) -> None:
    paced = [(0.05, Text(text)) for text in SAYS[:6]]
    server.add(Script([*paced, Finish("stop")], repeat=True))
    program = Program(tmp_path, JOBS.replace("AFTER", after).replace("BEFORE", before), server=server.url)
    ran = program.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    with Tape.open(program.tape) as tape:
        tape.mark_lost()
    rows = program.rows(
        "select r.name as run, c.request_model as model, c.status, p.pid, c.event_count from llm_calls c "
        "join runs r on r.id = c.run_id join processes p on p.id = c.process_id where c.request_model <> 'm-parent' "
        "order by c.request_model"
    )
    assert [(row["run"], row["model"]) for row in rows] == [(f"job-{n}", f"m-{n}") for n in range(3)]
    assert {row["status"] for row in rows} <= status
    assert len({row["pid"] for row in rows}) == 3
    # 0.3 s of answer, of which a twentieth of a second and a round of the writer may be missing, and a word.
    assert min(row["event_count"] for row in rows) >= (6 if status == {"completed"} else 1)
    assert program.rows("pragma integrity_check") == [{"integrity_check": "ok"}]


FORKS_AMONG_THREADS = (
    CLIENT
    + """
import threading

tokentape.enable(flush_ms=5)
going = True

def stream():
    while going:
        for chunk in ask("m-parent"):
            pass

threads = [threading.Thread(target=stream) for _ in range(8)]
[thread.start() for thread in threads]
hung = 0
for number in range(20):
    time.sleep(0.02)
    child = os.fork()
    if not child:
        try:
            with tokentape.start_llm_stream(model=f"m-{number:02}") as recorded:
                recorded.add_token("Hi")
            os._exit(0 if tokentape.flush(20) else 7)
        finally:
            os._exit(8)
    deadline = time.monotonic() + 30
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0] or ended[1]:
        hung += 1
        os.kill(child, 9)
going = False
[thread.join(30) for thread in threads]
print(hung)
"""
)


@pytest.mark.scenario("capture/Forked while threads record")
def test_forks_while_threads_record(server: ProviderServer, tmp_path: Path) -> None:
    server.add(Script([(0.005, Text(text)) for text in SAYS[:10]] + [Finish("stop")], repeat=True))
    program = Program(tmp_path, FORKS_AMONG_THREADS, server=server.url)
    ran = program.run(timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "0\n"), ran.stderr
    children = program.rows(
        "select request_model, status, event_count from llm_calls where request_model <> 'm-parent'"
    )
    assert sorted(tuple(row.values()) for row in children) == [(f"m-{n:02}", "completed", 1) for n in range(20)]
    of_parent = program.rows(
        "select status, event_count, count(distinct process_id) as processes from llm_calls "
        "where request_model = 'm-parent' group by status, event_count"
    )
    assert of_parent == [{"status": "completed", "event_count": 10, "processes": 1}]
    assert program.rows("select count(*) as n, count(distinct pid) as pids from processes") == [{"n": 21, "pids": 21}]
    assert program.rows("pragma integrity_check") == [{"integrity_check": "ok"}]


POOL = """
import os
import tokentape
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

tokentape.enable(flush_ms=60_000)

def work(number):
    with tokentape.start_llm_stream(model=f"m-{number}") as recorded:
        recorded.add_token("Hi")
    return os.getpid()

if __name__ == "__main__":
    with tokentape.start_llm_stream(model="m-parent"):
        pass
    context = multiprocessing.get_context("METHOD")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert os.getpid() not in set(pool.map(work, range(6)))
"""


@pytest.mark.scenario("capture/Forked child")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes_loses_nothing(tmp_path: Path, method: str) -> None:
    program = Program(tmp_path, POOL.replace("METHOD", method))
    ran = program.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = program.rows("select request_model, status, event_count from llm_calls order by request_model")
    assert [tuple(row.values()) for row in rows] == [
        *((f"m-{number}", "completed", 1) for number in range(6)),
        ("m-parent", "completed", 0),
    ]
