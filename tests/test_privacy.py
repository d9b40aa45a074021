"""No output ever holds a secret: the bytes of database, write-ahead log and a second output are searched for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

import tokentape
from file_sink import FileSink, raw_bytes
from secrets_to_mask import BEFORE, OPTIONAL_SECRETS, SECRETS
from tape_reader import TapeReader
from tokentape import recording
from tokentape.call import CallRecorder, Request
from tokentape.recorder import active
from tokentape.redaction import Rules, chosen, redact_text

REDACT = "email phone badge=EMP-[0-9]{6}"
EVERY_SECRET = {**SECRETS, **OPTIONAL_SECRETS, "badge": ("badge", "EMP-123456")}
PARTS = 4
# In a file of many megabytes a few characters are found by chance: this many are not.
PIECE = 9


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FileSink]:
    """A second output, beside the tape."""
    before = list(recording._registered)
    heard = FileSink(tmp_path / "sink")
    tokentape.register(heard)
    yield heard
    recording._registered[:] = before


def started(**request: Any) -> CallRecorder:
    """A call, as an adapter opens it."""
    recorder = active()
    call = None if recorder is None else recorder.start(Request(**{"adapter": "acme", "operation": "chat"} | request))
    assert call is not None
    return call


def text_of(secrets: dict[str, tuple[str, str]]) -> str:
    """Prose with these secrets in it, one of them behind a JSON escape."""
    said = (f"The {name}: {BEFORE.get(name, '')}{secret}, and on.\\n" for name, (_, secret) in secrets.items())
    return f"{''.join(said)}sk-0123456789abcdef. That is all."


def cut(text: str, random: Random) -> list[str]:
    """A text, cut anywhere, the last piece first."""
    count = len(text) // random.choice((12, 100, 100, 300))
    at = sorted({0, len(text), *(int(random.random() * len(text)) for _ in range(count))})
    return [text[begin:end] for begin, end in pairwise(at)][::-1]


def stream(text: str, random: Random) -> None:
    """A call of several parts that say the text in turns."""
    call = started()
    parts = [(call.part("text", number), cut(text, random)) for number in range(PARTS)]
    at = call.start_ns
    while parts:
        turn = int(random.random() * len(parts))
        number, pieces = parts[turn]
        call.rows.extend((at, at := at + 10_000, number, pieces.pop()))
        if not pieces:
            del parts[turn]
    call.end("completed", at_ns=at)


def pieces_of(secrets: dict[str, tuple[str, str]]) -> list[bytes]:
    """Parts of each secret that would give it away, as they lie in a file or in what Python shows of a text."""
    said = [line for _, secret in secrets.values() for line in secret.splitlines() if "PRIVATE KEY" not in line]
    starts = [(line, {0, (len(line) - PIECE) // 2, len(line) - PIECE}) for line in said]
    return [line[at : at + PIECE].encode() for line, places in starts for at in places]


def marks_alike(text: str) -> str:
    """A text whose marks name no kind: a secret that others have kept waiting for long is `undecided`."""
    return re.sub(r"\[redacted:\w+\]", "[redacted]", text)


@pytest.mark.scenario("privacy/Random splits")
@pytest.mark.parametrize(
    ("splits", "secrets", "redact"),
    [(10_000, SECRETS, ""), (1_000, EVERY_SECRET, REDACT)],
    ids=["default", "asked for"],
)
def test_random_splits(
    tmp_path: Path, sink: FileSink, splits: int, secrets: dict[str, tuple[str, str]], redact: str
) -> None:
    tape = TapeReader(tmp_path / "tape.db")
    tokentape.enable(db=tape.path, flush_ms=20, redact=redact)
    random, text = Random(1), text_of(secrets)
    for _ in range(splits // PARTS):
        stream(text, random)
    assert tokentape.flush(100)
    open_files = raw_bytes(tape.path) + sink.path.read_bytes()
    masked = marks_alike(redact_text(text, Rules(chosen(redact.split()))))
    kept = Counter(marks_alike(row["content"]) for row in tape.rows("select content from llm_parts"))
    assert kept == {masked: splits}
    joined = "select group_concat(token, '') as text from (select * from llm_tokens order by call_id, token_index)"
    rows = Counter(marks_alike(row["text"]) for row in tape.rows(f"{joined} group by call_id, part"))
    assert rows == {masked: splits}
    tokentape.disable()
    closed_files = raw_bytes(tape.path)
    assert b"That is all." in open_files
    assert b"That is all." in closed_files
    assert [piece for piece in pieces_of(secrets) if piece in open_files or piece in closed_files] == []
