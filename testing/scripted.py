"""`scripted(...)`, and all words of `scripts.py`, which are loaded when they are used.

This file has to stay light: the face imports it, and pytest imports the face in every session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runward.contracts.agents import Agent
    from runward.testing.scripts import (
        Bill,
        Call,
        Cut,
        Fail,
        Fault,
        FileLedger,
        Hang,
        Ledger,
        MemoryLedger,
        Script,
        ScriptedModel,
        ScriptedProvider,
        ScriptFunction,
        Slow,
        Turn,
        ask,
        ask_all,
        ask_badly,
        bill_as,
        billed,
        failing,
        say,
    )

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
    from runward.testing.scripts import ScriptedModel

    return ScriptedModel(agent if isinstance(agent, str) else agent.model, turns)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("runward.testing.scripts"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
