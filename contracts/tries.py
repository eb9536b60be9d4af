"""How often a call is tried: what the store has counted, and what a failed try leads to.

All tries of a call are one step, and the store counts them for every worker: Temporal's attempts
also count waits, and begin again with a re-call.
"""

from __future__ import annotations

from typing import NamedTuple

from runward.contracts.shapes import BodyFailed, Onward
from runward.contracts.steps import StepKind

TRIES_BEFORE_FALLBACK = 3  # of a model that others stand behind: there an outage moves on quickly
UNREADABLE_TRIES_MAX = 3  # a gateway's error page passes; each try may have been billed
WAIT_S_MAX = 15.0  # our own; a provider may ask for more
_FIRST_WAIT_S: dict[StepKind, float] = {"model": 1.0, "tool": 0.5}


class Tried(NamedTuple):
    """What the store has counted of a step. `place` is which of the agent's models is asked."""

    tries: int = 0  # attempts that were admitted, the present one included
    place: int = 0
    before: int = 0  # `tries` when that model's turn began
    unreadable: int = 0  # answers of that model that nobody could read

    @property
    def here(self) -> int:
        """Returns how often the model that is asked now was tried."""
        return self.tries - self.before


class Again(NamedTuple):
    """The same is tried once more, after this wait."""

    wait_s: float


def after(failed: BodyFailed, kind: StepKind, retries: int, tried: Tried) -> Again | Onward | None:
    """Returns what a failed try leads to; None where it was the last."""
    onward, wait = failed.onward, failed.retry_after_s
    left = tried.here <= retries
    if onward is not None:
        # Where another model can answer, nobody waits long for this one.
        left = left and tried.here < TRIES_BEFORE_FALLBACK and (wait or 0) <= WAIT_S_MAX
    if failed.unreadable and tried.unreadable + 1 >= UNREADABLE_TRIES_MAX:
        left = False
    if failed.retryable and left:
        return Again(_backoff_s(kind, tried.here) if wait is None else wait)
    return onward


def _backoff_s(kind: StepKind, tries: int) -> float:
    """Returns a wait that doubles with each try, up to WAIT_S_MAX."""
    return min(_FIRST_WAIT_S.get(kind, 0.5) * 2.0 ** min(tries - 1, 10), WAIT_S_MAX)
