"""Approval requests: what is asked, who may answer, and how long an answer holds.

The row in the store is the authority. The first decision wins; an approval is consumed once, by
the step it names, for exactly the digest that was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from runward.contracts.errors import ConfigurationError, NotFound

ApprovalState = Literal["pending", "approved", "rejected", "expired", "consumed", "void"]
ApprovalKind = Literal["call", "unknown"]
DecisionWord = Literal["approve", "reject"]

APPROVAL_TTL = timedelta(hours=24)
EXECUTION_TTL = timedelta(hours=1)  # an approval that nobody used for this long no longer holds
DECISION_TTL = timedelta(minutes=5)
TTL_MIN, TTL_MAX = timedelta(seconds=1), timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """Who may approve where an agent names nobody, and for how long what is asked and said holds.

    A request keeps the terms under which it was made; other terms are for new requests.
    """

    approver_role: str | None = None
    approval_ttl: timedelta = APPROVAL_TTL  # a request that nobody decided
    execution_ttl: timedelta = EXECUTION_TTL  # an approval that nobody used

    def __post_init__(self) -> None:
        _check_ttl("approval_ttl", self.approval_ttl)
        _check_ttl("execution_ttl", self.execution_ttl)


def _check_ttl(name: str, ttl: object) -> None:
    if not isinstance(ttl, timedelta) or not TTL_MIN <= ttl <= TTL_MAX:
        raise ConfigurationError(
            f"{name}={ttl!r}",
            f"It is a timedelta from 1 second to {TTL_MAX.days} days",
            "Say for example timedelta(hours=24)",
        )


class ApprovalRequest(BaseModel):
    """What crosses into the workflow: enough to wait for, never the arguments."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    id: str = Field(alias="i")
    digest: str = Field(alias="d")
    kind: ApprovalKind = Field("call", alias="k")
    title: str = Field(alias="t")
    expires_at: datetime = Field(alias="x")


class Approval(BaseModel):
    """A request as approvers see it, arguments included: exactly what will run.

    `title` is why it is asked: the reason of the verdict, or that an attempt may have had its
    effect; `rule` is the verdict's, '' in the second case; `reason` is what whoever decided said.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    workflow_id: str
    run_id: str
    step: str
    kind: ApprovalKind
    title: str = ""
    rule: str = ""
    tool: str
    arguments: str
    digest: str
    requester: str
    approver_role: str | None
    state: ApprovalState
    reason: str
    decided_by: str | None
    decided_at: datetime | None = None
    created_at: datetime
    expires_at: datetime


class Decision(BaseModel):
    """A decision on its way through a workflow: the ticket says who, on what, and which word."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    approval_id: str = Field(alias="i", max_length=64)
    ticket: str = Field(alias="t", max_length=4096)
    reason: str = Field("", alias="r", max_length=1000)


class DecisionResult(BaseModel):
    """What became of a decision; `accepted` is False where it does not hold, with the reason."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    accepted: bool = Field(alias="a")
    state: ApprovalState = Field(alias="s")
    reason: str = Field("", alias="r")


def missing(approval_id: str, tenant: str) -> NotFound:
    """Returns the error for a request that the tenant does not have."""
    return NotFound(
        f"The approval request {approval_id!r}",
        f"Tenant {tenant!r} has none of that id",
        "`runward approvals list` shows what waits",
    )
