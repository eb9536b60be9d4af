"""Durable, governed AI-agent runs on Temporal: permitted, paid for, recorded, recoverable.

Define tools with `tool` and agents with `Agent`, give them to `RunwardPlugin`, and start runs with
`RunwardClient`. Names are loaded when they are used: importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runward.client.answering import NoWorkerAnswered
    from runward.client.keys import KeyFile
    from runward.client.runward_client import RunwardClient
    from runward.contracts.agents import Agent
    from runward.contracts.budget import Budget, Cap
    from runward.contracts.errors import (
        AgentError,
        ApprovalRefused,
        ConfigurationError,
        NotFound,
        OutputValidationError,
        RequestRefused,
        RunwardError,
        StoreUnavailable,
        TemporalUnavailable,
        TicketRefused,
    )
    from runward.contracts.files import File
    from runward.contracts.policy import PerUserPermissions, StandardPermissions
    from runward.contracts.runs import RunResult
    from runward.contracts.tools import ToolContext, tool
    from runward.workers.plugin import RunwardPlugin

__all__ = [
    "Agent",
    "AgentError",
    "ApprovalRefused",
    "Budget",
    "Cap",
    "ConfigurationError",
    "File",
    "KeyFile",
    "NoWorkerAnswered",
    "NotFound",
    "OutputValidationError",
    "PerUserPermissions",
    "RequestRefused",
    "RunResult",
    "RunwardClient",
    "RunwardError",
    "RunwardPlugin",
    "StandardPermissions",
    "StoreUnavailable",
    "TemporalUnavailable",
    "TicketRefused",
    "ToolContext",
    "tool",
]

_HOMES = {
    "client.answering": ("NoWorkerAnswered",),
    "client.keys": ("KeyFile",),
    "client.runward_client": ("RunwardClient",),
    "contracts.agents": ("Agent",),
    "contracts.budget": ("Budget", "Cap"),
    "contracts.errors": (
        "AgentError",
        "ApprovalRefused",
        "ConfigurationError",
        "NotFound",
        "OutputValidationError",
        "RequestRefused",
        "RunwardError",
        "StoreUnavailable",
        "TemporalUnavailable",
        "TicketRefused",
    ),
    "contracts.files": ("File",),
    "contracts.policy": ("PerUserPermissions", "StandardPermissions"),
    "contracts.runs": ("RunResult",),
    "contracts.tools": ("ToolContext", "tool"),
    "workers.plugin": ("RunwardPlugin",),
}
_HOME_OF = {name: home for home, exported in _HOMES.items() for name in exported}


def _load(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


if not TYPE_CHECKING:  # a checker would take every misspelt name for one of ours
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
