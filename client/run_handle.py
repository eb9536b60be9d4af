"""A run as its starter holds it: what it says, what it waits for, how it ended.

An answer counts when the store confirms it: whoever can write to Temporal's namespace could have
forged the workflow's result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHistory,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition, RawValue, SearchAttributeKey
from temporalio.exceptions import CancelledError, FailureError

from runward.client.answering import LIST_RUNS, NoWorkerAnswered, answered, no_worker
from runward.client.beginning import agents_origin, governed_id, no_agent_run, started
from runward.client.confirmation import (
    ASK_WHO_OPERATES,
    SEE_STORY,
    Confirmation,
    Origin,
    invalid_end,
)
from runward.client.ended import by_last_words, by_result, by_store
from runward.client.events import events
from runward.client.labels import memo
from runward.client.reader import Reader, needs_reader
from runward.client.resetting import reset_before
from runward.client.stories import told
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.approvals import Approval, ApprovalRequest
from runward.contracts.content import Changed
from runward.contracts.errors import (
    AgentError,
    NotFound,
    RequestRefused,
)
from runward.contracts.progress import Progress
from runward.contracts.runs import RunEnd, RunResult, RunStatus, usd
from runward.contracts.story import Story
from runward.contracts.usage import Usage
from runward.workflows.payloads import read

Output = TypeVar("Output")

QUERY_TIMEOUT = timedelta(seconds=10)
WHO_ANSWERS = "Agent runs answer it, and your own workflows where a worker governs them"
POLL_S_MIN, POLL_S_MAX = 0.05, 1.0  # between two looks for an approval; doubles up to the second
FIRST_LOOK_S = 2.0  # that a worker has at least: who waits shorter asks for one look, not for none
_TENANT = SearchAttributeKey.for_keyword(names.TENANT_ATTRIBUTE)
_REQUESTS: TypeAdapter[list[ApprovalRequest]] = TypeAdapter(list[ApprovalRequest])


# Timeouts are parameters (ASYNC109): `result(timeout=5)` is what users of futures know.
class RunHandle(Generic[Output]):
    """One run. A handle is an id and a connection: make as many as you like."""

    def __init__(
        self,
        temporal: Client,
        workflow_id: str,
        *,
        tenant: str,
        reader: Reader | None = None,
        agent: Agent[Output] | None = None,
        origin: Origin | None = None,
        tenant_tag: str = "",
    ) -> None:
        self._temporal = temporal
        self._tenant = tenant
        self._tenant_tag = tenant_tag
        self._checked = origin is not None  # whoever started a run need not ask whose it is
        self._reader = reader
        self._confirmation = Confirmation(workflow_id, tenant, reader, agent)
        self._origin = origin
        self._handle = temporal.get_workflow_handle(
            workflow_id,
            first_execution_run_id=origin.run_id if origin else None,
            result_type=RawValue,
        )

    @property
    def id(self) -> str:
        """Returns the workflow id; `ActingClient.get` makes a handle of it again."""
        return self._handle.id

    async def result(self, timeout: float | None = None) -> RunResult[Output]:  # noqa: ASYNC109
        """Returns how the run ended, once it has; at most `timeout` seconds are waited.

        An interrupted run returns as well: look at `interrupted` before `parsed`, which is None
        where an interrupted run left nothing that can be parsed.

        Raises AgentError for a run that failed, was terminated, or whose answer the store does not
        confirm, and its OutputValidationError for one whose answer was not of the agent's output
        type, before its repair and after it; Temporal's WorkflowFailureError with a CancelledError
        as its cause for one that was cancelled; TimeoutError.
        """
        await self.check()
        origin = await self._began()  # first: of a workflow that is none of ours nothing is told
        end = await self._end(timeout)
        output = await self._confirmation.output(end, origin)
        return RunResult(
            output=output,
            parsed=self._confirmation.parse(output, interrupted=bool(end.interruption_reason)),
            turns=end.turns,
            usage=Usage(*end.usage),
            cost=usd(end.cost),
            interrupted=bool(end.interruption_reason),
            interruption_reason=end.interruption_reason or None,
            started_at=end.started_at,
            finished_at=end.finished_at,
            session_id=origin.session_id,
            run_id=origin.run_id,
            fallback_models=end.fallback_models,
        )

    async def status(self) -> RunStatus:
        """Returns what the run does now, or how it ended.

        Its state is running, waiting or parked, which a worker must be there to say; afterwards
        answered, interrupted, cancelled, failed, or ended where it was stopped from outside. Of an
        end without a result a worker must say the figures where this client has no store.
        """
        await self.check()
        await self._began()
        try:
            said, pending = await asyncio.gather(
                self._query(names.STATUS_QUERY), self._query(names.PENDING_QUERY)
            )
        except WorkflowQueryRejectedError as rejected:
            return await self._ended(rejected.status)
        status = read(RunStatus, said)
        waiting = tuple(one.id for one in _requests(pending))
        if waiting and status.state == "running":
            return status.model_copy(update={"state": "waiting", "waiting_for": waiting})
        return status

    async def next_approval(self, timeout: float = 30) -> Approval:  # noqa: ASYNC109
        """Returns the first pending approval request of this run, as soon as there is one.

        It looks once whatever the `timeout`, for which a worker has two seconds. Raises AgentError
        if the run ends first; after `timeout` seconds TimeoutError, or NoWorkerAnswered where no
        worker was there to say what is pending.
        """
        asked = f"The next approval of {self.id!r}"
        reader = needs_reader(self._reader, asked)
        await self.check()
        pause = POLL_S_MIN
        silence: NoWorkerAnswered | None = no_worker(asked)  # until one has answered
        until = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout(max(timeout, FIRST_LOOK_S)) as limit:
                while True:
                    try:
                        pending, silence = await self._pending(), None
                    except NoWorkerAnswered as error:
                        pending, silence = [], error  # a worker may start soon
                    for request in pending:
                        found = await reader.approval(self._tenant, request.id)
                        if found is not None and found.state == "pending":
                            return found
                    limit.reschedule(until)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, POLL_S_MAX)
        except TimeoutError:
            if silence is not None:
                raise silence from None
            raise

    async def watch(self, after: str = "") -> AsyncIterator[Progress]:
        """Yields what happens in the run, from its beginning until its end.

        Hand on the `offset` of the last event that you have as `after`, and it goes on behind it:
        no event is missed or told twice, also over a lost connection to the store.

        The end of a run that was terminated or timed out, and any end of a workflow of your own,
        comes with a worker's sweep: two and a half minutes later at most, unless
        RUNWARD_SWEEP_EVERY_S says otherwise or over a hundred runs are open; without a worker
        it does not come.
        """
        reader = needs_reader(self._reader, f"Watching {self.id!r}")
        await self.check()
        run_id = await self._recorded(reader)
        async for one in events(reader, self._tenant, run_id, after, self._over):
            yield one

    async def story(self) -> Story:
        """Returns the run's calls so far: what they cost, who allowed them, what became of them.

        Of a run that goes on Temporal says which calls did not come about yet, and why. It tells of
        a workflow of your own as well, once a call of it was governed; its `run.agent` is its type.
        """
        asked = f"The story of {self.id!r}"
        reader = needs_reader(self._reader, asked)
        await self.check()
        run_id = await self._recorded(reader)

        async def stored() -> Story | None:
            return await reader.story(self._tenant, run_id)

        async def described() -> WorkflowExecutionDescription:
            return await answered(self._handle.describe(), asked)

        return await told(asked, stored, described)

    async def content(self, digest: str) -> AsyncIterator[bytes]:
        """Yields large content of this run in chunks: a tool's whole result, a file it was given.

        Chunks have 1 MiB, the last one less; it comes once the whole was compared with the digest.
        Raises AgentError where there is none of that digest, or it is not what the digest names.
        """
        asked = f"The content {digest!r} of {self.id!r}"
        reader = needs_reader(self._reader, asked)
        await self.check()
        origin, found = await self._began(), False
        try:
            async for chunk in reader.chunks(self._tenant, origin.run_id, digest):
                found = True
                yield chunk
        except Changed:
            raise AgentError(
                asked, "What the store holds is not what its digest names", ASK_WHO_OPERATES
            ) from None
        if not found:
            raise AgentError(
                asked, await self._confirmation.missing(reader, origin, digest), SEE_STORY
            )

    async def reset(self, before: str, reason: str) -> None:
        """Runs the run again from one of its calls on, such as `t3.model`, as a new epoch of it.

        Models are asked anew; a tool's call that comes again as it was has its recorded outcome.
        Raises NotFound where the newest execution has no such call.
        """
        await self.check()
        await reset_before(self._temporal, self.id, before, reason)

    async def history(self) -> WorkflowHistory:
        """Returns the history of the run's newest execution, to be replayed or kept."""
        await self.check()
        return await answered(self._handle.fetch_history(), f"The history of {self.id!r}")

    async def cancel(self) -> None:
        """Asks the run to end; a run that has answered already keeps its answer."""
        await self.check()
        await answered(self._handle.cancel(), f"Cancel of {self.id!r}")

    async def terminate(self, reason: str) -> None:
        """Ends the run at once and without its cooperation; the store is told by a sweep.

        Raises RequestRefused for a run that has ended.
        """
        await self.check()
        asked = f"Terminate of {self.id!r}"
        try:
            await answered(self._handle.terminate(reason=reason), asked)
        except NotFound as error:  # it was there in the check: Temporal says so of what has ended
            raise RequestRefused(asked, "It has ended already", SEE_STORY) from error

    async def check(self) -> None:
        """Raises NotFound for a run of another tenant, and for one that is not there.

        Every other call does this first, where the handle was made from an id. Workflows of users'
        own carry no tenant's tag: whoever has their ids reaches them.
        """
        if self._checked:
            return
        asked = f"The run {self.id!r}"
        found = await answered(self._handle.describe(), asked)
        tag = found.typed_search_attributes.get(_TENANT)
        if tag is None:
            tag = await memo(found, names.TENANT_ATTRIBUTE, asked)
        if tag not in (None, self._tenant_tag):
            first = found.raw_description.workflow_execution_info.first_run_id
            # Tags differ as well where the run's starter had another tag key; the store knows.
            if self._reader is None or await self._reader.run(self._tenant, first) is None:
                raise NotFound(asked, f"Tenant {self._tenant!r} has no run of that id", LIST_RUNS)
        self._checked = True

    async def _over(self) -> bool:
        found = await answered(self._handle.describe(), f"The run {self.id!r}")
        return found.status is not WorkflowExecutionStatus.RUNNING

    async def _ended(self, how: WorkflowExecutionStatus | None) -> RunStatus:
        assert how is not None, "the server says why it rejects"
        if how is WorkflowExecutionStatus.COMPLETED:
            return by_result(await self._end(None))
        if self._reader is not None:
            story = await self._reader.story(self._tenant, (await self._began()).run_id)
            if story is not None and story.run.content_gone_at is None:
                return by_store(story, how)
        last = await self._query(names.STATUS_QUERY, ended=True)
        return by_last_words(read(RunStatus, last), how)

    async def _end(self, seconds: float | None) -> RunEnd:
        try:
            async with asyncio.timeout(seconds):
                value = await answered(self._handle.result(), f"The run {self.id!r}")
        except WorkflowFailureError as error:
            if isinstance(error.cause, CancelledError):
                raise
            invalid = invalid_end(error.cause)
            if invalid is not None:
                origin = await self._began()
                raise await self._confirmation.invalid(invalid, origin) from error
            ended = f"The run {self.id!r} ended without an answer"
            raise AgentError(ended, said(error), SEE_STORY) from error
        try:
            return read(RunEnd, value)
        except (ValidationError, AttributeError):
            raise no_agent_run(f"The result of {self.id!r}") from None

    async def _began(self) -> Origin:
        """Returns the run's origin; of a run that another process started, from its history."""
        if self._origin is None:
            asked = f"The run {self.id!r}"
            start = await started(self._handle, asked)
            self._origin = await agents_origin(start, self._temporal.data_converter, asked)
        return self._origin

    async def _recorded(self, reader: Reader) -> str:
        """Returns the id under which the store tells of it, be it a user's own workflow."""
        if self._origin is None:
            asked, converter = f"The run {self.id!r}", self._temporal.data_converter
            start = await started(self._handle, asked)
            if start.workflow_type.name != names.AGENT_RUN:
                return await governed_id(start, converter, reader, self._tenant, asked)
            self._origin = await agents_origin(start, converter, asked)
        return self._origin.run_id

    async def _pending(self) -> list[ApprovalRequest]:
        try:
            value = await self._query(names.PENDING_QUERY)
        except WorkflowQueryRejectedError as error:
            raise AgentError(
                f"The next approval of {self.id!r}", "The run has ended", SEE_STORY
            ) from error
        try:
            return _requests(value)
        except ValidationError:
            raise no_agent_run(f"The next approval of {self.id!r}") from None

    async def _query(self, name: str, *, ended: bool = False) -> RawValue:
        """Returns what the workflow answers; one that has ended only where that is asked for."""
        asked = f"The query {name!r} to {self.id!r}"
        try:
            return cast(
                RawValue,
                await answered(
                    self._handle.query(
                        name,
                        result_type=RawValue,
                        reject_condition=None if ended else QueryRejectCondition.NOT_OPEN,
                        rpc_timeout=QUERY_TIMEOUT,
                    ),
                    asked,
                    by_worker=True,
                ),
            )
        except WorkflowQueryFailedError as error:
            raise RequestRefused(asked, error.message, WHO_ANSWERS) from error
        except WorkflowQueryRejectedError as rejected:
            if rejected.status is not WorkflowExecutionStatus.CONTINUED_AS_NEW:
                raise
            return await self._query(name, ended=ended)  # the run goes on, in its next execution


def said(error: WorkflowFailureError) -> str:
    """Returns the message of what made the workflow fail, below Temporal's own wrappings."""
    cause: BaseException = error.cause
    while isinstance(cause, FailureError) and isinstance(cause.cause, FailureError):
        cause = cause.cause
    return cause.message if isinstance(cause, FailureError) else str(cause)


def _requests(value: Any) -> list[ApprovalRequest]:
    return _REQUESTS.validate_json(value.payload.data)
