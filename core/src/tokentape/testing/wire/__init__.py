"""The wire formats the server speaks, in the order in which a request is offered to them."""

from __future__ import annotations

from typing import Final

from .anthropic_messages import Messages
from .base import Wire
from .bedrock import BedrockMessages
from .openai_chat import ChatCompletions
from .openai_completions import Completions
from .openai_responses import Responses

# Chat before completions: the second path is the end of the first.
WIRES: Final[tuple[type[Wire], ...]] = (ChatCompletions, Completions, Responses, Messages, BedrockMessages)

__all__ = ["WIRES", "BedrockMessages", "ChatCompletions", "Completions", "Messages", "Responses", "Wire"]
