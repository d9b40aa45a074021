"""What LlamaIndex says of a model when it is asked, as a request in tokentape's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokentape.call import Request
from tokentape.reading import string, unopened

ADAPTER: Final = "llama-index"

# OpenTelemetry's `gen_ai.provider.name` by the name of LlamaIndex's model class; another class may speak to anybody.
_PROVIDERS: Final = {
    "openai_llm": "openai",
    "openai_responses_llm": "openai",
    "azure_openai_llm": "azure.ai.openai",
    "anthropic_llm": "anthropic",
}
_SCALARS: Final = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "seed", "reasoning_effort")
_WHOLE: Final = frozenset({"chat", "achat", "complete", "acomplete"})
# What LlamaIndex's workflows tag a span with; among it are summaries of what was said.
_OWN_TAGS: Final = "llamaindex."
_ID_LENGTH: Final = 37


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is about to be asked.

    Attributes:
        span_id: LlamaIndex's id of the method that asks.
        request: what it asks.
        whole: whether the method returns its answer in one piece.
    """

    span_id: str | None
    request: Request
    whole: bool


def chat_request(event: Any) -> Asked:
    """Describe what a `LLMChatStartEvent` announces."""
    return _asked("chat", event, [_message(message) for message in event.messages])


def text_request(event: Any) -> Asked:
    """Describe what a `LLMCompletionStartEvent` announces."""
    return _asked("text_completion", event, event.prompt)


def method_of(span_id: str | None) -> str:
    """The method that a span watches: ids are a qualified name, a dash and a UUID."""
    return (span_id or "")[:-_ID_LENGTH].rpartition(".")[2]


def _asked(operation: str, event: Any, body: Any) -> Asked:
    model: Mapping[str, Any] = event.model_dict
    given: Mapping[str, Any] = event.additional_kwargs
    name = string(given.get("model")) or string(model.get("model_name"))
    tags = {key: value for key, value in event.tags.items() if not str(key).startswith(_OWN_TAGS)}
    request = Request(
        adapter=ADAPTER,
        operation=operation,
        provider=_PROVIDERS.get(str(model.get("class_name")).lower()),
        model=name if name != "unknown" else None,
        layer="framework",
        scalars={key: given[key] for key in _SCALARS if isinstance(given.get(key), (str, int, float))},
        body=body,
        metadata={"tags": unopened(tags)} if tags else None,
        framework_run_id=event.span_id,
    )
    return Asked(event.span_id, request, method_of(event.span_id) in _WHOLE)


def _message(message: Any) -> dict[str, Any]:
    """A message by its plain parts, so that nothing holds the object itself."""
    return {"role": str(getattr(message.role, "value", message.role)), "content": message.content}
