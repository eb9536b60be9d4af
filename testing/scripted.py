"""Short words for scripted models in tests.

Script([ask("lookup_order", order_id="17"), say("It is on its way.")])
"""

from __future__ import annotations

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
]


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
