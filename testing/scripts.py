"""Scripted models and short words for what they say.

Script([ask("lookup_order", order_id="17"), say("It is on its way.")])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runward.activities.provider_scripted import (
    Call,
    Cut,
    Fail,
    Fault,
    Hang,
    Script,
    ScriptedProvider,
    ScriptFunction,
    Slow,
    Turn,
)
from runward.activities.scripted_ledger import Bill, FileLedger, Ledger, MemoryLedger, billed
from runward.contracts.agents import Agent
from runward.contracts.providers import ModelRequest, ModelResponse
from runward.contracts.usage import Usage

__all__ = [
    "Bill",
    "Call",
    "Cut",
    "Fail",
    "Fault",
    "FileLedger",
    "Hang",
    "Ledger",
    "MemoryLedger",
    "Script",
    "ScriptFunction",
    "ScriptedModel",
    "ScriptedProvider",
    "Slow",
    "Turn",
    "ask",
    "ask_all",
    "ask_badly",
    "bill_as",
    "billed",
    "failing",
    "say",
    "scripted",
]


def scripted(agent: Agent[Any] | str, /, *turns: Turn) -> ScriptedModel:
    """Returns a provider that says these turns in the place of an agent's model.

    `providers=[scripted(support, ask("refund", order_id="17"), say("Refunded."))]`; instead of an
    agent, its model as text will do. Each run begins at the first turn.
    """
    return ScriptedModel(agent if isinstance(agent, str) else agent.model, turns)


class ScriptedModel:
    """A provider that plays one script in the place of `model`, under that provider's name.

    So an agent is tested as it is, "anthropic:..." and all: prices and budgets are those of the
    model that it names. Keeps in `requests` what the model was asked, retries included.
    """

    def __init__(self, model: str, turns: Sequence[Turn]) -> None:
        self.name, _, script = model.partition(":")
        self.requests: list[ModelRequest] = []
        self._bills = MemoryLedger()
        self._provider = ScriptedProvider({script: Script(turns)}, ledger=self._bills)

    @property
    def bills(self) -> tuple[Bill, ...]:
        """Returns what was billed, oldest first, whatever runward made of it."""
        return self._bills.bills()

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the turn that the conversation has come to, or plays its fault."""
        self.requests.append(request)
        return await self._provider.call(request)


def say(text: str) -> Turn:
    """Returns a turn that answers with text."""
    return Turn(text=text)


def ask(tool: str, /, **arguments: Any) -> Turn:
    """Returns a turn that calls one tool."""
    return Turn(calls=(Call(tool, arguments),))


def ask_all(*calls: Call) -> Turn:
    """Returns a turn that calls several tools in parallel."""
    return Turn(calls=calls)


def ask_badly(tool: str, /, text: str = '{"order_id": ') -> Turn:
    """Returns a turn whose tool call has arguments that are no JSON."""
    return Turn(calls=(Call(tool, text),))


def failing(turn: Turn, *faults: Fault | None) -> Turn:
    """Returns the turn with faults for its first attempts, in order."""
    return replace(turn, faults=(*turn.faults, *faults))


def bill_as(turn: Turn, *, input: int = 0, output: int = 0) -> Turn:
    """Returns the turn with a usage of its own, which may be more than the call was bounded to."""
    return replace(turn, usage=Usage(input=input, output=output))
