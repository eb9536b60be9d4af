"""What rides on workflows: the start ticket, step ids, and the wait for approvals.

In executions without a ticket nothing happens, so histories from before adoption replay; the worker
refuses governed activities there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, cast

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from runward.contracts import names
from runward.contracts.approvals import ApprovalRequest
from runward.contracts.errors import NEEDS_APPROVAL
from runward.contracts.outcomes import AnyOutcome, NeedsApproval, decode_outcome
from runward.contracts.wire import JSON_PLAIN, decode_wire
from runward.interceptors.waiting import Waiting
from runward.workflows.cancelling import stop_if_cancelled

_NOT_STEPS = (names.CLOSE_RUN, names.DECIDE_APPROVAL, names.RESOLVE_STEP)
_CONTINUED = Payload(metadata=JSON_PLAIN, data=b'{"c":1}')


class GovernedWorkflow(Interceptor):
    """Makes workflows carry what their steps need; `governed` says which types are steps."""

    def __init__(self, governed: Callable[[str], bool]) -> None:
        self._governed = governed

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        """Returns the inbound side; it knows this worker's governed types."""
        governed = self._governed

        class Inbound(_Inbound):
            is_step = staticmethod(governed)

        return Inbound


class _Inbound(WorkflowInboundInterceptor):
    is_step: Callable[[str], bool]

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._outbound = _Outbound(outbound, self.is_step)
        super().init(self._outbound)

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        self._outbound.begin(input.headers)
        return await super().execute_workflow(input)


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(
        self, following: WorkflowOutboundInterceptor, is_step: Callable[[str], bool]
    ) -> None:
        super().__init__(following)
        self._is_step = is_step
        self._ticket: Payload | None = None
        self._carries = False
        self._steps = 0
        self._waiting = Waiting()

    def begin(self, headers: Mapping[str, Payload]) -> None:
        """Takes the start's headers in; without any of ours this execution is not governed."""
        self._ticket = headers.get(names.TICKET_HEADER)
        carried = headers.get(names.STEP_HEADER)
        self._carries = self._ticket is not None or carried is not None
        if self._carries:
            self._waiting.listen()

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        if not self._carries or input.activity in _NOT_STEPS or not self._steps_here(input):
            return super().start_activity(input)
        own = workflow.info().workflow_type == names.AGENT_RUN
        if not own:
            self._steps += 1
            mine = f"a{self._steps}"
            given = f"{mine}:{input.activity_id}" if input.activity_id else mine
            input = replace(input, activity_id=given)
        # Scheduled at once, as without us; only what comes back is looked at in a task of ours.
        first = super().start_activity(self._headed(input, None))
        resets = self._waiting.resets
        run = self._own(input, first, resets) if own else self._foreign(input, first, resets)
        # The loop's own task, so that it ends with the execution when that leaves the cache.
        task = asyncio.create_task(run, name=f"step {input.activity_id}")
        return cast("workflow.ActivityHandle[Any]", task)

    def _steps_here(self, input: StartActivityInput) -> bool:
        return workflow.info().workflow_type == names.AGENT_RUN or self._is_step(input.activity)

    def _headed(self, input: StartActivityInput, approval: str | None) -> StartActivityInput:
        headers = dict(input.headers)
        if self._ticket is not None:
            headers[names.TICKET_HEADER] = self._ticket
        if approval is not None:
            data = b'{"a":"' + approval.encode() + b'"}'
            headers[names.STEP_HEADER] = Payload(metadata=JSON_PLAIN, data=data)
        return replace(input, headers=headers)

    async def _own(
        self, input: StartActivityInput, handle: workflow.ActivityHandle[Any], resets: int
    ) -> AnyOutcome:
        """Returns the step's outcome; a call that needs approval waits and is scheduled again."""
        while True:
            raw = await handle
            self._ticket = None  # the run is open: from now on the store knows who this is
            outcome = decode_outcome(raw.payload.data)
            if not isinstance(outcome, NeedsApproval):
                return outcome
            stop_if_cancelled()
            await self._waiting.until_decided(outcome.request, resets)
            resets = self._waiting.resets
            again = replace(input, summary=f"{input.summary} · again")
            handle = super().start_activity(self._headed(again, outcome.request.id))

    async def _foreign(
        self, input: StartActivityInput, handle: workflow.ActivityHandle[Any], resets: int
    ) -> Any:
        """Returns the activity's bare value; refusals are the ApplicationErrors they arrived as."""
        while True:
            try:
                value = await handle
                self._ticket = None
                return value
            except ActivityError as error:
                request = _asked(error)
                if request is None:
                    raise
                self._ticket = None
                stop_if_cancelled()
                await self._waiting.until_decided(request, resets)
                resets = self._waiting.resets
                handle = super().start_activity(self._headed(input, request.id))

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        if self._carries:
            headers = {**input.headers, names.STEP_HEADER: _CONTINUED}
            input = replace(input, headers=headers)
        super().continue_as_new(input)


def _asked(error: ActivityError) -> ApprovalRequest | None:
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type == NEEDS_APPROVAL and cause.details:
        return decode_wire(ApprovalRequest, str(cause.details[0]).encode())
    return None
