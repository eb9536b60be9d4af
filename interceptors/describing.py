"""What the server says of an execution: the one source on it that no client can write."""

from __future__ import annotations

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
)
from temporalio.client import Client

from runward.interceptors.identity import Describe, Execution

_RESTARTS = (
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY,
    ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE,
)


def describer(client: Client) -> Describe:
    """Returns a function that describes executions in the client's namespace."""

    async def describe(workflow_id: str, run_id: str) -> Execution:
        execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
        seen = await client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution)
        )
        first = seen.workflow_execution_info.first_run_id
        if seen.workflow_extended_info.HasField("last_reset_time"):
            return Execution(first, "reset")
        if first == run_id:
            return Execution(first, "first")
        page = await client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=client.namespace, execution=execution, maximum_page_size=1
            )
        )
        started = page.history.events[0].workflow_execution_started_event_attributes
        return Execution(first, "retried" if started.initiator in _RESTARTS else "continued")

    return describe
