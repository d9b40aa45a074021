"""How each framework asks for a recorded answer, and what of it its own call cannot have."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_openai import OpenAI

from langchain_drivers import anthropic_model, chat_model
from recordings import Recording, sha256
from replayed import Answer, Part, base_url, events_of, expected, in_order, kind_and_choice, model_of, uri_of
from scripted_llama_llm import ASKED, ServedLLM

Change = Callable[[Recording, Answer], Answer]

WITH_TOOLS = frozenset({"tools", "tools_offered", "server_tools", "mcp"})
ANY_TOOL = {"name": "any", "input_schema": {"type": "object"}}


@dataclass(frozen=True)
class Way:
    """A framework's way to ask in one wire format.

    Attributes:
        framework: the name of its adapter.
        model: what it asks with, as docs/providers.md calls it.
        make: a model that asks as it was asked when the answer was recorded.
    """

    framework: str
    model: str
    api: str
    make: Callable[[Recording], Any]

    def send(self, recording: Recording) -> None:
        """Ask, and read the answer to its end. What is raised meanwhile is on the tape, and compared there."""
        model, asked = self.make(recording), ASKED if self.framework == "llama-index" else "hi"
        whole, stream = ("chat", "stream_chat") if self.framework == "llama-index" else ("invoke", "stream")
        with contextlib.suppress(Exception):
            if recording.streaming:
                for _ in getattr(model, stream)(asked):
                    pass
            else:
                getattr(model, whole)(asked)


def _chat_openai(recording: Recording) -> Any:
    responses = recording.api == "openai-responses"
    return chat_model(base_url(recording), model=model_of(recording), use_responses_api=responses)


def _openai(recording: Recording) -> Any:
    return OpenAI(base_url=base_url(recording), model=model_of(recording), api_key="none", max_retries=0)


def _chat_anthropic(recording: Recording) -> Any:
    """The integration reads what the program asked for: without any tool, say, nothing of tools."""
    beta = "beta=true" in uri_of(recording) or "compaction" in recording.features
    options = {"betas": ["any"]} if beta else {}
    model = anthropic_model(base_url(recording), model=model_of(recording), max_tokens=50, **options)
    return model.bind(tools=[ANY_TOOL]) if recording.features & WITH_TOOLS else model


def _served(recording: Recording) -> Any:
    return ServedLLM(url=base_url(recording), model=model_of(recording))


WAYS = (
    Way("langchain", "`ChatOpenAI`", "openai-chat", _chat_openai),
    Way("langchain", "`ChatOpenAI(use_responses_api=True)`", "openai-responses", _chat_openai),
    Way("langchain", "`OpenAI`", "openai-completions", _openai),
    Way("langchain", "`ChatAnthropic`", "anthropic-messages", _chat_anthropic),
    Way("llama-index", "a model of the tests, read as LlamaIndex's own for OpenAI reads", "openai-chat", _served),
)


@dataclass(frozen=True)
class Difference:
    """Something that a framework does not hand over as it was sent, so that its own call cannot have it.

    Attributes:
        what: as docs/providers.md calls it.
        applies: whether a recording that the framework can ask for has it.
        change: what the framework's call is expected to have instead.
    """

    framework: str
    what: str
    applies: Callable[[Recording], bool]
    change: Change


def expected_of(framework: str, recording: Recording) -> Answer:
    """What a framework's own call is expected to have of a recording."""
    answer = expected(recording)
    for difference in differences_of(framework, recording):
        answer = difference.change(recording, answer)
    return answer


def differences_of(framework: str, recording: Recording) -> list[Difference]:
    """Those that a recording shows."""
    return [one for one in DIFFERENCES if one.framework == framework and one.applies(recording)]


def _streams(api: str, applies: Callable[[Recording], bool]) -> Callable[[Recording], bool]:
    return lambda recording: recording.api == api and recording.streaming and applies(recording)


def _keys(recording: Recording, pattern: str) -> Iterator[Mapping[str, Any]]:
    """Outputs with text whose key in the index ends so."""
    return (one for one in recording.outputs if one["chars"] and re.search(f"/{pattern}$", one["key"]))


def _has(pattern: str) -> Callable[[Recording], bool]:
    return lambda recording: any(_keys(recording, pattern))


def _without(pattern: str) -> Change:
    """Parts are not there."""

    def change(recording: Recording, answer: Answer) -> Answer:
        left_out = Counter((*kind_and_choice(one["key"]), one["sha256"]) for one in _keys(recording, pattern))
        return replace(answer, parts=in_order((Counter(answer.parts) - left_out).elements()))

    return change


def _choices_joined(recording: Recording, answer: Answer) -> Answer:
    """What each chunk's first choice brought, as if all were one; the last finish reason."""
    joined: dict[str, str] = {"text": "", "tool_args": ""}
    reason = None
    for choice in (event["choices"][0] for event in events_of(recording) if event.get("choices")):
        delta = choice.get("delta") or {}
        joined["text"] += delta.get("content") or ""
        joined["tool_args"] += "".join(tool["function"]["arguments"] for tool in delta.get("tool_calls") or ())
        reason = choice.get("finish_reason") or reason
    parts: list[Part] = [(kind, 0, sha256(text)) for kind, text in joined.items() if text]
    return replace(answer, parts=in_order(parts), end=(answer.end[0], reason))


def _usages(recording: Recording) -> list[Mapping[str, Any]]:
    return [event["usage"] for event in events_of(recording) if event.get("usage")]


def _usage_added_up(recording: Recording, answer: Answer) -> Answer:
    total = Counter[str]()
    for usage in _usages(recording):
        total.update({name: usage[name] for name in ("prompt_tokens", "completion_tokens")})
    return replace(answer, usage=(total["prompt_tokens"], total["completion_tokens"]))


def _input_comes_last(recording: Recording) -> bool:
    return any("input_tokens" in event["usage"] for event in events_of(recording) if event["type"] == "message_delta")


def _wrapped(recording: Recording, answer: Answer) -> Answer:
    """The input of a custom tool is an argument of LangChain's making."""
    inputs: dict[int, str] = {}
    for event in events_of(recording):
        if event["type"] == "response.custom_tool_call_input.delta":
            inputs[event["output_index"]] = inputs.get(event["output_index"], "") + event["delta"]
    wrapped: list[Part] = [("tool_args", 0, sha256(json.dumps({"__arg1": one}))) for one in inputs.values()]
    return replace(answer, parts=in_order([*(_without("custom_input")(recording, answer).parts or ()), *wrapped]))


def _failed(recording: Recording, answer: Answer) -> Answer:
    return Answer(parts=(), end=("error", None), usage=(None, None))


_CHAT, _RESPONSES, _MESSAGES = "openai-chat", "openai-responses", "anthropic-messages"

DIFFERENCES = (
    Difference(
        "langchain",
        "reasoning in a field of chat completions",
        _streams(_CHAT, lambda one: _has("reasoning(_content)?")(one) and "content_parts" not in one.features),
        _without("reasoning(_content)?"),
    ),
    Difference("langchain", "a refusal in chat completions", _streams(_CHAT, _has("refusal")), _without("refusal")),
    Difference("langchain", "several choices", _streams(_CHAT, lambda one: "n>1" in one.features), _choices_joined),
    Difference(
        "langchain",
        "usage in `x_groq` alone",
        _streams(_CHAT, lambda one: "usage_in_x_groq" in one.features and not _usages(one)),
        lambda _, answer: replace(answer, usage=(None, None)),
    ),
    Difference(
        "langchain",
        "usage on every chunk",
        _streams(_CHAT, lambda one: len(_usages(one)) > 1),
        _usage_added_up,
    ),
    Difference(
        "langchain",
        "raw reasoning in Responses",
        _streams(_RESPONSES, _has("reasoning")),
        _without("reasoning"),
    ),
    Difference(
        "langchain",
        "shell commands",
        _streams(_RESPONSES, _has("shell_command")),
        _without("shell_command"),
    ),
    Difference("langchain", "input of a custom tool", _streams(_RESPONSES, _has("custom_input")), _wrapped),
    Difference(
        "langchain",
        "arguments without any delta",
        _streams(_RESPONSES, lambda one: "done_without_delta" in one.features),
        lambda _, answer: replace(answer, parts=tuple(p for p in answer.parts or () if p[0] != "tool_args")),
    ),
    Difference(
        "langchain",
        "input tokens at the beginning only",
        _streams(_MESSAGES, lambda one: not _input_comes_last(one)),
        lambda _, answer: replace(answer, usage=(0, answer.usage[1]) if answer.usage else None),
    ),
    Difference("llama-index", "a refusal", _streams(_CHAT, _has("refusal")), _without("refusal")),
    Difference("llama-index", "several choices", _streams(_CHAT, lambda one: "n>1" in one.features), _choices_joined),
    Difference(
        "llama-index",
        "content as a list of typed pieces",
        _streams(_CHAT, lambda one: "content_parts" in one.features),
        _failed,
    ),
)
