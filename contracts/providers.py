"""What a model provider is: one call in, one answer out, exact usage, a classified error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from runward.contracts.transcript import AssistantMessage, Message
from runward.contracts.usage import Usage

Stop = Literal["end", "tools", "length", "refusal"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Everything that one call sends; `max_output_tokens` is always sent, it bounds the cost."""

    model: str  # the part after the provider's name
    instructions: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    max_output_tokens: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """What came back, with what the provider billed."""

    message: AssistantMessage
    usage: Usage
    stop: Stop


class ModelError(Exception):
    """A call that brought no answer.

    `retryable` says whether the same call may succeed later, `retry_after_s` when, and `unbilled`
    whether it is proven that the provider billed nothing. The text never holds message content.
    """

    def __init__(
        self,
        text: str,
        *,
        retryable: bool,
        unbilled: bool,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(text)
        self.retryable = retryable
        self.unbilled = unbilled
        self.retry_after_s = retry_after_s


class Provider(Protocol):
    """One provider's API."""

    @property
    def name(self) -> str:
        """Returns the name before the colon in `model`."""
        ...

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the model's answer; raises ModelError."""
        ...
