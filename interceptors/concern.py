"""What a concern is: a look at a draft before its step opens, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runward.contracts.audit import Record
from runward.contracts.shapes import Call, Facts
from runward.contracts.steps import Draft, Run


@dataclass(slots=True)
class Attempt:
    """One attempt of one step, as the concerns see it."""

    call: Call
    run: Run
    facts: Facts
    draft: Draft
    intent: Record | None = None


class Concern(Protocol):
    """One aspect of governance; writes its share into the draft that the store decides."""

    def open(self, attempt: Attempt) -> None:
        """Adds this concern's share. An exception stops the effect."""
        ...
