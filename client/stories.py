"""A run's story: what it did the store knows, what it waits for beside people Temporal tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.converter import DataConverter
from temporalio.exceptions import FailureError, ServerError

from runward.client.ended import ENDS, reason_of
from runward.contracts import names
from runward.contracts.errors import NotFound
from runward.contracts.story import PendingCall, Story

NO_WORKER = "no worker has taken it"
LOOK = "`runward doctor` says whether workers are there"
TASK_FAILS = "its workflow task fails and is tried again; the workers' logs say why"


async def told(
    asked: str,
    stored: Callable[[], Awaitable[Story | None]],
    described: Callable[[], Awaitable[WorkflowExecutionDescription]],
) -> Story:
    """Returns the run's story by the store, and where it goes on by Temporal as well.

    Raises NotFound for a run that has not reached the store.
    """
    story = await stored()
    if story is not None and story.run.state != "open":
        return story
    now = await described()
    how = now.status
    if how is None or how is WorkflowExecutionStatus.RUNNING:
        pending = await pending_calls(now)
        if story is None:
            why = f": {pending[0].reason}" if pending else ""
            raise NotFound(asked, f"No step of it has reached the store yet{why}", LOOK)
        return replace(story, pending=pending)
    story = await stored()  # it may have ended since
    if story is None:
        holds = f"No step of it has reached the store: {reason_of(how)}"
        raise NotFound(asked, holds, "`runward runs describe` shows what Temporal has of it")
    if story.run.state != "open":
        return story
    end = replace(story.run, state=ENDS[how], reason=reason_of(how), closed_at=now.close_time)
    return replace(story, run=end)  # as the next sweep will write it


async def pending_calls(found: WorkflowExecutionDescription) -> tuple[PendingCall, ...]:
    """Returns the run's calls that failed to come about, or that no worker has taken."""
    said = found.raw_description
    calls = [await _call(found.data_converter, one) for one in said.pending_activities]
    task = said.pending_workflow_task
    if said.HasField("pending_workflow_task") and not task.HasField("started_time"):
        reason = TASK_FAILS if task.attempt > 1 else NO_WORKER
        calls.append(PendingCall("", "workflow", task.attempt, reason))
    return tuple(one for one in calls if one.reason)


async def _call(converter: DataConverter, one: PendingActivityInfo) -> PendingCall:
    waits = one.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    reason = NO_WORKER if waits else ""
    if one.HasField("last_failure"):
        reason = await _said(converter, one.last_failure)
    again = waits and one.HasField("next_attempt_schedule_time")
    return PendingCall(
        step=one.activity_id,
        name=one.activity_type.name.removeprefix(names.TOOL_PREFIX),
        attempt=one.attempt,
        reason=reason,
        next_try_at=one.next_attempt_schedule_time.ToDatetime(UTC) if again else None,
    )


async def _said(converter: DataConverter, failure: Failure) -> str:
    """Returns the failure's own words, without its causes. A codec may have encrypted them."""
    error = await converter.decode_failure(failure)
    if isinstance(error, ServerError) and error.cause is not None:
        error = error.cause  # the server says only that what follows is long
    return error.message if isinstance(error, FailureError) else str(error)
