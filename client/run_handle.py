"""A run as its starter holds it: what it says, what it waits for, how it ended.

An answer counts when the store confirms it: whoever can write to Temporal's namespace could have
forged the workflow's result.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition, RawValue, SearchAttributeKey
from temporalio.exceptions import CancelledError, FailureError

from runward.client.answering import NoWorkerAnswered, answered, no_worker
from runward.client.reader import Reader, RunRow
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.approvals import Approval, ApprovalRequest
from runward.contracts.encoding import digest
from runward.contracts.errors import AgentError, ConfigurationError, RequestRefused
from runward.contracts.runs import RunEnd, RunInput, RunResult, RunStatus, usd
from runward.contracts.transcript import AssistantMessage, decode_message
from runward.contracts.usage import Usage
from runward.workflows.payloads import read

Output = TypeVar("Output")

QUERY_TIMEOUT = timedelta(seconds=10)
POLL_S_MIN, POLL_S_MAX = 0.05, 1.0  # between two looks for an approval; doubles up to the second
_TENANT = SearchAttributeKey.for_keyword(names.TENANT_ATTRIBUTE)
_REQUESTS: TypeAdapter[list[ApprovalRequest]] = TypeAdapter(list[ApprovalRequest])


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run began: the first execution of its chain, and the session it belongs to."""

    run_id: str
    session_id: str


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
        self._agent = agent
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
        confirm; Temporal's WorkflowFailureError with a CancelledError as its cause for one that
        was cancelled; TimeoutError.
        """
        await self.check()
        end = await self._end(timeout)
        origin = await self._began()
        output = await self._output(end, origin)
        return RunResult(
            output=output,
            parsed=self._parse(output, interrupted=bool(end.interruption_reason)),
            turns=end.turns,
            usage=Usage(*end.usage),
            cost=usd(end.cost),
            interrupted=bool(end.interruption_reason),
            interruption_reason=end.interruption_reason or None,
            started_at=end.started_at,
            finished_at=end.finished_at,
            session_id=origin.session_id,
            run_id=origin.run_id,
        )

    async def status(self) -> RunStatus:
        """Returns what the run does now. Needs a worker; an ended run tells its last state."""
        await self.check()
        said, pending = await asyncio.gather(
            self._query(names.STATUS_QUERY), self._query(names.PENDING_QUERY)
        )
        status = read(RunStatus, said)
        waiting = tuple(one.id for one in _requests(pending))
        if waiting and status.state == "running":
            return status.model_copy(update={"state": "waiting", "waiting_for": waiting})
        return status

    async def next_approval(self, timeout: float = 30) -> Approval:  # noqa: ASYNC109
        """Returns the first pending approval request of this run, as soon as there is one.

        Raises AgentError if the run ends first; after `timeout` seconds TimeoutError, or
        NoWorkerAnswered where no worker was there to say what is pending.
        """
        asked = f"The next approval of {self.id!r}"
        reader = needs_reader(self._reader, asked)
        await self.check()
        pause = POLL_S_MIN
        silence: NoWorkerAnswered | None = no_worker(asked)  # until one has answered
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        pending, silence = await self._pending(), None
                    except NoWorkerAnswered as error:
                        pending, silence = [], error  # a worker may start soon
                    for request in pending:
                        found = await reader.approval(self._tenant, request.id)
                        if found is not None and found.state == "pending":
                            return found
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, POLL_S_MAX)
        except TimeoutError:
            if silence is not None:
                raise silence from None
            raise

    async def cancel(self) -> None:
        """Asks the run to end; a run that has answered already keeps its answer."""
        await self.check()
        await answered(self._handle.cancel(), f"Cancel of {self.id!r}")

    async def terminate(self, reason: str) -> None:
        """Ends the run at once and without its cooperation; the store is told by a sweep."""
        await self.check()
        await answered(self._handle.terminate(reason=reason), f"Terminate of {self.id!r}")

    async def check(self) -> None:
        """Raises RequestRefused for a run of another tenant, and for one that is not there.

        Every other call does this first, where the handle was made from an id. Workflows of users'
        own carry no tenant's tag: whoever has their ids reaches them.
        """
        if self._checked:
            return
        asked = f"The run {self.id!r}"
        found = await answered(self._handle.describe(), asked)
        tag = found.typed_search_attributes.get(_TENANT)
        if tag is None:
            tag = await found.memo_value(names.TENANT_ATTRIBUTE, None, type_hint=str)
        if tag not in (None, self._tenant_tag):
            first = found.raw_description.workflow_execution_info.first_run_id
            # Tags differ as well where the run's starter had another tag key; the store knows.
            if self._reader is None or await self._reader.run(self._tenant, first) is None:
                raise RequestRefused(asked, f"Tenant {self._tenant!r} has no run of that id")
        self._checked = True

    async def _end(self, seconds: float | None) -> RunEnd:
        try:
            async with asyncio.timeout(seconds):
                value = await answered(self._handle.result(), f"The run {self.id!r}")
        except WorkflowFailureError as error:
            if isinstance(error.cause, CancelledError):
                raise
            raise AgentError(f"The run {self.id!r} ended without an answer", said(error)) from error
        try:
            return read(RunEnd, value)
        except (ValidationError, AttributeError) as error:
            raise RequestRefused(
                f"The result of {self.id!r}",
                "This workflow is no agent run",
                "Use the Temporal client for your own workflows",
            ) from error

    async def _began(self) -> Origin:
        """Returns the run's origin; of a run that another process started, from its history."""
        if self._origin is None:
            events = self._handle.fetch_history_events(page_size=1)
            first = await answered(anext(events), f"The run {self.id!r}")
            started = first.workflow_execution_started_event_attributes
            given = await self._temporal.data_converter.decode(started.input.payloads, [RawValue])
            request = read(RunInput, given[0]).request
            self._origin = Origin(started.first_execution_run_id, request.session_id)
        return self._origin

    async def _output(self, end: RunEnd, origin: Origin) -> str:
        if self._reader is None:
            if end.ref:
                needs_reader(None, f"The answer of {self.id!r}")
            return end.output
        row = await self._reader.run(self._tenant, origin.run_id)
        if end.interruption_reason:
            if row is None or (row.state, row.reason) != ("interrupted", end.interruption_reason):
                raise self._unconfirmed(row)
            return ""  # such a run has no answer, whatever stands in its place
        output = await self._content(self._reader, end.ref, origin) if end.ref else end.output
        if row is None or row.state != "answered" or row.result_digest != digest(output.encode()):
            raise self._unconfirmed(row)
        return output

    def _unconfirmed(self, row: RunRow | None) -> AgentError:
        return AgentError(
            f"The result of {self.id!r}",
            "The store does not confirm this answer"
            + ("" if row is None else f": it holds the run as {row.state!r}"),
            "Ask whoever operates the store and Temporal's namespace",
        )

    async def _missing(self, reader: Reader, origin: Origin, ref: str) -> str:
        """Returns why the store has no content of that digest."""
        row = await reader.run(self._tenant, origin.run_id)
        if row is not None and row.content_gone_at is not None:
            return f"Retention deleted it after {row.content_gone_at:%Y-%m-%d %H:%M %Z}"
        return f"The store does not hold {ref!r}"

    async def _content(self, reader: Reader, ref: str, origin: Origin) -> str:
        """Returns the text of the answer that went by reference."""
        data = await reader.content(self._tenant, ref)
        if data is None or digest(data) != ref:
            raise AgentError(f"The answer of {self.id!r}", await self._missing(reader, origin, ref))
        message = decode_message(data)
        if not isinstance(message, AssistantMessage):
            raise AgentError(f"The answer of {self.id!r}", "It refers to another kind of message")
        return message.text

    def _parse(self, output: str, *, interrupted: bool) -> Output:
        if self._agent is None:
            return cast(Output, output)
        try:
            return self._agent.parse(output)
        except ValidationError as error:
            if interrupted:
                return cast(Output, None)
            raise AgentError(
                f"The answer of {self.id!r} as {self._agent.output_type!r}",
                f"It does not fit: {error.error_count()} errors in {output[:80]!r}",
                "Read it with get(id).result(), which parses nothing",
            ) from error

    async def _pending(self) -> list[ApprovalRequest]:
        try:
            value = await self._query(names.PENDING_QUERY, open_only=True)
        except WorkflowQueryRejectedError as error:
            raise AgentError(
                f"The next approval of {self.id!r}", "The run has ended", "Read its result()"
            ) from error
        return _requests(value)

    async def _query(self, name: str, *, open_only: bool = False) -> RawValue:
        asked = f"The query {name!r} to {self.id!r}"
        try:
            return cast(
                RawValue,
                await answered(
                    self._handle.query(
                        name,
                        result_type=RawValue,
                        reject_condition=QueryRejectCondition.NOT_OPEN if open_only else None,
                        rpc_timeout=QUERY_TIMEOUT,
                    ),
                    asked,
                ),
            )
        except WorkflowQueryFailedError as error:
            raise RequestRefused(asked, error.message) from error


def needs_reader(reader: Reader | None, asked: str) -> Reader:
    """Returns the reader; raises ConfigurationError, naming the setting, if there is none."""
    if reader is None:
        raise ConfigurationError(
            asked,
            "It is in the store, and this client has no way to read it",
            "Connect with database_url=, or set RUNWARD_DATABASE_URL",
        )
    return reader


def said(error: WorkflowFailureError) -> str:
    """Returns the message of what made the workflow fail, below Temporal's own wrappings."""
    cause: BaseException = error.cause
    while isinstance(cause, FailureError) and isinstance(cause.cause, FailureError):
        cause = cause.cause
    return cause.message if isinstance(cause, FailureError) else str(cause)


def _requests(value: Any) -> list[ApprovalRequest]:
    return _REQUESTS.validate_json(value.payload.data)
