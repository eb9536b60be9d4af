"""What the contract asks of a provider, and what a model is made to play."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from runward.contracts.providers import ModelError, ModelRequest, Provider, Stop, ToolSpec
from runward.contracts.transcript import ToolCall, UserMessage
from runward.contracts.usage import Usage

WORDS = "the words of the user"
SECRET = "sk-secret-of-the-contract"
REQUEST = ModelRequest(
    model="double",
    instructions="Be brief.",
    messages=(UserMessage(text=WORDS),),
    tools=(
        ToolSpec(
            "lookup",
            "Finds an order.",
            {"type": "object", "properties": {"order_id": {"type": "string"}}},
        ),
    ),
    max_output_tokens=64_000,
    idempotency_key="case-ü/t1.model",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says. A call's arguments are text, as a model writes them."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    stop: Stop = "end"
    usage: Usage = field(default_factory=lambda: Usage(input=12, output=5))


@dataclass(frozen=True, slots=True)
class Failing:
    """An HTTP error status, in the API's own words."""

    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Cutting:
    """A connection that breaks before the answer has arrived."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """No answer ever comes."""


Play = Answer | Failing | Cutting | Hanging


def call(name: str = "lookup", *, call_id: str = "call_1", **arguments: Any) -> ToolCall:
    """Returns a tool call."""
    return ToolCall(id=call_id, name=name, arguments=json.dumps(arguments))


async def error_of(provider: Provider, request: ModelRequest = REQUEST) -> ModelError:
    """Returns the error of a call, and sees to it that no trace of it tells what must stay here."""
    with pytest.raises(ModelError) as caught:
        await provider.call(replace(request, idempotency_key=uuid4().hex))
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert WORDS not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value
