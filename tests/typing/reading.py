"""A user of the wheel reads what runs did and came to; checkers read this only."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal, assert_type

from pydantic import BaseModel

from runward import RunResult
from runward.contracts.approvals import Approval, ApprovalKind, ApprovalState, DecisionResult
from runward.contracts.budget import Dimension, Period, Scope
from runward.contracts.progress import Progress, ProgressKind
from runward.contracts.runs import RunStatus
from runward.contracts.story import CapWindow, PendingCall, RunRow, Story, StoryStep, UserUsage
from runward.contracts.usage import Usage


class Parcel(BaseModel):
    """Where an order is."""

    days_left: int


def results_are_typed(result: RunResult[Parcel], status: RunStatus, usage: Usage) -> None:
    """How a run ended, or where it is."""
    assert_type(result.output, str)
    assert_type(result.parsed, Parcel)
    assert_type(result.turns, int)
    assert_type(result.usage, Usage)
    assert_type(result.cost, Decimal)
    assert_type(result.interrupted, bool)
    assert_type(result.interruption_reason, str | None)
    assert_type(result.started_at, datetime)
    assert_type(result.finished_at, datetime)
    assert_type(result.session_id, str)
    assert_type(result.run_id, str)
    assert_type(result.fallback_models, tuple[str, ...])
    assert_type(
        status.state,
        Literal[
            "running",
            "waiting",
            "parked",
            "answered",
            "interrupted",
            "cancelled",
            "failed",
            "ended",
        ],
    )
    assert_type(status.turn, int)
    assert_type(status.usage, tuple[int, int, int, int])
    assert_type(status.cost, int)
    assert_type(status.waiting_for, tuple[str, ...])
    assert_type(status.reason, str)
    assert_type(usage.input, int)
    assert_type(usage.cache_read, int)
    assert_type(usage.cache_write, int)
    assert_type(usage.output, int)
    assert_type(usage.input_total, int)
    assert_type(usage.tokens, int)
    assert_type(usage + usage, Usage)


def events_are_typed(event: Progress) -> None:
    """One event of a run."""
    assert_type(event.offset, str)
    assert_type(event.at, datetime)
    assert_type(event.kind, ProgressKind)
    assert_type(event.step, str)
    assert_type(event.name, str)
    assert_type(event.attempt, int)
    assert_type(event.outcome, str)
    assert_type(event.rule, str)
    assert_type(event.by, str)
    assert_type(event.approval_id, str)


def requests_are_typed(one: Approval, became: DecisionResult) -> None:
    """What is asked, and what a decision came to."""
    assert_type(became.accepted, bool)
    assert_type(became.state, ApprovalState)
    assert_type(became.reason, str)
    assert_type(one.id, str)
    assert_type(one.tenant, str)
    assert_type(one.workflow_id, str)
    assert_type(one.run_id, str)
    assert_type(one.step, str)
    assert_type(one.kind, ApprovalKind)
    assert_type(one.title, str)
    assert_type(one.rule, str)
    assert_type(one.tool, str)
    assert_type(one.arguments, str)
    assert_type(one.digest, str)
    assert_type(one.requester, str)
    assert_type(one.approver_role, str | None)
    assert_type(one.state, ApprovalState)
    assert_type(one.reason, str)
    assert_type(one.decided_by, str | None)
    assert_type(one.decided_at, datetime | None)
    assert_type(one.created_at, datetime)
    assert_type(one.expires_at, datetime)


def stories_are_typed(story: Story, step: StoryStep, row: RunRow, call: PendingCall) -> None:
    """All that the store knows of a run."""
    assert_type(story.run, RunRow)
    assert_type(story.steps, tuple[StoryStep, ...])
    assert_type(story.pending, tuple[PendingCall, ...])
    assert_type(story.cost, Decimal)
    assert_type(story.usage, Usage)
    assert_type(story.turns, int)
    assert_type(call.step, str)
    assert_type(call.name, str)
    assert_type(call.attempt, int)
    assert_type(call.reason, str)
    assert_type(call.next_try_at, datetime | None)
    assert_type(step.step, str)
    assert_type(step.epoch, int)
    assert_type(step.round, int)
    assert_type(step.kind, str)
    assert_type(step.name, str)
    assert_type(step.state, str)
    assert_type(step.tries, int)
    assert_type(step.opened_at, datetime)
    assert_type(step.closed_at, datetime | None)
    assert_type(step.usage, Usage | None)
    assert_type(step.cost, int)
    assert_type(step.rule, str)
    assert_type(step.reason, str)
    assert_type(step.approvals, tuple[Approval, ...])
    assert_type(step.full, str)
    assert_type(step.turn, int | None)
    assert_type(step.seconds, float | None)
    assert_type(row.tenant, str)
    assert_type(row.run_id, str)
    assert_type(row.workflow_id, str)
    assert_type(row.user, str)
    assert_type(row.agent, str)
    assert_type(row.session, str)
    assert_type(row.state, str)
    assert_type(row.reason, str)
    assert_type(row.epoch, int)
    assert_type(row.round, int)
    assert_type(row.opened_at, datetime)
    assert_type(row.closed_at, datetime | None)
    assert_type(row.result_digest, str)
    assert_type(row.content_gone_at, datetime | None)


def usage_is_typed(used: UserUsage, window: CapWindow) -> None:
    """What a user has spent, and of what."""
    assert_type(used.user, str)
    assert_type(used.since, datetime)
    assert_type(used.runs, int)
    assert_type(used.calls, int)
    assert_type(used.usage, Usage)
    assert_type(used.cost, Decimal)
    assert_type(used.windows, tuple[CapWindow, ...])
    assert_type(window.scope, Scope)
    assert_type(window.scope_id, str)
    assert_type(window.dimension, Dimension)
    assert_type(window.period, Period)
    assert_type(window.window_start, datetime)
    assert_type(window.window_end, datetime)
    assert_type(window.cap, int)
    assert_type(window.held, int)
    assert_type(window.settled, int)
    assert_type(window.overrun, int)
    assert_type(window.spent, int)
