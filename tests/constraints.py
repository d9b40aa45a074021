"""The versions of `constraints.txt`, with some of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def with_versions(changed: Mapping[str, str]) -> str:
    """The text of a constraints file.

    Args:
        changed: versions by distribution, in the place of those in `constraints.txt`, or beside them.
    """
    names = {canonicalize_name(name) for name in changed}
    others = [
        line
        for line in CONSTRAINTS.read_text("utf-8").splitlines()
        if canonicalize_name(line.partition("==")[0]) not in names
    ]
    return "\n".join([*others, *(f"{name}=={version}" for name, version in changed.items())])
