"""What a model provider is: one call in, one answer out, exact usage, a classified error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from runward.contracts.transcript import AssistantMessage, Message
from runward.contracts.usage import Usage

# Why a model stopped. `filtered`: somebody else cut it off; `incomplete`: it had more to say, and
# it was not the length. docs/providers.md says what each provider calls them.
Stop = Literal["end", "tools", "length", "refusal", "filtered", "incomplete"]

# The stops that are no answer, and the reason with which the model's step and its run end.
NO_ANSWER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "length": "max_output_tokens_exceeded",
        "refusal": "model refused",
        "filtered": "content filtered",
        "incomplete": "model stopped early",
    }
)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class OutputSpec:
    """The JSON schema that the model's last answer must fit; one object per agent, so hashable."""

    name: str  # letters, digits, _ and -, at most 64
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
    output: OutputSpec | None = None  # None: the answer is text
    files: Mapping[str, bytes] = field(default_factory=dict)  # of messages, by digest


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """What came back, with what the provider billed.

    Calls stand in it only where `stop` is "tools": half a call must never run. Without `metered`
    the provider did not say what it billed; the most that the call can have cost is charged then.
    `reasoning` is what the provider wants back in later calls, as text that only it reads: it
    comes as `AssistantMessage.reasoning`. Nobody else sees it, another provider least of all.
    """

    message: AssistantMessage
    usage: Usage
    stop: Stop
    metered: bool = True
    reasoning: str = field(default="", repr=False)


class ModelError(Exception):
    """A call that brought no answer.

    `retryable` says whether the same call may succeed later, `retry_after_s` when, and `unbilled`
    whether it is proven that the provider billed nothing. `unreadable` is an answer that nobody can
    read: paid for, so it is asked for again a few times only. `elsewhere` says that what will never
    succeed here may with another model: the key, the model or the money is missing, not the
    request wrong. The text never holds message content.
    """

    def __init__(
        self,
        text: str,
        *,
        retryable: bool,
        unbilled: bool,
        retry_after_s: float | None = None,
        unreadable: bool = False,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(text)
        self.retryable = retryable
        self.unbilled = unbilled
        self.retry_after_s = retry_after_s
        self.unreadable = unreadable
        self.elsewhere = elsewhere


class Provider(Protocol):
    """One provider's API."""

    @property
    def name(self) -> str:
        """Returns the name before the colon in `model`."""
        ...

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the model's answer; raises ModelError."""
        ...
