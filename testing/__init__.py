"""What users test with: the fixture `runward_stack`, scripted models, a replay of histories.

The fixture comes with the installation (`pytest_plugin.py`). docs/testing.md shows a test. Names
are loaded when they are used: pytest imports this package in every session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runward.testing.ran import Ran, RanVerdict, Spend
    from runward.testing.replaying import replay
    from runward.testing.scripts import (
        Bill,
        Call,
        Cut,
        Fail,
        FileLedger,
        Hang,
        MemoryLedger,
        Script,
        ScriptedModel,
        ScriptedProvider,
        Slow,
        Turn,
        ask,
        ask_all,
        ask_badly,
        bill_as,
        billed,
        failing,
        say,
        scripted,
    )
    from runward.testing.servers import Addresses
    from runward.testing.stack import Stack

__all__ = [
    "Addresses",
    "Bill",
    "Call",
    "Cut",
    "Fail",
    "FileLedger",
    "Hang",
    "MemoryLedger",
    "Ran",
    "RanVerdict",
    "Script",
    "ScriptedModel",
    "ScriptedProvider",
    "Slow",
    "Spend",
    "Stack",
    "Turn",
    "ask",
    "ask_all",
    "ask_badly",
    "bill_as",
    "billed",
    "failing",
    "replay",
    "say",
    "scripted",
]

_HOMES = {
    "Addresses": "servers",
    "Ran": "ran",
    "RanVerdict": "ran",
    "Spend": "ran",
    "Stack": "stack",
    "replay": "replaying",
}


def _load(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "scripts")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


if not TYPE_CHECKING:  # a checker would take every misspelt name for one of ours
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
