"""A run as a story: its turns and calls, what they cost, who allowed them, what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import get_args

from runward.contracts.approvals import Approval
from runward.contracts.budget import Dimension, Period, Scope
from runward.contracts.encoding import is_clean
from runward.contracts.errors import RequestRefused
from runward.contracts.runs import RunState, usd
from runward.contracts.usage import Usage

LISTED_MAX = 10_000
_STATES = [word for words in get_args(RunState) for word in get_args(words)]


@dataclass(frozen=True, slots=True)
class RunRow:
    """What the store says of a run; `run_id` is that of its chain's first execution.

    `result_digest` is that of the answer's UTF-8 bytes. `session` and `reason` may be empty.
    """

    tenant: str
    run_id: str
    workflow_id: str
    user: str
    agent: str
    session: str
    state: str
    reason: str
    epoch: int
    round: int
    opened_at: datetime
    closed_at: datetime | None
    result_digest: str
    content_gone_at: datetime | None = None  # since then retention deletes what was said


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs a list shows: those of which all that is given holds, the newest first.

    Errors: RequestRefused for what no run can have, and for a limit out of 1 to 10,000.
    """

    user: str | None = None
    agent: str | None = None
    state: RunState | None = None
    session: str | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        for name in ("user", "agent", "session"):
            word = getattr(self, name)
            if word is not None and not is_clean(word):
                raise RequestRefused(
                    f"Runs with {name}={word!r}", "No run has such a name", "Correct it"
                )
        if self.state is not None and self.state not in _STATES:
            raise RequestRefused(
                f"Runs in the state {self.state!r}",
                f"States are {', '.join(_STATES)}",
                "Name one of them",
            )
        if not 1 <= self.limit <= LISTED_MAX:
            raise RequestRefused(
                f"A list of {self.limit} runs",
                f"It shows at least 1 and at most {LISTED_MAX}",
                "Ask for fewer, or narrow it by user, agent or state",
            )


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One call. `tries` are the attempts that were admitted; `cost` is in nano-USD.

    `opened_at` is when it was first tried, or a person was asked; it ended at `closed_at`.
    `usage` is None where no model answered, and where retention deleted the answer. `rule` decided
    that it may run, or that a person is asked; `reason` is why it did not, or failed.
    """

    step: str
    epoch: int
    round: int
    kind: str
    name: str
    state: str
    tries: int
    opened_at: datetime
    closed_at: datetime | None
    usage: Usage | None = None
    cost: int = 0
    rule: str = ""
    reason: str = ""
    approvals: tuple[Approval, ...] = ()
    full: str = ""  # digest of a result that its model saw the beginning of; `run.content` reads it

    @property
    def turn(self) -> int | None:
        """Returns the turn of an agent's step, None for an activity of a user's own workflow."""
        head = self.step.partition(".")[0]
        return int(head[1:]) if head[:1] == "t" and head[1:].isdigit() else None

    @property
    def seconds(self) -> float | None:
        """Returns how long it took, waits for people and retries included; None while it runs."""
        return None if self.closed_at is None else (self.closed_at - self.opened_at).total_seconds()


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that did not come about yet, as Temporal tells it: why, and what is next.

    `step` is that of the call, which may not have reached the store, and empty for the workflow
    itself. `next_try_at` is None where it waits for a worker, and while one tries it again.
    """

    step: str
    name: str
    attempt: int
    reason: str
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """All that the store knows of a run, in the order in which it happened.

    Of a run that goes on, `pending` is what Temporal says of calls that wait.
    """

    run: RunRow
    steps: tuple[StoryStep, ...]
    pending: tuple[PendingCall, ...] = ()

    @property
    def cost(self) -> Decimal:
        """Returns what the recorded answers cost, in dollars."""
        return usd(sum(one.cost for one in self.steps))

    @property
    def turns(self) -> int:
        """Returns how many turns the run has come to."""
        return max((one.turn or 0 for one in self.steps), default=0)

    @property
    def usage(self) -> Usage:
        """Returns the tokens of the recorded answers."""
        total = Usage()
        for one in self.steps:
            total += one.usage or Usage()
        return total


@dataclass(frozen=True, slots=True)
class CapWindow:
    """A cap in one of its windows, costs in nano-USD. `settled` includes what was forfeited."""

    scope: Scope
    scope_id: str
    dimension: Dimension
    period: Period
    window_start: datetime
    window_end: datetime
    cap: int
    held: int
    settled: int
    overrun: int

    @property
    def spent(self) -> int:
        """Returns what was charged, beyond the holds too."""
        return self.settled + self.overrun


@dataclass(frozen=True, slots=True)
class UserUsage:
    """What a user's models answered since some time, and the user's caps in their newest windows.

    What was billed without an answer that was recorded counts in the windows only.
    """

    user: str
    since: datetime
    runs: int
    calls: int
    usage: Usage
    cost: Decimal
    windows: tuple[CapWindow, ...]


def month_begin(now: datetime) -> datetime:
    """Returns when the month of that time began."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
