"""The governed step as data: what the worker proposes, what the store answers, how it ends.

`Draft` grows while it passes the concerns; `step_open` decides it in one commit, `step_close`
records the outcome in another. The store compares, locks and counts; it never interprets content.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from runward.contracts.approvals import APPROVAL_TTL, EXECUTION_TTL, ApprovalRequest
from runward.contracts.budget import NOTHING, Bound, Bucket
from runward.contracts.policy import Word
from runward.contracts.tools import OnUnknown

StepKind = Literal["model", "tool", "activity"]
StepState = Literal["done", "denied", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class StepKey:
    """Which step of which run; `run_id` is the chain's first run id, stable over re-calls."""

    tenant: str
    run_id: str
    step: str
    epoch: int = 0
    round: int = 0

    @property
    def idempotency_key(self) -> str:
        """Returns the key that every attempt of this step hands to whom it calls."""
        return f"{self.run_id}:{self.round}:{self.step}"


@dataclass(frozen=True, slots=True)
class Run:
    """What the store knows of a run: the only source of identity for every later step."""

    tenant: str
    run_id: str
    workflow_id: str
    user: str
    roles: frozenset[str]
    agent: str
    session: str
    policy: str
    epoch: int = 0
    round: int = 0
    state: str = "open"


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first step adds: it opens the run, in the same commit."""

    user: str
    roles: tuple[str, ...]
    agent: str
    agent_digest: str
    agent_snapshot: bytes
    policy: str
    policy_body: bytes
    session: str
    request_digest: str
    kid: str
    jti: str
    record: bytes  # the leaf of `run_started`


@dataclass(frozen=True, slots=True)
class Parent:
    """Lineage: the recorded outcomes that this step must follow from.

    A tool step follows from call `index` of model step `model`; a model step from the head that
    `model` left (empty for the first) and from the messages of `tools`, (step id, digest) each.
    """

    model: str = ""
    index: int = 0
    head: str = ""
    messages: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Draft:
    """A step on its way through the concerns; mutable until `step_open` has decided it."""

    key: StepKey
    kind: StepKind
    name: str  # the tool's or the activity's name, or the model
    digest: str  # of exactly what will run
    workflow_id: str
    execution_run_id: str
    attempt: int
    nonce: str
    idempotent: bool = False
    on_unknown: OnUnknown = "ask"
    arguments: str = ""  # what an approver is shown: exactly what will run
    parent: Parent | None = None  # None where there is no lineage (users' own workflows)
    opening: Opening | None = None
    # permissions
    verdict: Word = "deny"
    reason: str = "no policy decided this call"
    rule: str = "default"
    # approvals
    approval_id: str | None = None
    approver_role: str | None = None
    approval_ttl_s: int = int(APPROVAL_TTL.total_seconds())
    execution_ttl_s: int = int(EXECUTION_TTL.total_seconds())
    # budget
    bound: Bound = NOTHING
    buckets: tuple[Bucket, ...] = ()
    hold_ttl_s: int = 900
    # audit
    intent: bytes = b""


# What `step_open` answers.


@dataclass(frozen=True, slots=True)
class Admitted:
    """The attempt may run: intent, hold and consumed approval are committed."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The step has an outcome already: return these bytes, run nothing."""

    outcome: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """The step ends without running: record it as denied or unknown, with this reason."""

    state: Literal["denied", "unknown"]
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A person has to decide first."""

    request: ApprovalRequest


@dataclass(frozen=True, slots=True)
class Short:
    """A bucket has no room. `available` may be > 0; `contended` means open holds are in the way."""

    bucket: int  # index into Draft.buckets
    available: int
    contended: bool
    window_end: datetime | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: try again later (a run that the store does not know yet)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Never: another digest, a missing lineage, a closed run, a bound ticket."""

    code: Literal["digest", "lineage", "closed", "ticket", "approval", "input"]
    reason: str


Answer = Admitted | Recorded | Settled | Asked | Short | Wait | Refused

# How an attempt's hold ends: with usage, with proof that nothing was billed, or without proof.
Resolution = Literal["settle", "release", "forfeit"]


class TranscriptRow(NamedTuple):
    """One message under the head that it makes."""

    head: str
    previous: str
    digest: str
    content: bytes
    prefix_bytes: int  # of all messages up to and including this one


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a run, in the commit of the step that ends it."""

    state: str
    reason: str
    result_digest: str
    record: bytes


class Close(NamedTuple):
    """How an attempt ended. `state` None leaves the step open for another attempt."""

    key: StepKey
    nonce: str
    attempt: int
    state: StepState | None
    outcome: bytes = b""
    record: bytes = b""
    resolution: Resolution = "release"
    actual: Bound = NOTHING
    head: str = ""  # model: the head after its message
    message: str = ""  # digest of the message that this step made
    grants: tuple[str, ...] = ()  # model: effect digests of the calls it asked for, in order
    transcript: tuple[TranscriptRow, ...] = ()
    content: bytes = b""  # the message, where the outcome holds only a reference to it
    closing: Closing | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """The recorded outcome: ours, or the one that was there first (then `late`)."""

    outcome: bytes
    late: bool = False
