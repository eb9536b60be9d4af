"""Whoever can write to Temporal's namespace may stop a run, but not steer it: no effect runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from runward.client.keys import KeyFile, TicketSource
from runward.client.runs import ActingClient, run_workflow_id
from runward.client.runward_client import RunwardClient
from runward.contracts import names
from runward.contracts.approvals import Approval, Decision, DecisionResult, DecisionWord
from runward.contracts.errors import REFUSED, AgentError, RequestRefused
from runward.contracts.identity import START_TTL, Issuer, Operation, Principal, sign
from runward.contracts.runs import PROMPT_BYTES_MAX, RunInput, RunRequest
from runward.contracts.tools import tool
from runward.contracts.wire import JSON_PLAIN
from runward.store.pool import Store
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from runward.workflows.payloads import raw, read
from tests.attacker import FREE, Attacker, payload
from tests.support import App
from tests.users_code import Cards, Charges

REFUND = ask("refund", order_id="17", amount="5.00")
CONTINUED = Payload(metadata=JSON_PLAIN, data=b'{"c":1}')
REQUEST = RunRequest(agent="support", prompt="Refund order 17")


def why(error: BaseException) -> ApplicationError:
    """Returns what a worker said, below Temporal's wrappings."""
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ApplicationError)
    return error


async def ended(run: Any) -> ApplicationError:
    """Returns why a plain handle's workflow failed."""
    with pytest.raises(WorkflowFailureError) as caught:
        await run.result()
    return why(caught.value)


class Stale:
    """Signs tickets that were good until just now."""

    def __init__(self, key: KeyFile) -> None:
        self._key = key

    def ticket(
        self,
        principal: Principal,
        operation: Operation,
        *,
        subject: str,
        digest: str,
        decision: DecisionWord | None = None,
        ttl: timedelta = START_TTL,
    ) -> str:
        """Returns a ticket that was signed an hour before its end."""
        now = datetime.now(UTC) - timedelta(hours=1)
        return sign(self._key.key, principal, operation, subject=subject, digest=digest, now=now,
                    ttl=ttl, decision=decision)  # fmt: skip


async def acting_with(
    stack: Stack, source: TicketSource, user: str = "ada", tenant: str | None = None,
    roles: tuple[str, ...] = (),
) -> ActingClient:  # fmt: skip
    """Returns a user's client whose tickets another source signs."""
    temporal = (await stack.client()).temporal
    client = RunwardClient(temporal, issuer=source, task_queue=stack.task_queue)
    return client.acting_as(user, tenant=tenant or stack.tenant, roles=roles)


async def registered(
    stack: Stack, path: Path, *, tenants: tuple[str, ...] = ("*",), roles: tuple[str, ...] = ("*",),
    operations: tuple[str, ...] = ("*",),
) -> KeyFile:  # fmt: skip
    """Returns a further issuer's key."""
    key = KeyFile.create(path)
    async with Store(stack.database_url) as store:
        await store.issuers.add(Issuer(key.kid, key.public_key, tenants, roles, operations))
    return key


# --- starts


@pytest.mark.parametrize("headers", [{}, {names.STEP_HEADER: CONTINUED}], ids=["bare", "continued"])
async def test_a_raw_start_without_a_ticket_fails_at_once(
    stack: Stack, headers: dict[str, Payload]
) -> None:
    """Also one that says it continues another execution."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        attacker = await Attacker.of(stack)
        run = await attacker.start(
            names.AGENT_RUN, [payload(RunInput(request=REQUEST))],
            workflow_id=uuid4().hex, headers=headers,
        )  # fmt: skip
        error = await ended(run)

    assert (error.type, app.bills.bills(), app.shop.refunds) == (REFUSED, (), [])
    assert "not started with a ticket" in error.message


async def test_a_ticket_opens_no_second_run_with_the_same_id(stack: Stack) -> None:
    """The first run is terminated, its start is repeated to the letter: the ticket is spent."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        attacker = await Attacker.of(stack)
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        await run.next_approval()
        began = await attacker.started(run.id)
        await run.terminate("attack")
        bills = len(app.bills.bills())
        again = await attacker.start(
            names.AGENT_RUN, began.input.payloads, workflow_id=run.id, headers=began.header.fields
        )
        error = await ended(again)

    assert (error.type, len(app.bills.bills()), app.shop.refunds) == (REFUSED, bills, [])


async def test_a_ticket_opens_no_run_with_another_id(stack: Stack) -> None:
    """It names the workflow that it is for."""
    app = App([REFUND, say("Refunded.")])
    attacker = await Attacker.of(stack)
    # No worker: the ticket is not redeemed, it is stolen on its way.
    run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
    began = await attacker.started(run.id)
    await run.terminate("attack")
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        other = await attacker.start(
            names.AGENT_RUN, began.input.payloads,
            workflow_id=uuid4().hex, headers=began.header.fields,
        )  # fmt: skip
        error = await ended(other)

    assert (error.type, app.bills.bills(), app.shop.refunds) == (REFUSED, (), [])
    assert "another request" in error.message


async def test_a_ticket_opens_no_run_with_another_request(stack: Stack) -> None:
    """It holds the digest of what was asked."""
    app = App([REFUND, say("Refunded.")])
    attacker = await Attacker.of(stack)
    run = await (await stack.acting_as("ada")).start("support", "Where is order 17?")
    began = await attacker.started(run.id)
    await run.terminate("attack")
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        other = await attacker.start(
            names.AGENT_RUN, [payload(RunInput(request=REQUEST))],
            workflow_id=run.id, headers=began.header.fields,
        )  # fmt: skip
        error = await ended(other)

    assert (error.type, app.bills.bills(), app.shop.refunds) == (REFUSED, (), [])


@pytest.mark.parametrize(
    "may",
    [{"tenants": ("another",)}, {"roles": ("sales",)}, {"operations": ("decide",)}],
    ids=["tenant", "role", "operation"],
)
async def test_an_issuer_speaks_only_for_what_its_row_says(
    stack: Stack, tmp_path: Path, may: dict[str, tuple[str, ...]]
) -> None:
    """A registered key is not a key to everything."""
    app = App([REFUND, say("Refunded.")])
    key = await registered(stack, tmp_path / "other.key", **may)
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        mallory = await acting_with(stack, key, roles=("finance",))
        with pytest.raises(AgentError, match="may not speak for that"):
            await mallory.execute("support", "Refund order 17")

    assert (app.bills.bills(), app.shop.refunds) == ((), [])


async def test_an_unregistered_issuer_speaks_for_nobody(stack: Stack, tmp_path: Path) -> None:
    """Also under the name of a registered one: the signature is not its own."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        for number, kid in enumerate((None, stack.key.kid)):
            forger = KeyFile.create(tmp_path / f"forger-{number}.key", kid)
            with pytest.raises(AgentError, match=r"not registered|do not hold"):
                await (await acting_with(stack, forger)).execute("support", "Refund order 17")

    assert (app.bills.bills(), app.shop.refunds) == ((), [])


async def test_an_expired_ticket_opens_nothing(stack: Stack) -> None:
    """Judged by the server's time of the first step."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        late = await acting_with(stack, Stale(stack.key))
        with pytest.raises(AgentError, match="not valid at"):
            await late.execute("support", "Refund order 17")

    assert (app.bills.bills(), app.shop.refunds) == ((), [])


async def test_a_revoked_issuer_opens_nothing(stack: Stack, tmp_path: Path) -> None:
    """Revoked before the start."""
    app = App([REFUND, say("Refunded.")])
    key = await registered(stack, tmp_path / "other.key")
    async with Store(stack.database_url) as store:
        await store.issuers.revoke(key.kid)
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        with pytest.raises(AgentError, match="revoked"):
            await (await acting_with(stack, key)).execute("support", "Refund order 17")

    assert (app.bills.bills(), app.shop.refunds) == ((), [])


async def test_the_runs_of_a_revoked_issuer_begin_no_further_step(
    stack: Stack, tmp_path: Path
) -> None:
    """Revoked while a person was asked: the approval comes too late."""
    app = App([REFUND, say("Refunded.")])
    key = await registered(stack, tmp_path / "other.key")
    async with stack.worker(stack.plugin(**app.given)):
        run = await (await acting_with(stack, key)).start("support", "Refund order 17")
        mine = (await stack.acting_as("ada")).get(run.id)
        request = await mine.next_approval()
        async with Store(stack.database_url) as store:
            await store.issuers.revoke(key.kid)
        await (await stack.acting_as("bob", ["finance"])).approvals.approve(request.id)
        with pytest.raises(AgentError, match="revoked"):
            await run.result()

    assert app.shop.refunds == []


async def test_a_request_past_its_limit_is_refused_at_the_door(stack: Stack) -> None:
    """Nothing reaches Temporal, where such an input would end a workflow."""
    app = App([say("Hello.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada = await stack.acting_as("ada")
        with pytest.raises(RequestRefused, match=str(PROMPT_BYTES_MAX)):
            await ada.start("support", "x" * PROMPT_BYTES_MAX, key="large")
        refused = ada.temporal.get_workflow_handle(run_workflow_id(ada.principal, "large"))
        with pytest.raises(RPCError) as caught:
            await refused.describe()
        assert caught.value.status is RPCStatusCode.NOT_FOUND
        large = await ada.start("support", "x" * (PROMPT_BYTES_MAX - 1000), key="large")
        assert (await large.result()).output == "Hello."

    assert len(app.bills.bills()) == 1


# --- decisions

Forge = Callable[[Stack, Approval, KeyFile], Decision]


def _decision(source: TicketSource, approval: Approval, who: Principal, **changed: Any) -> Decision:
    operation: Operation = changed.pop("operation", "decide")
    given = {"subject": approval.id, "digest": approval.digest, "decision": "approve", **changed}
    return Decision(approval_id=approval.id, ticket=source.ticket(who, operation, **given))


def _bob(stack: Stack, tenant: str | None = None) -> Principal:
    return Principal(tenant or stack.tenant, "bob", frozenset({"finance"}))


FORGERIES: dict[str, Forge] = {
    "no token": lambda stack, one, other: Decision(approval_id=one.id, ticket="approve"),
    "unregistered key": lambda stack, one, other: _decision(other, one, _bob(stack)),
    "expired": lambda stack, one, other: _decision(Stale(stack.key), one, _bob(stack)),
    "another request": lambda stack, one, other: _decision(
        stack.key, one, _bob(stack), subject="another"
    ),
    "another call": lambda stack, one, other: _decision(
        stack.key, one, _bob(stack), digest="another"
    ),
    "a start ticket": lambda stack, one, other: _decision(
        stack.key, one, _bob(stack), operation="start"
    ),
    "a ticket without a word": lambda stack, one, other: _decision(
        stack.key, one, _bob(stack), decision=None
    ),
    "the requester": lambda stack, one, other: _decision(
        stack.key, one, Principal(stack.tenant, "ada", frozenset({"finance"}))
    ),
    "no role": lambda stack, one, other: _decision(
        stack.key, one, Principal(stack.tenant, "bob", frozenset({"sales"}))
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("door", [names.DECIDE_UPDATE, names.DECISION_SIGNAL])
async def test_a_forged_decision_decides_nothing(
    stack: Stack, tmp_path: Path, forgery: str, door: str
) -> None:
    """The request stays pending, and the decision of one who may decide still holds."""
    app = App([REFUND, say("Not refunded.")])
    other = KeyFile.create(tmp_path / "other.key")
    async with stack.worker(stack.plugin(**app.given)):
        attacker, bob = await Attacker.of(stack), await stack.acting_as("bob", ["finance"])
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        request = await run.next_approval()
        forged = raw(FORGERIES[forgery](stack, request, other))
        if door == names.DECIDE_UPDATE:
            said = await attacker.handle(run.id).execute_update(door, forged, result_type=RawValue)
            assert read(DecisionResult, said).accepted is False
        else:
            await attacker.handle(run.id).signal(door, forged)
            await _decided(attacker, run.id)
        assert (await bob.approvals.get(request.id)).state == "pending"
        await bob.approvals.reject(request.id)
        result = await run.result()

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])


@pytest.mark.parametrize("door", [names.DECIDE_UPDATE, names.DECISION_SIGNAL])
async def test_a_foreign_tenants_decision_decides_nothing(
    stack: Stack, tmp_path: Path, door: str
) -> None:
    """A good ticket of another tenant: there the request does not exist, and the run waits on."""
    app = App([REFUND, say("Not refunded.")])
    other = await registered(stack, tmp_path / "other.key", tenants=("another",))
    async with stack.worker(stack.plugin(**app.given)):
        attacker, bob = await Attacker.of(stack), await stack.acting_as("bob", ["finance"])
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        request = await run.next_approval()
        forged = raw(_decision(other, request, _bob(stack, "another")))
        if door == names.DECIDE_UPDATE:
            said = await attacker.handle(run.id).execute_update(door, forged, result_type=RawValue)
            assert read(DecisionResult, said).accepted is False
        else:
            await attacker.handle(run.id).signal(door, forged)
            await _decided(attacker, run.id)
        assert (await bob.approvals.get(request.id)).state == "pending"
        await bob.approvals.reject(request.id)
        result = await run.result()
        asked = len(await attacker.scheduled(run.id, f"{names.TOOL_PREFIX}refund"))

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])
    assert asked <= 3  # at first, once for the stranger's word, and for the rejection


async def test_a_malformed_decision_is_no_decision(stack: Stack) -> None:
    """An update is refused by its validator, a signal is ignored; neither fails the run."""
    app = App([REFUND, say("Not refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        attacker, bob = await Attacker.of(stack), await stack.acting_as("bob", ["finance"])
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        request = await run.next_approval()
        plain = attacker.handle(run.id)
        await plain.signal(names.DECISION_SIGNAL, {"approve": True})
        with pytest.raises(WorkflowUpdateFailedError):
            await plain.execute_update(names.DECIDE_UPDATE, {"approve": request.id})
        unknown = raw(Decision(approval_id="unknown", ticket="approve"))
        with pytest.raises(WorkflowUpdateFailedError):
            await plain.execute_update(names.DECIDE_UPDATE, unknown)
        await bob.approvals.reject(request.id)
        result = await run.result()

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])


async def _decided(attacker: Attacker, workflow_id: str) -> None:
    """Returns once the workflow has asked the store what a decision was worth."""
    await attacker.until(workflow_id, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
    while await attacker.completed(workflow_id, names.DECIDE_APPROVAL) == 0:
        await attacker.until(workflow_id, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)


# --- users' own workflows


@pytest.mark.parametrize("local", [True, False], ids=["local", "unticketed"])
async def test_a_governed_activity_runs_only_as_a_step(stack: Stack, local: bool) -> None:
    """Not as a local activity, not in an execution that nobody vouches for."""
    cards = Cards()
    plugin = stack.plugin(policy=FREE, govern=[tool(cards.charge, effect="money")])
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]) as worker:
        ada = await stack.acting_as("ada")
        temporal = ada.temporal if local else worker.client
        with pytest.raises(WorkflowFailureError) as caught:
            await temporal.execute_workflow(
                Charges.run, args=["17", local], id=uuid4().hex, task_queue=stack.task_queue
            )

    assert (why(caught.value).type, cards.charged) == (REFUSED, [])
