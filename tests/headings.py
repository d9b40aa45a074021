"""Headings of a page of the documentation, and how a function is written in one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEADING = re.compile(r"^(#{1,6}) (.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def headings(page: Path, level: int = 2) -> list[str]:
    """The headings of one level, without the marks of code."""
    found = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return [text.replace("`", "") for marks, text in found if len(marks) == level]


def section(page: Path, heading: str, level: int = 2) -> str:
    """What stands under a heading, up to the next of its level."""
    pieces = re.split(rf"^{'#' * level} (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip((text.replace("`", "") for text in pieces[1::2]), pieces[2::2], strict=True))[heading]


def signature(function: Callable[..., Any], name: str | None = None) -> str:
    """Name and arguments, as in a heading: without defaults, types and `self`."""
    parameters = inspect.signature(function).parameters.values()
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty)
        for parameter in parameters
        if parameter.name != "self"
    ]
    return f"{name or function.__name__}{inspect.Signature(bare)}"
