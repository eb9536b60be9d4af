"""The door for runs: a user asks an agent, under a key that makes asking twice harmless."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload
from uuid import uuid4

from temporalio.client import Client
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from runward.client.answering import LIST_RUNS, admitted_by_temporal, answered
from runward.client.approvals import Approvals
from runward.client.confirmation import Origin
from runward.client.keys import TicketSource
from runward.client.labels import Labelling, Tags, memo
from runward.client.reader import Reader, needs_reader
from runward.client.requests import admitted, sent
from runward.client.run_handle import RunHandle
from runward.client.tickets import ticketed_client
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.encoding import is_clean
from runward.contracts.errors import NotFound, RequestRefused
from runward.contracts.files import File
from runward.contracts.identity import Principal
from runward.contracts.runs import RunInput, RunResult, RunState
from runward.contracts.story import RunQuery, RunRow, UserUsage, month_begin
from runward.workflows.payloads import raw

Output = TypeVar("Output")

START_TIMEOUT = timedelta(seconds=10)  # of one try; the SDK tries for ten seconds


class ActingClient:
    """The client of one user: everything it starts and decides is done in that user's name."""

    def __init__(
        self,
        temporal: Client,
        principal: Principal,
        *,
        issuer: TicketSource,
        reader: Reader | None = None,
        task_queue: str = names.TASK_QUEUE,
        labelling: Labelling | None = None,
    ) -> None:
        self.principal = principal
        self._labelling = labelling or Labelling(temporal)
        self._issuer = issuer
        self.task_queue = task_queue
        self._reader = reader
        self._temporal = ticketed_client(temporal, principal, issuer)
        self._approvals = Approvals(self._temporal, principal, issuer=issuer, reader=reader)

    @property
    def temporal(self) -> Client:
        """Returns a Temporal client that carries this user's tickets, for your own workflows."""
        return self._temporal

    @property
    def tags(self) -> Tags:
        """Returns the tags by which runs are found in Temporal: `tags.of(principal, agent)`."""
        return self._labelling.tags

    @property
    def approvals(self) -> Approvals:
        """Returns the tenant's approval requests, decided in this user's name."""
        return self._approvals

    @overload
    async def start(
        self,
        agent: str,
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunHandle[str]: ...
    @overload
    async def start(
        self,
        agent: Agent[Output],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunHandle[Output]: ...
    async def start(
        self,
        agent: str | Agent[Any],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunHandle[Any]:
        """Returns the handle of a run of this agent.

        With a `key`, asking again for the same returns the same run, for as long as Temporal
        retains it. The model sees the `files` with the prompt. Files and a long prompt go through
        the store. Raises RequestRefused for a key that stands for another request, and for a
        request that is too large.
        """
        definition = agent if isinstance(agent, Agent) else None
        name = agent.name if isinstance(agent, Agent) else agent
        whole = admitted(name, prompt, session_id, files)
        request = await sent(whole, files, self._reader, self.principal.tenant)
        tags = self._labelling.tags
        workflow_id = run_workflow_id(self.principal, key, tags)
        labels = await self._labelling.of(self.principal, name)
        try:
            start = self._temporal.start_workflow(
                names.AGENT_RUN,
                raw(RunInput(request=request)),
                id=workflow_id,
                task_queue=self.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                # Not USE_EXISTING: it would not tell a new run from an old one.
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={names.REQUEST_DIGEST_MEMO: request.digest, **labels.memo},
                search_attributes=labels.search_attributes,
                static_summary=name,
                static_details=_details(self.principal, tags, workflow_id),
                priority=Priority(fairness_key=tags.tenant(self.principal)),
                rpc_timeout=START_TIMEOUT,
            )
            asked = f"A run of agent {name!r}"
            started = await admitted_by_temporal(start, asked, keyed=key is not None)
            run_id = started.first_execution_run_id or ""
        except WorkflowAlreadyStartedError:
            # A client without a store asks for the same in other words.
            same = {request.digest} if files else {request.digest, whole.digest}
            run_id = await self._same_run(workflow_id, same, key)
        return self._handle(workflow_id, definition, Origin(run_id, request.session_id))

    @overload
    async def execute(
        self,
        agent: str,
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunResult[str]: ...
    @overload
    async def execute(
        self,
        agent: Agent[Output],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunResult[Output]: ...
    async def execute(
        self,
        agent: str | Agent[Any],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
        files: Sequence[File] = (),
    ) -> RunResult[Any]:
        """Returns the result of a run that is started, or found under its key."""
        run = await self.start(agent, prompt, key=key, session_id=session_id, files=files)
        return await run.result()

    @overload
    def get(self, workflow_id: str, agent: None = None) -> RunHandle[str]: ...
    @overload
    def get(self, workflow_id: str, agent: Agent[Output]) -> RunHandle[Output]: ...
    def get(self, workflow_id: str, agent: Agent[Any] | None = None) -> RunHandle[Any]:
        """Returns the handle of a run by its id; nothing is asked of the server yet.

        Raises NotFound for what cannot be an id.
        """
        if not workflow_id or not is_clean(workflow_id):
            raise NotFound(f"The run {workflow_id!r}", "No run has such an id", LIST_RUNS)
        return self._handle(workflow_id, agent, None)

    async def list(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        state: RunState | None = None,
        session_id: str | None = None,
        limit: int = 100,
    ) -> builtins.list[RunRow]:
        """Returns the tenant's runs of which all that is given holds, newest first.

        Only runs whose first step has reached the store are in it. Raises RequestRefused for names
        and states that no run can have, and for a limit out of 1 to 10,000.
        """
        query = RunQuery(user, agent, state, session_id, limit)
        reader = needs_reader(self._reader, "The list of runs")
        return await reader.runs(self.principal.tenant, query)

    async def usage_for(self, user: str, since: datetime | None = None) -> UserUsage:
        """Returns what a user of the tenant has spent since then, else in this month (UTC).

        Raises RequestRefused for a name that no user can have.
        """
        if not is_clean(user):
            raise RequestRefused(f"The usage of {user!r}", "No user has such a name", "Correct it")
        reader = needs_reader(self._reader, f"The usage of {user!r}")
        begin = since or month_begin(datetime.now(UTC))
        return await reader.usage(self.principal.tenant, user, begin)

    def _handle(
        self, workflow_id: str, agent: Agent[Any] | None, origin: Origin | None
    ) -> RunHandle[Any]:
        return RunHandle(
            self._temporal,
            workflow_id,
            tenant=self.principal.tenant,
            reader=self._reader,
            agent=agent,
            origin=origin,
            tenant_tag=self._labelling.tags.tenant(self.principal),
        )

    async def _same_run(self, workflow_id: str, digests: set[str], key: str | None) -> str:
        """Returns the first run id of the run that has this id, if it was asked for the same."""
        handle = self._temporal.get_workflow_handle(workflow_id)
        asked = f"A run under the key {key!r}"
        found = await answered(handle.describe(), asked)
        if await memo(found, names.REQUEST_DIGEST_MEMO, asked) not in digests:
            raise RequestRefused(
                asked,
                "This key stands for a run that was asked something else",
                "Use one key per request",
            )
        return found.raw_description.workflow_execution_info.first_run_id


def _details(principal: Principal, tags: Tags, workflow_id: str) -> str:
    """Returns what Temporal's UI says of the run from its start on: tags, never names."""
    return (
        f"for user `{tags.user(principal)}` of tenant `{tags.tenant(principal)}`\n\n"
        f"its story: `runward runs show {workflow_id}`"
    )


def run_workflow_id(principal: Principal, key: str | None, tags: Tags | None = None) -> str:
    """Returns the workflow id of a run: the same for the same user and key, else a new one.

    Ids are seen by everyone who may look at the namespace, so they hold tags, never names.
    """
    if key == "":
        raise RequestRefused("A run under an empty key", "A key names one request", "Leave it out")
    if key is not None and not is_clean(key):
        raise RequestRefused(
            f"A run under the key {key!r}", "It has a NUL, or half a character", "Choose another"
        )
    tags = tags or Tags()
    return f"rw-{tags.user(principal)}-{uuid4().hex if key is None else tags.word(key)}"
