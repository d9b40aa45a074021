"""Who is behind a host, in the words of OpenTelemetry's `gen_ai.provider.name`."""

from __future__ import annotations

from typing import Final

# By the end of the host's name.
_PROVIDERS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "openrouter.ai": "openrouter",
}


def provider_at(host: str | None, default: str) -> str:
    """The provider at a host.

    Args:
        host: as the client names it.
        default: whose language is spoken there, which is the best that can be said of a host that is not known.
    """
    return next((name for end, name in _PROVIDERS.items() if host and host.endswith(end)), default)
