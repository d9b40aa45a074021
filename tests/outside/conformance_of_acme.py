"""The suite, as an adapter's author runs it: a driver, and the wire format that the SDK speaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import acme
import tokentape_acme

import tokentape
from tokentape.testing import Event, Finish, Role, Text, Usage, Wire
from tokentape.testing.conformance import AdapterConformance
from tokentape.testing.wire.base import to_json

tokentape.register(tokentape_acme)


class Lines(Wire):
    """A JSON object a line."""

    path = "/ask"
    carries = (Role, Text, Finish, Usage)

    def frame(self, data: Any) -> bytes:
        return to_json(data) + b"\n"

    def frames(self, event: Event) -> Iterator[bytes]:
        match event:
            case Role():
                yield self.frame({})
            case Text(text):
                yield self.frame({"text": text})
            case Finish(reason):
                yield self.frame({"finish": reason})
            case Usage(read, written, cached=cached):
                yield self.frame({"tokens": [read, cached, written]})

    def end(self) -> Iterable[bytes]:
        return ()

    def body(self) -> Any:
        return {}

    @classmethod
    def error(cls, type_: str, message: str, code: str | None = None) -> Any:
        return {"error": message}


class Driver:
    model = "acme-1"
    kinds = frozenset({"text"})
    wires = (Lines,)

    def client(self, url: str, asynchronous: bool) -> Any:
        return (acme.AsyncClient if asynchronous else acme.Client)(url)

    def send(self, client: Any) -> Any:
        return client.ask(self.model)

    def text(self, chunk: Any) -> str:
        return chunk.get("text", "")

    def close_client(self, client: Any) -> Any:
        return client.close()


class TestAcme(AdapterConformance):
    driver = Driver()
