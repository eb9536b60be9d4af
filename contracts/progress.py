"""What happened in a run, as whoever watches it is told: one event at a time, each with its place.

Events are the store's own records in the order of its transactions, so every watcher sees the same
ones under the same offsets. They say which call and what became of it, never what was said.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from runward.contracts.errors import RequestRefused

ProgressKind = Literal[
    "run_started",
    "call_started",
    "call_retried",
    "call_ended",
    "approval_requested",
    "approval_decided",
    "run_ended",
]
_OFFSET = re.compile(r"([0-9]{1,20})-([0-9]{1,9})\Z")
_TRANSACTION_MAX = 2**64 - 1  # of the store. All watchers of a client share one query to it


class Progress(BaseModel):
    """One event. `outcome` is a call's or a run's end, or the decision on a request.

    `name` is the tool or the model of a call, the agent of a run. `by` is the user who started the
    run or decided.
    """

    model_config = ConfigDict(frozen=True)

    offset: str
    at: datetime
    kind: ProgressKind
    step: str = ""
    name: str = ""
    attempt: int = 0
    outcome: str = ""
    rule: str = ""
    by: str = ""
    approval_id: str = ""


class Offset(NamedTuple):
    """A place in a run's events: a transaction of the store, and how many of its events came."""

    transaction: int = 0
    events: int = 0

    @classmethod
    def parse(cls, text: str) -> Offset:
        """Returns the offset that `str` wrote; raises RequestRefused for any other text."""
        found = _OFFSET.match(text)
        if found is None or int(found[1]) > _TRANSACTION_MAX:
            raise RequestRefused(
                f"Events after {text[:40]!r}", "That is no offset", "Hand on an event's `offset`"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.transaction}-{self.events}"


class Watched(NamedTuple):
    """A run, and the last of its events that a watcher has."""

    tenant: str
    run_id: str
    after: Offset = Offset()
