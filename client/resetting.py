"""Resets: a run begins again at one of its calls. Temporal does it; the store makes it an epoch."""

from __future__ import annotations

from uuid import uuid4

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from runward.client.answering import answered
from runward.contracts.errors import NotFound


async def reset_before(temporal: Client, workflow_id: str, step: str, reason: str) -> None:
    """Resets the newest execution to the workflow task that scheduled that step."""
    asked = f"A reset of {workflow_id!r} to before {step!r}"
    task = await answered(_task_of(temporal, workflow_id, step), asked)
    if task is None:
        instead = (
            f"`runward runs show {workflow_id}` has those that there were;"
            " those before a continue-as-new stay as they are"
        )
        raise NotFound(asked, "The run's newest execution has no such call", instead)
    request = ResetWorkflowExecutionRequest(
        namespace=temporal.namespace,
        workflow_execution=WorkflowExecution(workflow_id=workflow_id),
        reason=reason,
        workflow_task_finish_event_id=task,
        request_id=uuid4().hex,
    )
    await answered(temporal.workflow_service.reset_workflow_execution(request), asked)


async def _task_of(temporal: Client, workflow_id: str, step: str) -> int | None:
    """Returns the workflow task that scheduled the step first, None if there is no such step."""
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    async for event in temporal.get_workflow_handle(workflow_id).fetch_history_events():
        if event.event_type == scheduled:
            found = event.activity_task_scheduled_event_attributes
            if found.activity_id == step:
                return int(found.workflow_task_completed_event_id)
    return None
