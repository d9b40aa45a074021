"""A program that records the same streams with whatever openai it finds, and prints what is on the tape as JSON.

Usage: python same_streams.py TAPE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import openai

import tokentape
from openai_surfaces import LINES, SURFACES, Surface, client_for
from surfaces import use
from tape_reader import TapeReader
from tokentape.testing import (
    Drop,
    ErrorEvent,
    Finish,
    HTTPError,
    Logprob,
    Ping,
    ProviderServer,
    Reasoning,
    Refusal,
    Role,
    Script,
    Summary,
    Text,
    ToolArgs,
    ToolCall,
    Usage,
)

WORDS = [Role(), Ping(), *(Text(word) for word in ("Hel", "lo, ", "wörld ", "👋"))]
RICH = [
    Role(),
    Reasoning("hm "),
    Reasoning("ah"),
    Text("so", logprobs=(Logprob("s", -0.5), Logprob("o", -0.25))),
    Refusal("no"),
    ToolCall(0, "call_1", "look"),
    ToolCall(1, "call_2", "see"),
    *(ToolArgs(index, piece) for piece in ('{"a":', "1}") for index in (0, 1)),
]
WHOLE = {"whole": [*WORDS, Finish("stop"), Usage(12, 6, cached=3)]}
EVERYWHERE = {
    "length": [*WORDS, Finish("length"), Usage(12, 6)],
    "no usage": [*WORDS, Finish("stop")],
    "no content": [Role(), Finish("content_filter")],
    "drop": [*WORDS, (0.05, Drop())],
    "error": [*WORDS, ErrorEvent("server_error", "it broke")],
    "refused": [HTTPError(401)],
}
ONLY = {
    "chat": {
        "rich": [*RICH, Finish("tool_calls"), Usage(30, 12, reasoning=4)],
        "choices": [Text("a", 0), Text("b", 1), Finish("length", 1), Finish("stop", 0)],
    },
    "responses": {
        "rich": [*RICH, Summary(0, "in short"), Summary(1, "again"), Finish("stop"), Usage(30, 12, reasoning=4)],
        "failed": [*WORDS, Finish("failed")],
    },
}
FAILING = ("drop", "error", "refused")
# What must not depend on the SDK's version. A failure's type does: openai 2 lets httpx's own through.
SAME = (
    "adapter, provider, operation, streaming, request_model, response_model, response_id, provider_request_id, status, "
    "finish_reason, http_status, retries, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, "
    "reasoning_hidden, token_count, token_count_source, chunk_count, event_count, request_json, response_meta_json"
)


def main(tape: Path) -> None:
    tokentape.enable(db=tape, content="full")
    names: list[str] = []
    for asynchronous in (False, True):
        for azure in (False, True):
            surfaces = [surface for surface in (*SURFACES, *LINES) if surface.azure is azure]
            names += use_all(surfaces, asynchronous, azure)
    found = dict(zip(names, calls(TapeReader(tape)), strict=True))
    json.dump({"openai": openai.__version__, "calls": found}, sys.stdout)


def use_all(surfaces: list[Surface], asynchronous: bool, azure: bool) -> list[str]:
    """Stream all that these surfaces can, with one client; the names of the calls in order."""
    names: list[str] = []

    async def read(client: Any) -> None:
        for surface in surfaces:
            for name, steps in scripts(surface).items():
                names.append(f"{surface.name}, {'async' if asynchronous else 'sync'}, {name}")
                server.add(Script(steps))
                try:
                    await surface.read(client)
                except Exception:
                    if name not in FAILING:
                        raise

    with ProviderServer() as server:
        use(client_for(server, asynchronous, azure), read)
    return names


def scripts(surface: Surface) -> dict[str, list[Any]]:
    """A whole answer through every surface, everything else where nothing stands between program and stream."""
    direct = surface.name.endswith((".create", ".lines"))
    return WHOLE | (EVERYWHERE | ONLY.get(surface.operation, {}) if direct else {})


def calls(tape: TapeReader) -> list[dict[str, Any]]:
    return [
        row | {"parts": tape.rows("select * from llm_parts where call_id = ? order by part", row["id"])}
        for row in tape.rows(f"select id, {SAME} from llm_calls order by id")
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
