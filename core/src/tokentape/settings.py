"""What can be set: keyword of `enable()`, then environment, then default."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from .errors import SettingsError
from .expressions import problem_with
from .models import CONTENT_LEVELS, ContentLevel

ENV_PREFIX: Final = "TOKENTAPE_"
# Variables that are no settings of `enable()`: the run a child process hangs under and the file it leaves notes in, the
# switches, our tests' own.
OTHER_VARIABLES: Final = frozenset({"RUN", "RUN_NOTES", "DISABLED", "STRICT", "RECORDINGS"})
DEFAULT_MAX_MB: Final = 1024
TRUE: Final = frozenset({"1", "true", "yes", "on"})
FALSE: Final = frozenset({"0", "false", "no", "off", ""})
# What `redact` can switch on by its name alone.
OPTIONAL_KINDS: Final = ("email", "phone")
_KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent set of values; see `docs/settings.md`.

    Attributes:
        db: the tape; None keeps nothing in SQLite and leaves it to other outputs.
        content: how much text is kept where nothing else decides.
        redact: what is masked beside the built-in kinds: names of optional kinds, and `KIND=EXPRESSION`.
        prompts: whether request bodies are kept.
        labels: on every call of the process.
        plugins: names of the entry points to load; None for all that are installed.
        sample_rate: share of calls whose token events are kept, 0.0 to 1.0.
        stall_ms: a gap at least this long is a stall.
        flush_ms: the most a crash can lose.
        max_buffer: token events held while the database cannot be written.
        max_mb: size of the tape in millions of bytes; past it the token events of the oldest finished calls go.
    """

    db: Path | None
    content: ContentLevel = "redacted"
    redact: tuple[str, ...] = ()
    prompts: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] | None = None
    sample_rate: float = 1.0
    stall_ms: float = 1000.0
    flush_ms: float = 250.0
    max_buffer: int = 100_000
    max_mb: int = DEFAULT_MAX_MB


def resolve(keywords: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Combine keywords, environment and defaults.

    Args:
        keywords: what `enable()` was given; a value of None counts as not given.
        environ: `os.environ` unless told otherwise.

    Raises:
        SettingsError: a setting is unknown or a value cannot be used; the message names both.
    """
    environ = os.environ if environ is None else environ
    given = {k: v for k, v in (keywords or {}).items() if v is not None}
    known = [f.name for f in fields(Settings)]
    _refuse_unknown(given, known, "setting {!r}", lambda name: name)
    variables = [v for v in environ if v.startswith(ENV_PREFIX)]
    names = {v: v.removeprefix(ENV_PREFIX) for v in variables}
    candidates = [n for n in names.values() if n not in OTHER_VARIABLES]
    _refuse_unknown(candidates, [k.upper() for k in known], "environment variable {}", lambda n: ENV_PREFIX + n)

    values: dict[str, Any] = {"db": default_db()}
    for name in known:
        variable = ENV_PREFIX + name.upper()
        if name in given:
            values[name] = _parse(name, given[name], f"{name}={given[name]!r}")
        # TOKENTAPE_PLUGINS= means none; for every other setting an empty variable is one that is not set.
        elif variable in environ and (environ[variable] or name == "plugins"):
            values[name] = _parse(name, environ[variable], f"{variable}={environ[variable]}")
    return Settings(**values)


def default_db() -> Path:
    """`tape.db` in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("tokentape", appauthor=False)) / "tape.db"


def is_disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether TOKENTAPE_DISABLED=1 switches recording off altogether."""
    return _flag(environ, "DISABLED")


def is_strict(environ: Mapping[str, str] | None = None) -> bool:
    """Whether TOKENTAPE_STRICT=1 makes recording faults raise: for our own tests, never for users' programs."""
    return _flag(environ, "STRICT")


def parse_labels(text: str) -> dict[str, str]:
    """Read `env=prod,service=chat`.

    Raises:
        ValueError: an item has no `=`, or nothing before it.
    """
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if any(not key.strip() or not equals for key, equals, _ in pairs):
        raise ValueError("expected key=value, separated by commas")
    return {key.strip(): value.strip() for key, _, value in pairs}


def text_of(what: str, value: object) -> str:
    """The text of a label's value, or of a name.

    Args:
        what: it is, for the error.

    Raises:
        TypeError: it has none: only text, numbers and objects with a text of their own do.
    """
    if isinstance(value, str | int | float):
        return str(value)
    if type(value).__str__ is object.__str__ or isinstance(value, bytes | bytearray):
        raise TypeError(f"{what}: expected a text, got {type(value).__name__}")
    return str(value)


def _flag(environ: Mapping[str, str] | None, name: str) -> bool:
    return (os.environ if environ is None else environ).get(ENV_PREFIX + name, "").strip().lower() in TRUE


def _refuse_unknown(given: Any, known: list[str], what: str, shown: Callable[[str], str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {shown(near[0])}?" if near else "known are " + ", ".join(map(shown, known)) + "."
            raise SettingsError(f"unknown {what.format(shown(name))}: {hint}")


def _parse(name: str, value: Any, shown: str) -> Any:
    parser, expected = _PARSERS[name]
    try:
        return parser(value)
    except SettingsError as refusal:
        raise SettingsError(f"{shown}: {refusal}.") from None
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last for the home of a user there is not
        raise SettingsError(f"{shown}: expected {expected}.") from None


def _db(value: Any) -> Path | None:
    if isinstance(value, str) and value.lower() == "none":
        return None
    return Path(value).expanduser()


def _content(value: Any) -> str:
    if value not in CONTENT_LEVELS:
        raise ValueError(value)
    return str(value)


def _redact(value: Any) -> tuple[str, ...]:
    items = tuple(value.split() if isinstance(value, str) else map(str, value))
    for item in items:
        kind, equals, expression = item.partition("=")
        if not equals and kind not in OPTIONAL_KINDS:
            raise ValueError(value)
        if equals and (not _KIND.fullmatch(kind) or not expression):
            raise ValueError(value)
        problem = problem_with(expression) if equals else None
        if problem is not None:
            raise SettingsError(f"{kind}: {problem}")
    return items


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in TRUE | FALSE:
        raise ValueError(value)
    return text in TRUE


def _labels(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return parse_labels(value)
    given = dict(value)
    try:
        return {str(key): text_of(f"label {key}", text) for key, text in given.items()}
    except TypeError as refusal:
        raise SettingsError(str(refusal)) from None


def _plugins(value: Any) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else list(value)
    return tuple(str(name).strip() for name in names if str(name).strip())


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        number = float(value)
        if not low <= number <= high:
            raise ValueError(value)
        return number

    return parse


def _count(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(value)
    return number


_PARSERS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "db": (_db, "a path, or none"),
    "content": (_content, "one of " + ", ".join(CONTENT_LEVELS)),
    "redact": (_redact, f"{', '.join(OPTIONAL_KINDS)} or KIND=EXPRESSION, separated by spaces"),
    "prompts": (_boolean, "0 or 1"),
    "labels": (_labels, "key=value, separated by commas"),
    "plugins": (_plugins, "names of entry points, separated by commas"),
    "sample_rate": (_number(0.0, 1.0), "a number from 0 to 1"),
    "stall_ms": (_number(1.0, 86_400_000.0), "milliseconds, from 1 to 86400000"),
    "flush_ms": (_number(1.0, 60_000.0), "milliseconds, from 1 to 60000"),
    "max_buffer": (_count, "a whole number of token events, from 1"),
    "max_mb": (_count, "a whole number of megabytes, from 1"),
}
