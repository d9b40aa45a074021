"""A program that records the same streams with whatever version of an SDK it finds, and prints the tape as JSON.

Usage: python same_streams.py SDK TAPE
"""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import tokentape
from surfaces import Surface, use
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
# What only one operation's events can carry.
ONLY = {
    "chat": {
        "rich": [*RICH, Finish("tool_calls"), Usage(30, 12, reasoning=4)],
        "choices": [Text("a", 0), Text("b", 1), Finish("length", 1), Finish("stop", 0)],
    },
    "text_completion": {},
    "responses": {
        "rich": [*RICH, Summary(0, "in short"), Summary(1, "again"), Finish("stop"), Usage(30, 12, reasoning=4)],
        "failed": [*WORDS, Finish("failed")],
    },
    "messages": {
        "rich": [
            *(Role(), Reasoning("hm "), Reasoning("ah"), Text("so")),
            *(ToolCall(0, "toolu_1", "look"), ToolArgs(0, '{"a":'), ToolArgs(0, "1}"), ToolCall(1, "toolu_2", "see")),
            *(Finish("tool_calls"), Usage(30, 12, cached=4, cache_write=3, reasoning=4)),
        ],
        "counted on the way": [Text("so"), Usage(9, 2), Text(" on"), Finish("stop"), Usage(9, 4)],
    },
}
FAILING = ("drop", "error", "refused")
# What must not depend on the SDK's version. A failure's type does: openai 2 lets httpx's own through.
SAME = (
    "adapter, provider, operation, streaming, request_model, response_model, response_id, provider_request_id, status, "
    "finish_reason, http_status, retries, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, "
    "reasoning_tokens, reasoning_hidden, token_count, token_count_source, chunk_count, event_count, request_json, "
    "response_meta_json"
)


def main(sdk: str, tape: Path) -> None:
    tokentape.enable(db=tape, content="full")
    known = import_module(f"{sdk}_surfaces")
    names: list[str] = []
    for kind in ("sync", "async"):
        everything = (*known.SURFACES, *known.LINES)
        for cloud in dict.fromkeys(surface.cloud for surface in everything):
            surfaces = [surface for surface in everything if surface.cloud == cloud]
            with ProviderServer() as server:
                client = known.client_for(server, kind == "async", cloud)
                names += (f"{kind} {name}" for name in use(client, partial(use_all, surfaces, server)))
    found = dict(zip(names, calls(TapeReader(tape)), strict=True))
    json.dump({"version": import_module(sdk).__version__, "calls": found}, sys.stdout)


async def use_all(surfaces: list[Surface], server: ProviderServer, client: Any) -> list[str]:
    """Stream all that these surfaces can; the names of the calls in order."""
    names = []
    for surface in surfaces:
        for name, steps in scripts(surface).items():
            names.append(f"{surface.name}, {name}")
            server.add(Script(steps))
            try:
                await surface.read(client)
            except Exception:
                if name not in FAILING:
                    raise
    return names


def scripts(surface: Surface) -> dict[str, list[Any]]:
    """A whole answer through every surface, everything else where nothing stands between program and stream."""
    direct = surface.name.endswith(("create", "lines"))
    return WHOLE | (EVERYWHERE | ONLY[surface.operation] if direct else {})


def calls(tape: TapeReader) -> list[dict[str, Any]]:
    return [
        row | {"parts": tape.rows("select * from llm_parts where call_id = ? order by part", row["id"])}
        for row in tape.rows(f"select id, {SAME} from llm_calls order by id")
    ]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
