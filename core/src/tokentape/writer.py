"""The one thread of a process that takes what was recorded and calls the hooks with it, in order and in batches.

Every `flush_ms`, counted from when it last began, it takes the events that have gathered in the open calls: so what is
not on the tape is no older than that and one round. It never holds anything that the caller's thread could wait for,
and gives way between slices, because both share the interpreter.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from . import faults
from .call import STRIDE, CallRecorder
from .courtesy import give_way
from .fragments import Extra
from .models import CONTENT_LEVELS, Call, Mark, Run, TokenBatch
from .outcome import Seen, finished
from .plugins import PluginHost
from .recorder import Recorder
from .redaction import BUILT_IN, CallRedactor, Gate, Rules

# As many events as can be taken apart and redacted in a fifth of a millisecond, for which chunks may have to wait.
SLICE_EVENTS: Final = 128
# How long an idle writer sleeps before it looks again by itself.
IDLE_S: Final = 5.0
# Of `flush_ms` so much is left to others between two rounds, however long these take.
PAUSE: Final = 0.5
# How soon a flush tries again while an output holds something back.
RETRY_S: Final = 0.05
# Waking up later than this means that the process, or this thread of it, was not running.
LATE_NS: Final = 100_000_000
MAX_PROMPT_BYTES: Final = 1_000_000
PROMPT_HEAD_CHARS: Final = 4096


@dataclass(slots=True)
class _Live:
    """What the writer keeps of a call it has announced."""

    call: Call
    gate: Gate
    redactor: CallRedactor | None
    parts: int = 0
    noted: int = 0
    seen: Seen = field(default_factory=Seen)


class Writer:
    """Drains a recorder into the hooks.

    Args:
        host: whose hooks are called.
        flush_ms: time from the beginning of one round to that of the next.
        stall_ms: a gap at least this long is a stall.
        holding: whether an output still holds something that it could not write.
        has_work_left: whether an output has more to do that nobody waits for.
        rules: what is a secret.
        stop_recording: called when a multiprocessing child ends, which is not told by `atexit`.
    """

    def __init__(
        self,
        host: PluginHost,
        *,
        flush_ms: float,
        stall_ms: float,
        holding: Callable[[], bool] = lambda: False,
        has_work_left: Callable[[], bool] = lambda: False,
        rules: Rules = BUILT_IN,
        stop_recording: Callable[[], object] = lambda: None,
    ) -> None:
        self.recorder: Recorder
        self.latest_ns = 0
        self._host = host
        self._flush_s = flush_ms / 1000
        self._stall_ms = stall_ms
        self._holding = holding
        self._gates = {level: Gate(level, rules) for level in CONTENT_LEVELS}
        self._has_work_left = has_work_left
        self._stop_recording = stop_recording
        self._reset()

    def _reset(self) -> None:
        self._live: dict[CallRecorder, _Live] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._round_done = threading.Condition()
        self._wake = threading.Event()
        self._idle = False
        self._stopping = False
        self._begun_s = 0.0
        self._rounds_begun = 0
        self._rounds_written = 0

    def notify(self) -> None:
        """A call was opened or has ended: start the thread, or wake it if it has gone to sleep."""
        if self._thread is None:
            self._start()
        elif self._idle:
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded so far has been handed to the hooks, and no output holds it back any more.

        Args:
            timeout: seconds to wait at the most.

        Returns:
            Whether that came in time.
        """
        if self._thread is None:
            return not self._holding()
        if threading.current_thread() is self._thread:
            return False
        deadline = time.monotonic() + timeout
        with self._round_done:
            # A round that is under way may have passed by what was just recorded: the next one is the one to wait for.
            wanted = self._rounds_begun + 1
            while self._rounds_written < wanted and (left := deadline - time.monotonic()) > 0:
                self._wake.set()
                self._round_done.wait(min(left, RETRY_S))
            return self._rounds_written >= wanted

    def stop(self, timeout: float) -> bool:
        """Run a last round and end the thread.

        Args:
            timeout: seconds to wait at the most.

        Returns:
            Whether everything was handed over and written in that time.
        """
        thread = self._thread
        if thread is None or threading.current_thread() is thread:
            return not self._holding()
        self._stopping = True
        self._wake.set()
        thread.join(timeout)
        self._thread = None if not thread.is_alive() else thread
        return not thread.is_alive() and not self._holding()

    def forget(self) -> None:
        """Start anew in a forked child, which has no thread and must not touch what the parent's holds."""
        self._reset()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._loop, name="tokentape-writer", daemon=True)
                # There may be no thread to be had now; the next call tries again.
                with faults.guard("writer", "what is recorded, unless a thread can be started later"):
                    thread.start()
                    self._thread = thread
                    _finalize_in_multiprocessing_child(self._stop_recording)

    def _loop(self) -> None:
        self._begun_s = time.monotonic()
        while not self._stopping:
            self._wait()
            self._round()
        self._round()

    def _wait(self) -> None:
        if self.recorder.open or self._live or self._holding() or self._has_work_left():
            pause_s = max(self._begun_s + self._flush_s - time.monotonic(), PAUSE * self._flush_s)
            asleep_ns = self._now()
            if not self._wake.wait(pause_s) and asleep_ns is not None:
                self._note_lateness(asleep_ns + int(pause_s * 1e9), self._now())
        else:
            self._idle = True
            # Looked at after the flag is up: whoever queues something from here on wakes us.
            if not self.recorder.queue:
                self._wake.wait(IDLE_S)
            self._idle = False
        self._wake.clear()

    def _now(self) -> int | None:
        with faults.guard("writer", "how late it runs"):
            return self.recorder.clock.monotonic_ns()
        return None

    def _note_lateness(self, due_ns: int, now_ns: int | None) -> None:
        if now_ns is None:
            return
        late = now_ns - due_ns
        self.latest_ns = max(self.latest_ns, late)
        if late > LATE_NS:
            for call in list(self.recorder.open):
                call.blocked.append((due_ns, now_ns))

    def _round(self) -> None:
        self._begun_s = time.monotonic()
        with self._round_done:
            self._rounds_begun += 1
        try:
            self._take_queue()
            for recorded, live in list(self._live.items()):
                self._take_labels(recorded, live)
                self._take_events(recorded, live)
            self._host.call("tokentape_flush")
        except Exception as fault:
            faults.report("writer", fault, "a batch of events")
        finally:
            with self._round_done:
                if not self._holding():
                    self._rounds_written = self._rounds_begun
                self._round_done.notify_all()

    def _take_queue(self) -> None:
        queue = self.recorder.queue
        while queue:
            what, value = queue.popleft()
            with faults.guard("writer", f"a {what} event"):
                self._hand_over(what, value)
            give_way()

    def _hand_over(self, what: str, value: CallRecorder | Run | Mark) -> None:
        if isinstance(value, CallRecorder):
            self._announce(value) if what == "call_started" else self._finish(value)
        elif isinstance(value, Run):
            self._host.call(f"tokentape_{what}", run=self._gates["redacted"].given(value))
        else:
            self._host.call("tokentape_mark", mark=self._gates["redacted"].given(value))

    def _announce(self, recorded: CallRecorder) -> None:
        gate = self._gates[recorded.call.content_level]
        body, recorded.request.body, prompt = recorded.request.body, None, None
        with faults.guard("writer", "a prompt"):
            prompt = _prompt_json(body, gate)
        call = replace(gate.given(recorded.call), prompt_json=prompt)
        self._live[recorded] = _Live(call, gate, gate.redactor())
        self._host.call("tokentape_call_started", call=call)

    def _finish(self, recorded: CallRecorder) -> None:
        live = self._live.pop(recorded, None)
        if live is None:
            return
        self._take_labels(recorded, live)
        self._take_events(recorded, live)
        with faults.guard(f"{recorded.call.adapter} adapter", "a call's usage"):
            recorded.conclude()
        if live.redactor is not None:
            self._tokens(live, live.redactor.finish())
        call = finished(live.call, recorded, live.seen, self._stall_ms, live.gate)
        self._host.call("tokentape_call_finished", call=call)

    def _take_labels(self, recorded: CallRecorder, live: _Live) -> None:
        """Take the labels that a call got since it was announced."""
        if len(recorded.noted) > live.noted:
            noted = dict(recorded.noted)
            live.noted = len(noted)
            live.call = replace(live.call, labels={**live.call.labels, **live.gate.json(noted)})
            self._host.call("tokentape_call_labelled", call=live.call)

    def _take_events(self, recorded: CallRecorder, live: _Live) -> None:
        """Take the complete events from the front of a call's list, a slice at a time."""
        while recorded.raw is not None and recorded.raw.decode():
            give_way()
        rows = recorded.rows
        while True:
            count = min(len(rows) // STRIDE, SLICE_EVENTS)
            announced = recorded.parts[live.parts :]
            if not count and not announced:
                return
            taken = rows[: count * STRIDE]
            del rows[: count * STRIDE]
            live.parts += len(announced)
            batch = _batch(taken, recorded, live, tuple(map(live.gate.part, announced)))
            self._tokens(live, live.redactor.feed(batch) if live.redactor is not None else batch)
            give_way()

    def _tokens(self, live: _Live, batch: TokenBatch) -> None:
        if len(batch) or batch.parts:
            self._host.call("tokentape_tokens", call=live.call, tokens=batch)


def _batch(taken: list[Any], recorded: CallRecorder, live: _Live, parts: tuple[Any, ...]) -> TokenBatch:
    start, end = recorded.start_ns, recorded.end_ns
    if end:
        # What the SDK still hands over after the call has ended (it may have read ahead) is not part of it.
        while taken and taken[1 - STRIDE] > end:
            del taken[-STRIDE:]
    n_tokens: dict[int, int] = {}
    logprobs: dict[int, Any] = {}
    part = taken[2::STRIDE]
    if recorded.has_extras:
        part = _split_extras(part, n_tokens, logprobs, live.seen)
    arrived = taken[1::STRIDE]
    offset = [(at - start) // 1000 for at in arrived]
    wait = [(at - asked) // 1000 for asked, at in zip(taken[0::STRIDE], arrived, strict=True)]
    live.seen.offset_us.extend(offset)
    live.seen.wait_us.extend(wait)
    live.seen.part.extend(part)
    if live.call.content_level == "timings":
        return TokenBatch(offset, wait, part, [None] * len(part), parts=parts)
    return TokenBatch(offset, wait, part, taken[3::STRIDE], n_tokens, logprobs, parts)


def _split_extras(part: list[Any], n_tokens: dict[int, int], logprobs: dict[int, Any], seen: Seen) -> list[int]:
    first = not seen.offset_us
    for i, value in enumerate(part):
        if isinstance(value, Extra):
            part[i] = value.part
            if value.logprobs is not None:
                logprobs[i] = value.logprobs
            if value.n_tokens is not None:
                n_tokens[i] = value.n_tokens
                seen.counted_tokens += value.n_tokens
                seen.counted_events += 1
    if first:
        seen.first_n_tokens = n_tokens.get(0)
    return part


def _prompt_json(body: Any, gate: Gate) -> str | None:
    """A request body as JSON, as far as it may be kept; of one that is too large its size and its beginning."""
    if body is None or not gate.keeps_text:
        return None
    text, size = _encoded(body)
    if size <= MAX_PROMPT_BYTES:
        shown = gate.json(body)
        return text if shown is body else _encoded(shown)[0]
    return json.dumps({"truncated": True, "bytes": size, "head": gate.text(text, PROMPT_HEAD_CHARS)})


def _encoded(body: Any) -> tuple[str, int]:
    """The beginning of a body's JSON, at least as much as is kept of it, and how many bytes all of it has.

    Encoded piece by piece: in one go the encoder would not let go of the interpreter until a large body is done.
    """
    pieces: list[str] = []
    size = 0
    # Without spaces, as SDKs send it: the size is that of the request's body.
    for piece in json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).iterencode(body):
        if size <= MAX_PROMPT_BYTES:
            pieces.append(piece)
        size += len(piece.encode("utf-8", "replace"))
    return "".join(pieces), size


def _finalize_in_multiprocessing_child(stop_recording: Callable[[], object]) -> None:
    """Stop in good order when a multiprocessing child ends: such a child leaves without `atexit`."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        # Registered now, in the child: what was registered before the fork is wiped, and without a priority it never
        # runs.
        Finalize(None, stop_recording, exitpriority=10)
