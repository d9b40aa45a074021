"""Log-probabilities repeat the text of their event, and tell what else might have stood there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .rules import Rules

# Fields that hold an event's own tokens: one in each entry, or all in a list.
_OWN: Final = ("token", "tokens")


def tell_only(logprobs: Any, text: str, rules: Rules) -> bool:
    """Whether log-probabilities tell nothing that the text of their event, which was searched, does not.

    Args:
        logprobs: plain values: a list of entries, each with a token, or with lists of tokens.
        text: of the event.
        rules: what is a secret in the alternatives.
    """
    texts = [told for told in _texts(logprobs) if told]
    own = "".join(_own(logprobs))
    in_bytes = b"".join(_bytes(entry.get("bytes")) for entry in _entries(logprobs)).decode("utf-8", "replace")
    if texts and text not in (own, in_bytes):
        return False
    return not any(rules.scan(told)[0] for told in texts)


def _entries(logprobs: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in logprobs if isinstance(entry, Mapping)] if isinstance(logprobs, list) else []


def _own(logprobs: Any) -> Iterator[str]:
    for entry in _entries(logprobs):
        for name in _OWN:
            said = entry.get(name)
            yield from (said for said in (said if isinstance(said, list) else [said]) if isinstance(said, str))


def _texts(value: Any) -> Iterator[str]:
    """Every text in it: values, keys, and numbers that spell one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        yield _bytes(value).decode("utf-8", "replace")
        for item in value:
            yield from _texts(item)


def _bytes(value: Any) -> bytes:
    """What a list of byte values spells; nothing if it is none."""
    try:
        return bytes(value) if isinstance(value, list | tuple) else b""
    except (TypeError, ValueError):
        return b""
