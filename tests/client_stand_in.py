"""A stand-in for `AgentRun` on a real Temporal server, and a reader that holds its rows in memory.

The client is tested against what it sees of a run: its update, signal, queries and result. What the
real run does behind them is tested with the workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts import names
from runward.contracts.approvals import (
    Approval,
    ApprovalRequest,
    ApprovalState,
    Decision,
    DecisionResult,
)
from runward.contracts.encoding import digest
from runward.contracts.errors import AGENT_ERROR, REFUSED
from runward.contracts.identity import Issuer
from runward.contracts.runs import RunEnd, RunInput, RunStatus
from runward.contracts.story import RunRow
from runward.contracts.wire import JSON_PLAIN, encode_wire
from runward.workflows.payloads import raw, read

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


@workflow.defn(name=names.AGENT_RUN, sandboxed=False)
class StandIn:
    """Does what its prompt says: answer, ask, fail, wait."""

    def __init__(self) -> None:
        self.asked: list[ApprovalRequest] = []
        self.decisions: list[Decision] = []

    @workflow.run
    async def run(self, start: RawValue) -> RawValue:
        request = read(RunInput, start).request
        word, _, rest = request.prompt.partition(" ")
        match word:
            case "fail":
                raise ApplicationError(rest, type=AGENT_ERROR, non_retryable=True)
            case "wait":
                await asyncio.Event().wait()
            case "ask":
                rest = await self._ask(rest)
            case "limit":
                return raw(_end(rest, reason="max_turns_exceeded"))
            case "ticket":
                rest = workflow.payload_converter().from_payload(
                    workflow.info().headers[names.TICKET_HEADER], str
                )
        return raw(_end(rest))

    async def _ask(self, title: str) -> str:
        until = BEGUN + timedelta(days=9999)
        request = ApprovalRequest(id="ap-1", digest="d1", title=title, expires_at=until)
        self.asked.append(request)
        await workflow.wait_condition(lambda: bool(self.decisions))
        self.asked.clear()
        return self.decisions[0].ticket

    @workflow.update(name=names.DECIDE_UPDATE)
    def decide(self, value: RawValue) -> RawValue:
        decision = read(Decision, value)
        if decision.reason == "not the approver":
            return raw(DecisionResult(accepted=False, state="pending", reason="lacks the role"))
        self.decisions.append(decision)
        return raw(DecisionResult(accepted=True, state="approved"))

    @decide.validator
    def check(self, value: RawValue) -> None:
        if not self.asked:
            raise ApplicationError("not pending here", type=REFUSED)

    @workflow.signal(name=names.DECISION_SIGNAL)
    def on_decision(self, value: RawValue) -> None:
        self.decisions.append(read(Decision, value))

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> RawValue:
        return raw(RunStatus(state="running", turn=1))

    @workflow.query(name=names.PENDING_QUERY)
    def pending(self) -> RawValue:
        rows = b",".join(encode_wire(one) for one in self.asked)
        return RawValue(Payload(metadata=JSON_PLAIN, data=b"[" + rows + b"]"))


@workflow.defn(name="users-own", sandboxed=False)
class UsersOwn:
    """A user's own workflow; returns the ticket it was started with."""

    @workflow.run
    async def run(self) -> str:
        payload = workflow.info().headers[names.TICKET_HEADER]
        ticket: str = workflow.payload_converter().from_payload(payload, str)
        return ticket


class MemoryReader(DirectReader):
    """A reader of rows that a test has put there; there is no store behind what it lacks."""

    def __init__(self) -> None:
        super().__init__("postgresql://127.0.0.1:1/none")
        self.rows: dict[tuple[str, str], RunRow] = {}
        self.requests: dict[tuple[str, str], Approval] = {}
        self.contents: dict[tuple[str, str], bytes] = {}
        self.closed = False

    async def approvals(self, tenant: str, state: ApprovalState) -> list[Approval]:
        found = [one for (where, _), one in self.requests.items() if where == tenant]
        return [one for one in found if one.state == state]

    async def approval(self, tenant: str, approval_id: str) -> Approval | None:
        return self.requests.get((tenant, approval_id))

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        return self.rows.get((tenant, run_id))

    async def content(self, tenant: str, digest: str) -> bytes | None:
        return self.contents.get((tenant, digest))

    async def close(self) -> None:
        self.closed = True

    def answered(self, tenant: str, run_id: str, output: str) -> None:
        """Puts there what the step that answers a run would have recorded."""
        self.rows[(tenant, run_id)] = _row(tenant, run_id, "answered", digest(output.encode()))

    def asks(self, tenant: str, workflow_id: str, state: ApprovalState = "pending") -> None:
        """Puts there what the step that asks would have recorded."""
        self.requests[(tenant, "ap-1")] = refund_request(tenant, workflow_id, state=state)


@dataclass
class Desk:
    """A client, its reader, and ada, a user of a tenant of her own."""

    rw: RunwardClient
    ada: ActingClient
    reader: MemoryReader
    key: KeyFile

    @property
    def tenant(self) -> str:
        return self.ada.principal.tenant

    @property
    def bob(self) -> ActingClient:
        """An approver of ada's tenant."""
        return self.rw.acting_as("bob", tenant=self.tenant, roles=["finance"])

    def confirm(self, run: RunHandle[Any], output: str) -> None:
        """Records the answer as the run's last step would have."""
        assert run._origin is not None
        self.reader.answered(self.tenant, run._origin.run_id, output)

    def interrupted(self, run: RunHandle[Any], reason: str) -> None:
        """Records the interruption as the run's closing would have."""
        assert run._origin is not None
        run_id = run._origin.run_id
        row = _row(self.tenant, run_id, "interrupted", "", reason)
        self.reader.rows[(self.tenant, run_id)] = row

    async def unconfirmed(self, run_id: str) -> str:
        """Returns a run's answer as a client without a store reads it."""
        rw = RunwardClient(self.rw.temporal, issuer=self.key)
        ada = rw.acting_as("ada", tenant=self.tenant)
        return (await ada.get(run_id).result(timeout=20)).output


@asynccontextmanager
async def open_desk(address: str, folder: Path) -> AsyncIterator[Desk]:
    """Yields a desk, with a worker that runs the stand-ins for it."""
    client, queue = await Client.connect(address), uuid4().hex
    key, reader = KeyFile.create(folder / "issuer.key", kid="tests"), MemoryReader()
    rw = RunwardClient(client, issuer=key, reader=reader, task_queue=queue)
    ada = rw.acting_as("ada", tenant=uuid4().hex, roles=["support"])
    async with Worker(client, task_queue=queue, workflows=[StandIn, UsersOwn]):
        yield Desk(rw, ada, reader, key)


def registered(key: KeyFile) -> Issuer:
    """Returns the row of an issuer that may speak for everybody."""
    return Issuer(key.kid, key.public_key, ("*",), ("*",), ("*",))


def refund_request(
    tenant: str,
    workflow_id: str,
    *,
    state: ApprovalState = "pending",
    approver_role: str | None = "finance",
) -> Approval:
    """Returns ada's request to refund an order."""
    return Approval(
        id="ap-1",
        tenant=tenant,
        workflow_id=workflow_id,
        run_id="r",
        step="t1.tool.1",
        kind="call",
        tool="refund",
        arguments='{"order_id":"17"}',
        digest="d1",
        requester="ada",
        approver_role=approver_role,
        state=state,
        reason="",
        decided_by=None,
        created_at=BEGUN,
        expires_at=BEGUN + timedelta(days=1),
    )


def _row(tenant: str, run_id: str, state: str, result: str, reason: str = "") -> RunRow:
    return RunRow(
        tenant=tenant, run_id=run_id, workflow_id=f"w-{run_id}", user="ada", agent="support",
        session="", state=state, reason=reason, epoch=0, round=0, opened_at=BEGUN,
        closed_at=BEGUN, result_digest=result,
    )  # fmt: skip


def _end(output: str, *, reason: str = "") -> RunEnd:
    now = workflow.now()
    return RunEnd(
        output=output, turns=1, usage=(7, 0, 0, 3), cost=1500, interruption_reason=reason,
        started_at=now, finished_at=now,
    )  # fmt: skip
