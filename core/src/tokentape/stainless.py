"""The seams that OpenAI's and Anthropic's SDKs share, being made by one generator: request, attempt, response, stream.

All private names of those SDKs stand here. Nothing of the SDK or of an HTTP library is imported: classes come from the
module that is patched, HTTP responses are told by their attributes.

- `request` opens a call before the retry loop and keeps it in a context variable for as long as the request takes;
- `_build_request` runs once an attempt, `_should_retry` after one that was refused;
- `_process_response` hangs the call on the HTTP response and watches the response's bytes being closed;
- `__stream__`, which every stream object iterates, finds the call there and is given a tap;
- where the program reads the bytes itself, there is no stream object, and they are what is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, Final

from . import faults, heartbeat
from .call import CallRecorder, Request
from .patching import PatchSet
from .raw_reads import EventKind, RawReads
from .reading import DEPTH, string
from .recorder import Recorder
from .taps import AsyncStreamTap, Reader, StreamTap
from .transport import watch_bytes

# Set while a request is being sent and never across a yield; `parse()` of a raw response runs later, so it goes by the
# attribute on the response instead.
_SENDING: ContextVar[CallRecorder | None] = ContextVar("tokentape_sending", default=None)
CALL_ATTRIBUTE: Final = "_tokentape_call"


@dataclass(frozen=True, slots=True)
class Surface:
    """What an adapter knows of its SDK.

    Attributes:
        adapter: the adapter's name.
        operation: what a request asks for, by its method (in lower case), its path and whether it streams; None when it
            does not go to a model.
        provider: who is behind a client, by its class and host.
        scalars: the parameters of a request's body that may be kept.
        reader: makes the reader of a call's chunks.
        event_kind: what the SDK's stream makes of an event with this name and JSON: a chunk, an exception, or nothing.
        read_body: reads the JSON object of an answer that was not streamed, on the writer thread.
        request_id_headers: the response headers that may hold the provider's request id; the first there is counts.
        is_kept_header: whether a response header (in lower case) may be kept.
    """

    adapter: str
    operation: Callable[[str, str, bool], str | None]
    provider: Callable[[type, str | None], str]
    scalars: Callable[[Mapping[str, Any]], dict[str, Any]]
    reader: Callable[[CallRecorder], Reader]
    event_kind: Callable[[str | None, Any], EventKind]
    read_body: Callable[[CallRecorder, dict[str, Any]], None]
    request_id_headers: tuple[str, ...]
    is_kept_header: Callable[[str], bool]


class Seams:
    """Patches one SDK and leads its requests to a recorder."""

    def __init__(self, recorder: Recorder, surface: Surface) -> None:
        self._recorder = recorder
        self._surface = surface
        # A program asks the same few endpoints with the same few kinds of clients again and again.
        self._operation = lru_cache(maxsize=64)(partial(_operation, surface))
        self._provider = lru_cache(maxsize=64)(surface.provider)

    def patch(self, patches: PatchSet, base_client: ModuleType, streaming: ModuleType) -> None:
        """Patch the SDK's `_base_client` and `_streaming` modules."""
        patches.wrap(base_client, "SyncAPIClient.request", self._request)
        patches.wrap(base_client, "AsyncAPIClient.request", self._async_request)
        patches.wrap(base_client, "BaseClient._build_request", self._build_request)
        patches.wrap(base_client, "BaseClient._should_retry", self._should_retry)
        patches.wrap(base_client, "SyncAPIClient._process_response", self._process_response)
        patches.wrap(base_client, "AsyncAPIClient._process_response", self._process_response)
        patches.wrap(streaming, "Stream.__stream__", partial(self._stream, StreamTap))
        patches.wrap(streaming, "AsyncStream.__stream__", partial(self._stream, AsyncStreamTap))

    def _request(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._open(client, args, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        token = _SENDING.set(call)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as exc:
            self._failed(call, exc)
            raise
        finally:
            _SENDING.reset(token)
        self._sent(call, result)
        return result

    async def _async_request(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = self._open(client, args, kwargs, heartbeat.watch)
        if call is None:
            return await wrapped(*args, **kwargs)
        token = _SENDING.set(call)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as exc:
            self._failed(call, exc)
            raise
        finally:
            _SENDING.reset(token)
        self._sent(call, result)
        return result

    def _build_request(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = _SENDING.get()
        if call is not None:
            try:
                call.saw_attempt()
            except Exception as fault:
                self._fault(fault, "an attempt")
        return wrapped(*args, **kwargs)

    def _should_retry(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        again = wrapped(*args, **kwargs)
        call = _SENDING.get()
        if call is not None and again:
            with faults.guard(f"{self._surface.adapter} adapter", "the status of a failed attempt"):
                response = args[0] if args else kwargs["response"]
                call.response_meta.setdefault("retry_statuses", []).append(response.status_code)
        return again

    def _process_response(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call, response = _SENDING.get(), kwargs.get("response")
        # Beneath middleware Anthropic's SDK comes here with refused attempts too.
        if call is not None and response is not None and not response.is_error:
            try:
                self._responded(call, response)
            except Exception as fault:
                self._fault(fault, "a response's headers")
        return wrapped(*args, **kwargs)

    def _stream(
        self, tap: Callable[..., Any], wrapped: Any, stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        iterator = wrapped(*args, **kwargs)
        try:
            # SDKs that make the iterator with the stream are still inside `request` when middleware made the response.
            call = getattr(stream.response, CALL_ATTRIBUTE, None) or _SENDING.get()
            if call is None or call.raw is not None or not call.is_open:
                return iterator  # of bytes that the program has read itself, which are recorded
            return tap(iterator, call, self._surface.reader(call))
        except Exception as fault:
            self._fault(fault, "a stream")
            return iterator

    def _open(
        self,
        client: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        watch: Callable[[CallRecorder], None] | None = None,
    ) -> CallRecorder | None:
        try:
            options = args[1] if len(args) > 1 else kwargs["options"]
            request = self._describe(client, options, bool(kwargs.get("stream")))
            call = None if request is None else self._recorder.start(request)
            if call is not None and watch is not None:
                watch(call)
            return call
        except Exception as fault:
            self._fault(fault, "a call")
            return None

    def _describe(self, client: Any, options: Any, streaming: bool) -> Request | None:
        """Read a request's options; None when it does not go to a model."""
        operation = self._operation(str(options.method), str(options.url), streaming)
        if operation is None:
            return None
        body = _request_body(options)
        host = getattr(getattr(client, "base_url", None), "host", None) or None
        choices = body.get("n")
        return Request(
            adapter=self._surface.adapter,
            operation=operation,
            provider=self._provider(type(client), host),  # type: ignore[arg-type]  # it can be hashed, as every class can
            model=string(body.get("model")),
            server_address=host,
            streaming=streaming,
            scalars=self._surface.scalars(body),
            body=body or None,
            choices=choices if isinstance(choices, int) and choices > 0 else 1,
        )

    def _responded(self, call: CallRecorder, response: Any) -> None:
        call.saw_response(response.status_code)
        self._read_headers(call, response.headers)
        if response.is_closed:
            # Read to its end before the SDK handed it over: an answer that is not streamed.
            call.late = partial(self._read_body, call, response.content)
            return
        setattr(response, CALL_ATTRIBUTE, call)
        encoding = response.headers.get("content-encoding")
        if call.request.streaming:
            reader = partial(self._read_raw, call, response.headers.get("content-type"), encoding)
        else:
            reader = partial(self._keep_body, call, type(response), encoding)
        call.watched = watch_bytes(response, call, reader)

    def _read_raw(self, call: CallRecorder, content_type: str | None, encoding: str | None) -> Reader:
        """The program reads an event stream itself."""
        call.raw = RawReads(call, self._surface.reader(call), self._surface.event_kind, content_type, encoding)
        return call.raw.add

    def _keep_body(self, call: CallRecorder, kind: Any, encoding: str | None) -> Reader:
        """The program reads an answer in one piece itself; the SDK does so too where it is to parse it."""
        body: list[bytes] = []
        call.late = partial(self._read_late, call, kind, encoding, body)
        return lambda data, asked_ns, at_ns: body.append(data)

    def _read_late(self, call: CallRecorder, kind: Any, encoding: str | None, body: list[bytes]) -> None:
        """Read an answer in one piece, if the program has read it to the end."""
        if call.status == "completed":
            # Another response of the same library undoes the compression.
            headers = {"content-encoding": encoding} if encoding else {}
            self._read_body(call, kind(200, headers=headers, content=b"".join(body)).content)

    def _read_body(self, call: CallRecorder, content: bytes) -> None:
        """Read an answer in one piece; one that is not the expected JSON says nothing."""
        try:
            body = json.loads(content)
        except ValueError:
            return
        if isinstance(body, dict):
            self._surface.read_body(call, body)

    def _read_headers(self, call: CallRecorder, headers: Mapping[str, str]) -> None:
        names = self._surface.request_id_headers
        call.request_id = next((headers[name] for name in names if name in headers), None)
        kept = self._surface.is_kept_header
        call.response_meta.update((name.lower(), value) for name, value in headers.items() if kept(name.lower()))

    def _sent(self, call: CallRecorder, result: Any) -> None:
        """The SDK is about to hand over what `request` returns."""
        try:
            response = getattr(result, "http_response", getattr(result, "response", None))
            if call.request.streaming and response is not None and not hasattr(response, CALL_ATTRIBUTE):
                # Middleware has put another response in the place of the one that came.
                setattr(response, CALL_ATTRIBUTE, call)
            if call.request.streaming or call.watched:
                if call.raw is None:  # else middleware has read it by now
                    call.saw_stream()
            else:
                call.end("completed")
        except Exception as fault:
            self._fault(fault, "a call's start or end")

    def _failed(self, call: CallRecorder, exc: BaseException) -> None:
        """No stream came into being: refused, unreachable, or cancelled while waiting."""
        try:
            response = getattr(exc, "response", None)
            if response is not None:
                self._read_headers(call, response.headers)
            call.end_by(exc)
        except Exception as fault:
            self._fault(fault, "how a call ended")

    def _fault(self, fault: Exception, lost: str) -> None:
        faults.report(f"{self._surface.adapter} adapter", fault, lost)


def _operation(surface: Surface, method: str, url: str, streaming: bool) -> str | None:
    return surface.operation(method.lower(), url.partition("?")[0].rstrip("/"), streaming)


def _request_body(options: Any) -> dict[str, Any]:
    """The request's JSON as it will be sent: the SDK merges `extra_body` in only after `request` was called."""
    json_data, extra = options.json_data, getattr(options, "extra_json", None)
    body = json_data if isinstance(json_data, dict) else {}
    return {**body, **extra} if extra and isinstance(extra, Mapping) else body


def scalars(body: Mapping[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """The parameters of a request that may be kept: of these names, those that hold one plain value."""
    return {name: value for name, value in body.items() if name in names and isinstance(value, (str, int, float, bool))}


def plain(value: Any, depth: int = DEPTH) -> Any:
    """Turn the SDK's model objects into plain JSON values, so that none of them has to be kept.

    Args:
        depth: how many levels are kept; what is below is null.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if not depth:
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    own = getattr(value, "__dict__", None)
    if own is None:
        return str(value)
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return {key: plain(item, depth - 1) for key, item in {**own, **extra}.items()}
