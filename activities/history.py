"""A run's steps as Temporal's history tells them: the last source of a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue

from runward.activities.transcripts import History
from runward.contracts.steps import Run

EXECUTIONS_MAX = 1_000  # of one chain of continue-as-new


def history_of(client: Client) -> History:
    """Returns a function that reads a run's whole chain of executions, oldest first."""

    async def read(run: Run) -> Sequence[tuple[str, bytes, bytes]]:
        steps: list[tuple[str, bytes, bytes]] = []
        run_id: str | None = run.run_id
        for _ in range(EXECUTIONS_MAX):
            if run_id is None:
                break
            handle = client.get_workflow_handle(run.workflow_id, run_id=run_id)
            run_id = await _execution(client, handle, steps)
        return steps

    return read


async def _execution(
    client: Client, handle: WorkflowHandle[object, object], steps: list[tuple[str, bytes, bytes]]
) -> str | None:
    """Adds one execution's steps; returns the run id that continues it, if one does."""
    scheduled: dict[int, tuple[str, bytes]] = {}
    following: str | None = None
    async for event in handle.fetch_history_events():
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                attributes = event.activity_task_scheduled_event_attributes
                given = await _raw(client, attributes.input)
                scheduled[event.event_id] = (
                    attributes.activity_id,
                    given,
                )
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                came = await _raw(client, done.result)
                name, data = scheduled[done.scheduled_event_id]
                if came:
                    steps.append((name, data, came))
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                attributes_ = event.workflow_execution_continued_as_new_event_attributes
                following = attributes_.new_execution_run_id
    return following


async def _raw(client: Client, payloads: Payloads) -> bytes:
    """Returns the first payload's bytes, decoded by the client's codec."""
    values = await client.data_converter.decode(payloads.payloads, [RawValue])
    return bytes(values[0].payload.data) if values else b""
