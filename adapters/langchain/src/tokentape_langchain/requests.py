"""What LangChain says of a model run when it starts, as a request in tokentape's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from tokentape.call import Request
from tokentape.reading import unopened

ADAPTER: Final = "langchain"

# OpenTelemetry's `gen_ai.provider.name` for LangChain's names; those not listed are the same, or nobody's.
_PROVIDERS: Final = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google_anthropic_vertex": "gcp.vertex_ai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
# `stream` is not among them: here it is what the model was made with, not what this run does.
_SCALARS: Final = (
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "seed",
    "reasoning_effort",
)
_LABELS: Final = ("langgraph_node", "thread_id")


def chat_request(messages: Sequence[Sequence[Any]], run_id: UUID, told: Mapping[str, Any]) -> tuple[Request, Any]:
    """Describe a chat model's run.

    Args:
        messages: what is asked, a list of messages a run.
        run_id: LangChain's id of the run.
        told: the other arguments of the callback.

    Returns:
        The request, and the labels that the configuration suggests.
    """
    return _request("chat", [_message(message) for asked in messages for message in asked], run_id, told)


def text_request(prompts: Sequence[str], run_id: UUID, told: Mapping[str, Any]) -> tuple[Request, Any]:
    """Describe the run of a model that completes text; as `chat_request`."""
    return _request("text_completion", list(prompts), run_id, told)


def _request(operation: str, body: Any, run_id: UUID, told: Mapping[str, Any]) -> tuple[Request, dict[str, str]]:
    params, metadata = _mapping(told.get("invocation_params")), _mapping(told.get("metadata"))
    request = Request(
        adapter=ADAPTER,
        operation=operation,
        provider=_provider(metadata),
        model=_first_text(params.get("model"), params.get("model_name"), metadata.get("ls_model_name")),
        layer="framework",
        scalars={name: params[name] for name in _SCALARS if isinstance(params.get(name), (str, int, float))},
        body=body,
        name=_first_text(told.get("name")),
        metadata={"tags": list(told.get("tags") or ()), "metadata": unopened(metadata)},
        framework_run_id=str(run_id),
    )
    return request, {name: str(metadata[name]) for name in _LABELS if metadata.get(name) is not None}


def _message(message: Any) -> dict[str, Any]:
    """A message by its plain parts, so that nothing holds the object itself."""
    shown = {"role": message.type, "content": message.content}
    calls = getattr(message, "tool_calls", None)
    return shown | {"tool_calls": calls} if calls else shown


def _provider(metadata: Mapping[str, Any]) -> str | None:
    name = _first_text(metadata.get("ls_provider"))
    return None if name is None else _PROVIDERS.get(name, name)


def _first_text(*values: Any) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
