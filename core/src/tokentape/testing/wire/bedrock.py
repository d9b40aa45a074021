"""Anthropic's messages as Amazon Bedrock streams them: each event in a binary message of AWS's event stream."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from typing import Any, Final

from .anthropic_messages import Messages
from .base import to_json

_PATH: Final = re.compile(r"/model/[^/]+/invoke(-with-response-stream)?$")


class BedrockMessages(Messages):
    """`POST /model/{model}/invoke`, and `…/invoke-with-response-stream`."""

    content_type = "application/vnd.amazon.eventstream"
    request_id_header = "x-amzn-requestid"

    @classmethod
    def endpoint(cls, path: str) -> str | None:
        """That of messages: a script for one is a script for the other."""
        return cls.path if _PATH.search(path) else None

    @property
    def streams(self) -> bool:
        """Whether the path asks for a stream; the body does not say."""
        return self.request.path.endswith("-stream")

    def frame(self, data: Any) -> bytes:
        """One message; an error is told by its headers."""
        if isinstance(data, dict) and data.get("type") == "error":
            error = data["error"]
            headers = {":message-type": "exception", ":exception-type": error["type"]}
            return _message(headers, {"message": error["message"]})
        payload = {"bytes": base64.b64encode(to_json(data)).decode()}
        return _message({":message-type": "event", ":event-type": "chunk"}, payload)


def _message(headers: dict[str, str], payload: dict[str, Any]) -> bytes:
    """A message: its length and that of its headers, their checksum, headers, payload, the checksum of it all."""
    head = b"".join(_header(name, value) for name, value in {**headers, ":content-type": "application/json"}.items())
    body = to_json(payload)
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + body
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    # Seven is the type of a string.
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
