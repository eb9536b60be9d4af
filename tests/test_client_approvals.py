"""Finding and deciding approval requests, against a real server with a stand-in for the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from runward.client.answering import NoWorkerAnswered
from runward.client.approvals import _OWN_REQUEST, _ROLE_MISSING, _refusal
from runward.client.runward_client import RunwardClient
from runward.contracts.approvals import DecisionResult
from runward.contracts.errors import (
    AgentError,
    ApprovalRefused,
    ConfigurationError,
    NotFound,
    RequestRefused,
)
from runward.contracts.identity import verify

from .client_stand_in import Desk, refund_request, registered


async def test_status_names_what_a_run_waits_for(desk: Desk) -> None:
    run = await desk.ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    await run.next_approval(timeout=20)

    status = await run.status()

    assert (status.state, status.waiting_for) == ("waiting", ("ap-1",))


async def test_run_that_ends_has_no_next_approval(desk: Desk) -> None:
    run = await desk.ada.start("support", "say nothing")

    with pytest.raises(AgentError, match="has ended"):
        await run.next_approval(timeout=20)


async def test_next_approval_waits_no_longer_than_asked(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")

    with pytest.raises(TimeoutError):
        await run.next_approval(timeout=2)


@pytest.mark.parametrize("word", ["approve", "reject"])
async def test_decision_carries_a_ticket_for_exactly_what_was_shown(desk: Desk, word: str) -> None:
    run = await desk.ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    # At once: the workflow may not wait yet, and its refusal then is not the last word.
    decide = desk.bob.approvals.approve if word == "approve" else desk.bob.approvals.reject
    assert (await decide("ap-1", reason="checked")).accepted

    ticket = verify(await desk.unconfirmed(run.id), registered(desk.key), at=datetime.now(UTC))

    assert (ticket.principal, ticket.operation, ticket.decision) == (
        desk.bob.principal,
        "decide",
        word,
    )
    assert (ticket.subject, ticket.digest) == ("ap-1", "d1")


async def test_decision_by_signal_reaches_the_run(desk: Desk) -> None:
    run = await desk.ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    await desk.bob.approvals.signal_decision("ap-1", "reject")

    assert (await desk.unconfirmed(run.id)).count(".") == 2


async def test_decision_by_signal_that_cannot_hold_is_refused(desk: Desk) -> None:
    """Nobody would hear of it: a signal has no answer."""
    bob = desk.bob.approvals
    desk.reader.asks(desk.tenant, "rw-none")
    with pytest.raises(ApprovalRefused, match="Its run has ended"):
        await bob.signal_decision("ap-1", "approve")
    with pytest.raises(RequestRefused, match=r"'maybe'\. Decisions are approve, reject"):
        await bob.signal_decision("ap-1", "maybe")  # type: ignore[arg-type]


async def test_decision_that_does_not_hold_is_refused_with_its_reason(desk: Desk) -> None:
    run = await desk.ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)

    with pytest.raises(ApprovalRefused, match="Lacks the role"):
        await desk.ada.approvals.approve("ap-1", reason="not the approver")


async def test_decided_request_is_refused_before_anything_is_sent(desk: Desk) -> None:
    desk.reader.asks(desk.tenant, "rw-none", state="expired")

    with pytest.raises(ApprovalRefused, match=r"expired already\. `runward approvals show ap-1`"):
        await desk.ada.approvals.approve("ap-1")


@pytest.mark.parametrize(
    ("role", "reason", "says"),
    [
        (
            "finance",
            _ROLE_MISSING,
            ". The approver's role is missing: 'finance'. Decide as a user who has it",
        ),
        (
            "finance",
            _OWN_REQUEST,
            "'ap-1'. The requester may not decide. Let another user decide, in the role 'finance'",
        ),
        (None, _ROLE_MISSING, "missing. Nobody may: name an approver_role in the app"),
        (
            "finance",
            "approval expired",
            ". Approval expired. `runward approvals show ap-1` says what became",
        ),
    ],
)
def test_a_refused_decision_says_what_to_do(role: str | None, reason: str, says: str) -> None:
    result = DecisionResult(accepted=False, state="expired", reason=reason)
    asked = refund_request("acme", "rw-1", approver_role=role)
    told = ApprovalRefused("Approve of 'ap-1'", *_refusal(result, asked))

    assert says in str(told)


async def test_a_list_of_a_state_that_there_is_not_is_refused(desk: Desk) -> None:
    with pytest.raises(RequestRefused, match=r"States are pending, approved.*Name one"):
        await desk.ada.approvals.list("bogus")  # type: ignore[arg-type]


async def test_request_of_an_ended_run_is_refused(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")
    await run.terminate("gone")
    desk.reader.asks(desk.tenant, run.id)

    with pytest.raises(ApprovalRefused, match="has ended"):
        await desk.ada.approvals.approve("ap-1")


async def test_request_of_another_tenant_is_not_there(desk: Desk) -> None:
    desk.reader.asks(desk.tenant, "rw-x")
    eve = desk.rw.acting_as("eve", tenant="others")

    assert await eve.approvals.list() == []
    with pytest.raises(NotFound, match="none of that id"):
        await eve.approvals.approve("ap-1")


async def test_decision_without_a_worker_says_so(desk: Desk) -> None:
    idle = RunwardClient(
        desk.rw.temporal, issuer=desk.key, reader=desk.reader, task_queue="nobody-polls"
    )
    ada = idle.acting_as("ada", tenant="acme")
    run = await ada.start("support", "ask refund")
    desk.reader.asks("acme", run.id)
    ada.approvals.timeout_s = 0.5

    with pytest.raises(NoWorkerAnswered, match="runward worker"):
        await ada.approvals.approve("ap-1")
    with pytest.raises(NoWorkerAnswered, match="runward worker"):
        await run.next_approval(timeout=1)


async def test_decision_is_asked_for_again_while_the_runs_tasks_fail(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal's refusal after repeated kills is made up here: the real one takes it a while."""
    said = "Unable to perform workflow execution update due to Workflow Task in failed state"
    refusals = [RPCError(said, RPCStatusCode.FAILED_PRECONDITION, b"")] * 2
    update = WorkflowHandle.execute_update

    async def refused(self: WorkflowHandle[Any, Any], *given: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await update(self, *given, **named)

    monkeypatch.setattr(WorkflowHandle, "execute_update", refused)
    run = await desk.ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)

    assert (await desk.bob.approvals.approve("ap-1")).accepted
    assert refusals == []

    refusals += [RPCError(said, RPCStatusCode.FAILED_PRECONDITION, b"")] * 1000
    approvals = desk.bob.approvals
    approvals.timeout_s = 0.3
    with pytest.raises(NoWorkerAnswered, match="Workflow Task in failed state"):
        await approvals.approve("ap-1")


async def test_approvals_without_a_store_name_the_setting(desk: Desk) -> None:
    ada = RunwardClient(desk.rw.temporal, issuer=desk.key).acting_as("ada", tenant="acme")

    with pytest.raises(ConfigurationError, match="RUNWARD_DATABASE_URL"):
        await ada.approvals.list()
