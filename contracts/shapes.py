"""What each governed activity type tells the step: what will run, its bound, how it ended.

A shape knows one activity type; `GovernedStep` knows none. The body learns the step it runs in from
`CURRENT`, never from its input: input can be forged, what the store knows cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from runward.contracts.agents import Agent
from runward.contracts.budget import NOTHING, Bound, Budget
from runward.contracts.content import Content
from runward.contracts.outcomes import AnyOutcome
from runward.contracts.runs import RunRequest
from runward.contracts.steps import Parent, Run, StepKind, TranscriptRow
from runward.contracts.tools import Tool


class Call(NamedTuple):
    """One scheduled activity, as the server tells it; `scheduled_at` is the server's clock."""

    activity_type: str
    step: str
    workflow_id: str
    run_id: str
    workflow_type: str
    attempt: int
    scheduled_at: datetime
    args: tuple[Any, ...]
    headers: Mapping[str, bytes]


class Facts(NamedTuple):
    """What will run: all that the concerns judge. `request` is there in a run's first step."""

    kind: StepKind
    name: str
    digest: str
    tool: Tool | None = None
    agent: Agent[Any] | None = None
    budget: Budget | None = None
    approver_role: str | None = None
    arguments: str = ""
    parent: Parent | None = None
    bound: Bound = NOTHING
    output_price: int = 0  # nano-USD per output token, to shrink a request that does not fit
    prepared: Any = None  # what the body needs and `facts` already had to load
    problem: str = ""  # why this can never run; recorded as denied
    retries: int = 0  # how often a try that failed is repeated


class Ended(NamedTuple):
    """How a body ended: the outcome and what the store records with it."""

    outcome: AnyOutcome
    actual: Bound
    head: str = ""
    message: str = ""
    grants: tuple[str, ...] = ()
    transcript: tuple[TranscriptRow, ...] = ()
    content: bytes = b""
    large: tuple[Content, ...] = ()  # stored before the step is recorded, not with it
    closes_with: str | None = None  # digest of the answer, where this step answers the run
    failure: str = ""  # with `closes_with`: why that answer is none, so that the run fails


class Shape(Protocol):
    """One governed activity type."""

    @property
    def foreign(self) -> bool:
        """Returns whether this is a user's own activity, whose result is a bare value."""
        ...

    def opens(self, call: Call) -> RunRequest | str:
        """Returns what this call would start: a request, or the digest a ticket must name."""
        ...

    async def facts(self, run: Run, call: Call) -> Facts:
        """Returns what will run. Errors: `Later` where the worker cannot know yet."""
        ...

    async def redefined(self, run: Run, facts: Facts) -> str:
        """Returns why the store knows this call otherwise though nobody forged it, else ""."""
        ...

    def waits(self, run: Run) -> None:
        """Lets go of what is kept for the run's next step, which may be days away."""
        ...

    def ended(self, run: Run, call: Call, facts: Facts, result: Any) -> Ended:
        """Returns how the step ended, from what the body returned or from a refusal's outcome."""
        ...


class Later(Exception):
    """This worker cannot take the step now, another one or a later attempt may."""


class Forged(Exception):
    """The input does not fit the step that it came under: no workflow of ours wrote it."""


class Onward(NamedTuple):
    """The agent's model at this place is asked instead."""

    place: int
    model: str


class BodyFailed(Exception):
    """A body that ended without an outcome; says what is known of its effect and its bill.

    `retryable` says whether the same may succeed later, `onward` which other model may answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        retryable: bool,
        unbilled: bool,
        retry_after_s: float | None = None,
        unreadable: bool = False,
        onward: Onward | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.unbilled = unbilled
        self.retry_after_s = retry_after_s
        self.unreadable = unreadable
        self.onward = onward


class EffectUnknown(Exception):
    """A body that was cut off inside: its effect may or may not have happened."""


class Step(NamedTuple):
    """The step that a body runs in."""

    run: Run
    key: str  # the idempotency key, the same for every attempt
    call: Call
    facts: Facts
    output_tokens: int  # what the hold allows; at most what was asked for


CURRENT: ContextVar[Step] = ContextVar("runward.step")
