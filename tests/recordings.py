"""Streams that other projects recorded from real providers, with expectations computed by somebody else's parser.

They lie outside the repository: in the folder that TOKENTAPE_RECORDINGS names, else in `../shared/recordings` beside
the clone. Their README says where each comes from.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# What was compared is told here; tests keep it true.
PAGE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"
FORMATS = ("openai-chat", "openai-completions", "openai-responses", "anthropic-messages")


def folder() -> Path:
    """Where the recordings are, if they are anywhere."""
    named = os.environ.get("TOKENTAPE_RECORDINGS")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "recordings"


@dataclass(frozen=True)
class Recording:
    """One exchange and what is expected of it."""

    file: str
    interaction: int
    provider: str
    api: str
    streaming: bool
    status: int
    features: frozenset[str]
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None
    outputs: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        """Tells the exchange from all others."""
        return f"{self.file}:{self.interaction}"

    @property
    def id(self) -> str:
        """Names the exchange in pytest's output."""
        return f"{Path(self.file).stem[-60:]}:{self.interaction}"


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """Every exchange in a format that an adapter reads; empty where the folder is absent."""
    index = folder() / "INDEX.tsv"
    if not index.is_file():
        return ()
    with index.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return tuple(_recording(row) for row in rows if row["api"] in FORMATS)


@functools.cache
def exchanges(file: str) -> list[dict[str, Any]]:
    """All exchanges of one file, as recorded."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((folder() / file).read_bytes(), Loader=loader)["interactions"]


def sha256(text: str) -> str:
    """As the index gives it."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _recording(row: dict[str, str]) -> Recording:
    return Recording(
        file=row["file"],
        interaction=int(row["interaction"]),
        provider=row["provider"],
        api=row["api"],
        streaming=row["streaming"] == "yes",
        status=int(row["status"]),
        features=frozenset(filter(None, row["features"].split(","))),
        finish_reason=row["finish_reason"],
        input_tokens=int(row["input_tokens"]) if row["input_tokens"] else None,
        output_tokens=int(row["output_tokens"]) if row["output_tokens"] else None,
        outputs=tuple(json.loads(row["outputs"])),
    )
