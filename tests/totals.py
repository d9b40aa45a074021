"""Totals as everybody who reads a tape can ask for them: whichever way they are added up, they agree."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner

from tape_reader import TapeReader
from tokentape.cli import cli

SUMS = {
    "run_stats": "sum(call_count), sum(input_tokens), sum(token_count)",
    "model_stats": "sum(call_count), sum(input_tokens), sum(token_count)",
    "streaming_stats": "sum(counted), sum(input_tokens * counted), sum(token_count * counted)",
}


def totals(tape: TapeReader) -> tuple[Any, ...]:
    """How many calls, input tokens and tokens of answers are on a tape."""
    found = {tuple(tape.rows(f"select {sums} from {view}")[0].values()) for view, sums in SUMS.items()}
    (same,) = found
    return same


def shown(tape: TapeReader, *command: str) -> tuple[str, Any]:
    """What a command says of the tape, in words and as JSON."""
    name, *rest = command
    plain, as_json = (
        CliRunner().invoke(cli, [name, "--db", str(tape.path), *more, *rest]) for more in ([], ["--json"])
    )
    return plain.stdout, json.loads(as_json.stdout)
