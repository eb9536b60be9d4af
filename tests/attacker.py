"""Somebody with access to the namespace and to nothing else: no key, no store, raw gRPC only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel
from temporalio.api.command.v1 import Command, ScheduleActivityTaskCommandAttributes
from temporalio.api.common.v1 import ActivityType, Header, Payload, Payloads, WorkflowType
from temporalio.api.enums.v1 import CommandType, EventType, WorkflowIdReusePolicy
from temporalio.api.history.v1 import (
    HistoryEvent,
    WorkflowExecutionStartedEventAttributes,
)
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollWorkflowTaskQueueRequest,
    RespondActivityTaskCompletedByIdRequest,
    RespondWorkflowTaskCompletedRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowHandle

from runward.contracts.policy import StandardPermissions
from runward.contracts.wire import JSON_PLAIN, encode_wire
from runward.testing.stack import Stack

ROGUE = "rogue"
ACTIVITY_TIMEOUT = Duration(seconds=30)
POLL = timedelta(seconds=30)
LOOK_AGAIN_S = 0.02
FREE = StandardPermissions(mode="bypassPermissions")  # only the attack itself can be refused


def payload(value: BaseModel) -> Payload:
    """Returns a payload as our own workflows write it."""
    return Payload(metadata=JSON_PLAIN, data=encode_wire(value))


class Attacker:
    """What can be done to a tenant's runs through Temporal alone."""

    def __init__(self, temporal: Client, task_queue: str) -> None:
        self._temporal = temporal
        self._task_queue = task_queue

    @classmethod
    async def of(cls, stack: Stack) -> Attacker:
        """Returns an attacker of this stack's task queue."""
        return cls(await Client.connect(stack.temporal_address), stack.task_queue)

    def handle(self, workflow_id: str, run_id: str | None = None) -> WorkflowHandle[Any, Any]:
        """Returns a plain handle."""
        return self._temporal.get_workflow_handle(workflow_id, run_id=run_id)

    async def started(self, workflow_id: str) -> WorkflowExecutionStartedEventAttributes:
        """Returns how a workflow was started: its input, and its headers with the ticket."""
        async for event in self.handle(workflow_id).fetch_history_events():
            return event.workflow_execution_started_event_attributes
        raise AssertionError("a history has a first event")

    async def start(
        self,
        workflow_type: str,
        given: Sequence[Payload],
        *,
        workflow_id: str,
        headers: Mapping[str, Payload] | None = None,
    ) -> WorkflowHandle[Any, Any]:
        """Starts a workflow with any headers."""
        answer = await self._temporal.workflow_service.start_workflow_execution(
            StartWorkflowExecutionRequest(
                namespace=self._temporal.namespace,
                workflow_id=workflow_id,
                workflow_type=WorkflowType(name=workflow_type),
                task_queue=TaskQueue(name=self._task_queue),
                input=Payloads(payloads=given),
                header=Header(fields=headers or {}),
                request_id=uuid4().hex,
                identity=ROGUE,
                workflow_id_reuse_policy=(
                    WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
                ),
            )
        )
        return self.handle(workflow_id, answer.run_id)

    async def complete(self, workflow_id: str, step: str, outcome: Payload) -> None:
        """Answers a pending activity in its worker's place."""
        await self._temporal.workflow_service.respond_activity_task_completed_by_id(
            RespondActivityTaskCompletedByIdRequest(
                namespace=self._temporal.namespace,
                workflow_id=workflow_id,
                activity_id=step,
                result=Payloads(payloads=[outcome]),
                identity=ROGUE,
            )
        )

    async def schedule(
        self,
        activity_type: str,
        given: Payload,
        *,
        step: str,
        headers: Mapping[str, Payload] | None = None,
    ) -> str:
        """Polls the queue in a worker's place and lets the workflow schedule an activity.

        Returns the workflow's id. A worker must not be running, or it would be a race.
        """
        task = await self._temporal.workflow_service.poll_workflow_task_queue(
            PollWorkflowTaskQueueRequest(
                namespace=self._temporal.namespace,
                task_queue=TaskQueue(name=self._task_queue),
                identity=ROGUE,
            ),
            timeout=POLL,
        )
        assert task.task_token, "there was no workflow task to steal"
        await self._temporal.workflow_service.respond_workflow_task_completed(
            RespondWorkflowTaskCompletedRequest(
                namespace=self._temporal.namespace,
                task_token=task.task_token,
                identity=ROGUE,
                commands=[
                    Command(
                        command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
                        schedule_activity_task_command_attributes=(
                            ScheduleActivityTaskCommandAttributes(
                                activity_id=step,
                                activity_type=ActivityType(name=activity_type),
                                task_queue=TaskQueue(name=self._task_queue),
                                input=Payloads(payloads=[given]),
                                header=Header(fields=headers or {}),
                                start_to_close_timeout=ACTIVITY_TIMEOUT,
                            )
                        ),
                    )
                ],
            )
        )
        return task.workflow_execution.workflow_id

    async def said(self, workflow_id: str, step: str) -> tuple[str, str]:
        """Returns type and message of a step's last failure, pending or final."""
        while True:
            seen = (await self.handle(workflow_id).describe()).raw_description
            for one in seen.pending_activities:
                if one.activity_id == step and one.HasField("last_failure"):
                    return one.last_failure.application_failure_info.type, one.last_failure.message
            async for event in self.handle(workflow_id).fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                    failure = event.activity_task_failed_event_attributes.failure
                    return failure.application_failure_info.type, failure.message
            await asyncio.sleep(LOOK_AGAIN_S)

    async def until(self, workflow_id: str, kind: EventType.ValueType) -> HistoryEvent:
        """Returns the last event of this kind, as soon as there is one."""
        found: HistoryEvent | None = None
        while found is None:
            async for event in self.handle(workflow_id).fetch_history_events():
                found = event if event.event_type == kind else found
            await asyncio.sleep(LOOK_AGAIN_S)
        return found

    async def scheduled(self, workflow_id: str, activity_type: str) -> set[int]:
        """Returns the events by which activities of this type were scheduled."""
        return {
            event.event_id
            async for event in self.handle(workflow_id).fetch_history_events()
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
            and event.activity_task_scheduled_event_attributes.activity_type.name == activity_type
        }

    async def completed(self, workflow_id: str, activity_type: str) -> int:
        """Returns how many activities of this type have completed."""
        scheduled = await self.scheduled(workflow_id, activity_type)
        ended = [
            event.activity_task_completed_event_attributes.scheduled_event_id
            async for event in self.handle(workflow_id).fetch_history_events()
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        ]
        return len(scheduled & set(ended))
