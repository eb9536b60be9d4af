"""How a run ended: by its result, by the store's row, or else by Temporal's word alone."""

from __future__ import annotations

from typing import cast

from temporalio.client import WorkflowExecutionStatus

from runward.contracts.runs import EndState, RunEnd, RunStatus
from runward.contracts.story import Story

# Of executions whose end no row tells; one that completed all the same is a user's own workflow.
ENDS: dict[WorkflowExecutionStatus, EndState] = {
    WorkflowExecutionStatus.COMPLETED: "ended",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "ended",
    WorkflowExecutionStatus.TIMED_OUT: "ended",
}


def reason_of(how: WorkflowExecutionStatus) -> str:
    """Returns the reason of an end that only Temporal tells of."""
    return f"execution {how.name.lower().replace('_', ' ')}"


def by_result(end: RunEnd) -> RunStatus:
    """Returns how a run ended that has a result."""
    return RunStatus(
        state="interrupted" if end.interruption_reason else "answered",
        turn=end.turns,
        usage=end.usage,
        cost=end.cost,
        reason=end.interruption_reason,
    )


def by_store(story: Story, how: WorkflowExecutionStatus) -> RunStatus:
    """Returns how a run without a result ended; its row may not say so before the next sweep."""
    run, used = story.run, story.usage
    told = run.state != "open"
    return RunStatus(
        state=cast("EndState", run.state) if told else ENDS[how],
        turn=story.turns,
        usage=(used.input, used.cache_read, used.cache_write, used.output),
        cost=sum(one.cost for one in story.steps),
        reason=run.reason if told else reason_of(how),
    )


def by_last_words(last: RunStatus, how: WorkflowExecutionStatus) -> RunStatus:
    """Returns how a run without a result ended that told this before."""
    return last.model_copy(update={"state": ENDS[how], "reason": reason_of(how)})
