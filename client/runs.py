"""The door for runs: a user asks an agent, under a key that makes asking twice harmless."""

from __future__ import annotations

import re
from typing import Any, TypeVar, overload
from uuid import uuid4

from temporalio.client import Client
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from runward.client.approvals import Approvals
from runward.client.keys import TicketSource
from runward.client.labels import Labelling, Tags
from runward.client.reader import Reader
from runward.client.run_handle import Origin, RunHandle
from runward.client.tickets import ticketed_client
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.encoding import clean
from runward.contracts.errors import RequestRefused
from runward.contracts.identity import Principal
from runward.contracts.runs import REQUEST_BYTES_MAX, RunInput, RunRequest, RunResult
from runward.contracts.wire import encode_wire
from runward.workflows.payloads import raw

Output = TypeVar("Output")

NAME_CHARS_MAX = 64
SESSION_CHARS_MAX = 256
_AGENT_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")


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
        self, agent: str, prompt: str, *, key: str | None = None, session_id: str = ""
    ) -> RunHandle[str]: ...
    @overload
    async def start(
        self, agent: Agent[Output], prompt: str, *, key: str | None = None, session_id: str = ""
    ) -> RunHandle[Output]: ...
    async def start(
        self,
        agent: str | Agent[Any],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
    ) -> RunHandle[Any]:
        """Returns the handle of a run of this agent.

        With a `key`, asking again for the same returns the same run, for as long as Temporal
        retains it. Raises RequestRefused for a key that stands for another request, and for a
        request that is too large.
        """
        definition = agent if isinstance(agent, Agent) else None
        name = agent.name if isinstance(agent, Agent) else agent
        request = admitted(name, prompt, session_id)
        tags = self._labelling.tags
        workflow_id = run_workflow_id(self.principal, key, tags)
        labels = await self._labelling.of(self.principal, name)
        try:
            started = await self._temporal.start_workflow(
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
                priority=Priority(fairness_key=tags.tenant(self.principal)),
            )
            run_id = started.first_execution_run_id or ""
        except WorkflowAlreadyStartedError:
            run_id = await self._same_run(workflow_id, request, key)
        return self._handle(workflow_id, definition, Origin(run_id, request.session_id))

    @overload
    async def execute(
        self, agent: str, prompt: str, *, key: str | None = None, session_id: str = ""
    ) -> RunResult[str]: ...
    @overload
    async def execute(
        self, agent: Agent[Output], prompt: str, *, key: str | None = None, session_id: str = ""
    ) -> RunResult[Output]: ...
    async def execute(
        self,
        agent: str | Agent[Any],
        prompt: str,
        *,
        key: str | None = None,
        session_id: str = "",
    ) -> RunResult[Any]:
        """Returns the result of a run that is started, or found under its key."""
        run = await self.start(agent, prompt, key=key, session_id=session_id)
        return await run.result()

    @overload
    def get(self, workflow_id: str) -> RunHandle[str]: ...
    @overload
    def get(self, workflow_id: str, agent: Agent[Output]) -> RunHandle[Output]: ...
    def get(self, workflow_id: str, agent: Agent[Any] | None = None) -> RunHandle[Any]:
        """Returns the handle of a run by its id; nothing is asked of the server yet."""
        return self._handle(workflow_id, agent, None)

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

    async def _same_run(self, workflow_id: str, request: RunRequest, key: str | None) -> str:
        """Returns the first run id of the run that has this id, if it was asked for the same."""
        found = await self._temporal.get_workflow_handle(workflow_id).describe()
        known = await found.memo_value(names.REQUEST_DIGEST_MEMO, "", type_hint=str)
        if known != request.digest:
            raise RequestRefused(
                f"A run under the key {key!r}",
                "This key stands for a run that was asked something else",
                "Use one key per request",
            )
        return found.raw_description.workflow_execution_info.first_run_id


def admitted(agent: str, prompt: str, session_id: str) -> RunRequest:
    """Returns the request; raises RequestRefused for one that no worker could take."""
    if len(agent) > NAME_CHARS_MAX or not _AGENT_NAME.match(agent):
        raise RequestRefused(
            f"A run of agent {agent[:80]!r}",
            f"Names are a-z, 0-9, _ and -, at most {NAME_CHARS_MAX} characters",
        )
    if not prompt:
        raise RequestRefused(f"A run of agent {agent!r}", "The prompt is empty")
    if len(session_id) > SESSION_CHARS_MAX:
        raise RequestRefused(
            f"A run of agent {agent!r}",
            f"The session id has {len(session_id)} characters, at most {SESSION_CHARS_MAX} fit",
        )
    request = RunRequest(agent=agent, prompt=clean(prompt), session_id=clean(session_id))
    size = len(encode_wire(RunInput(request=request)))
    if size > REQUEST_BYTES_MAX:
        raise RequestRefused(
            f"A run of agent {agent!r}",
            f"The request has {size} bytes, at most {REQUEST_BYTES_MAX} fit",
            "Put large content where a tool of the agent can read it",
        )
    return request


def run_workflow_id(principal: Principal, key: str | None, tags: Tags | None = None) -> str:
    """Returns the workflow id of a run: the same for the same user and key, else a new one.

    Ids are seen by everyone who may look at the namespace, so they hold tags, never names.
    """
    if key == "":
        raise RequestRefused("A run under an empty key", "A key names one request", "Leave it out")
    tags = tags or Tags()
    return f"rw-{tags.user(principal)}-{uuid4().hex if key is None else tags.word(key)}"
