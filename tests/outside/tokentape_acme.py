"""Connects the made-up SDK to tokentape, as somebody outside this project would."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import tokentape
from tokentape import heartbeat
from tokentape.call import CallRecorder, Fragment, Request
from tokentape.models import Usage
from tokentape.patching import PatchSet, patch_when_imported
from tokentape.recorder import Recorder
from tokentape.taps import AsyncStreamTap, Reader, StreamTap
from tokentape.transport import watch_bytes

SENDING: ContextVar[CallRecorder | None] = ContextVar("acme_sending", default=None)


@tokentape.hookimpl
def tokentape_install(recorder: Recorder) -> Callable[[], None]:
    def patch(patches: PatchSet, acme: ModuleType) -> None:
        seams = Seams(recorder)
        patches.wrap(acme, "Client._send", seams.send)
        patches.wrap(acme, "AsyncClient._send", seams.send_async)
        patches.wrap(acme, "Client._attempt", seams.attempt)
        patches.wrap(acme, "AsyncClient._attempt", seams.attempt)
        patches.wrap(acme, "Stream._read", seams.read)
        patches.wrap(acme, "AsyncStream._read", seams.read_async)

    return patch_when_imported("acme", "acme", ">=1,<2", patch)


class Seams:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def send(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        call = self._start(args[0])
        if call is None:
            return wrapped(*args)
        token = SENDING.set(call)
        try:
            return answered(call, wrapped(*args))
        except BaseException as exc:
            call.end_by(exc)
            raise
        finally:
            SENDING.reset(token)

    async def send_async(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        call = self._start(args[0])
        if call is None:
            return await wrapped(*args)
        heartbeat.watch(call)
        token = SENDING.set(call)
        try:
            return answered(call, await wrapped(*args))
        except BaseException as exc:
            call.end_by(exc)
            raise
        finally:
            SENDING.reset(token)

    def attempt(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        call = SENDING.get()
        if call is not None:
            call.saw_attempt()
        return wrapped(*args)

    def read(self, wrapped: Any, stream: Any, args: Any, kwargs: Any) -> Any:
        call = getattr(stream.response, "acme_call", None)
        return wrapped() if call is None else StreamTap(wrapped(), call, reader(call))

    def read_async(self, wrapped: Any, stream: Any, args: Any, kwargs: Any) -> Any:
        call = getattr(stream.response, "acme_call", None)
        return wrapped() if call is None else AsyncStreamTap(wrapped(), call, reader(call))

    def _start(self, body: dict[str, Any]) -> CallRecorder | None:
        return self._recorder.start(Request("acme", "chat", "acme", body["model"]))


def answered(call: CallRecorder, response: Any) -> Any:
    call.saw_response(response.status_code)
    call.carry_ns = call.clock.monotonic_ns() - call.start_ns
    response.acme_call = call
    call.watched = watch_bytes(response, call)
    return response


def reader(call: CallRecorder) -> Reader:
    def read(chunk: dict[str, Any], asked_ns: int, at_ns: int) -> None:
        text = chunk.get("text")
        call.add_chunk(asked_ns, at_ns, [Fragment(call.part("text"), text)] if text else [])
        if "finish" in chunk:
            call.finish_reasons[0] = chunk["finish"]
            call.terminal = True
        if "tokens" in chunk:
            read_in, cached, written = chunk["tokens"]
            call.usage_counts = Usage(read_in, cached, output_tokens=written)

    return read
