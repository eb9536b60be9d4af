"""Executions that continue a run: reset, continued as new, cancelled in a race, terminated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from runward.client.runs import ActingClient
from runward.contracts.errors import ApprovalRefused, OutputValidationError
from runward.contracts.tools import tool
from runward.store.pool import Store
from runward.testing.scripts import Call as Ask
from runward.testing.scripts import Script, ScriptedProvider, Slow, ask, ask_all, failing, say
from runward.testing.stack import Stack
from runward.workers.sweeper import sweep
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer
from tests.support import App, reset
from tests.users_code import Cards, Charges

REFUND = ask("refund", order_id="17", amount="5.00")
PAID = {"order_id": "17", "amount": "5.00"}
SUGGEST_AFTER_EVENTS = 20


@pytest.mark.parametrize("task", [1, 2], ids=["from the start", "from the tool"])
async def test_a_reset_repeats_no_effect(stack: Stack, task: int) -> None:
    """The refund has happened: the same call returns what was recorded, and asks nobody again."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await bob.approvals.approve((await run.next_approval()).id)
        await run.result()
        bills = len(app.bills.bills())
        await reset(stack, run.id, task)
        result = await ada.get(run.id).result()

    assert (result.output, len(app.shop.refunds)) == ("Refunded.", 1)
    assert len(app.bills.bills()) > bills  # the model's steps run anew


async def test_a_reset_before_the_effect_asks_again(stack: Stack) -> None:
    """What was asked before is void; the new request's approval runs the call, once."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        before = await run.next_approval()
        await reset(stack, run.id, 1)
        again = ada.get(run.id)
        request = await again.next_approval()
        assert request.id != before.id
        assert (await bob.approvals.get(before.id)).state == "void"
        await bob.approvals.approve(request.id)
        result = await again.result()

    assert (result.output, len(app.shop.refunds)) == ("Refunded.", 1)


@pytest.mark.parametrize("cached", [0, 10], ids=["each task replayed", "cached"])
@pytest.mark.parametrize("waits", ["from its task on", "since an earlier task"])
async def test_a_reset_of_a_run_that_waits_asks_anew(stack: Stack, waits: str, cached: int) -> None:
    """The request in its history is void; who approves it is told so, and the new one runs."""
    app = App([ask_all(Ask("refund", PAID), Ask("refund", PAID)), say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=cached):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        before = await pending(bob, 2)
        if waits == "since an earlier task":
            with pytest.raises(ApprovalRefused, match="requester"):
                await ada.approvals.approve((await run.next_approval()).id)
        await reset(stack, run.id, 0)
        await ada.get(run.id).next_approval()
        anew = await pending(bob, 2, but=before)
        for one in before:
            with pytest.raises(ApprovalRefused, match="asks anew"):
                await bob.approvals.approve(one)
        for one in anew:
            await bob.approvals.approve(one)
        result = await ada.get(run.id).result()

    keys = [key for _, key in app.shop.refunds]
    assert (result.output, len(keys), len(set(keys))) == ("Refunded.", 2, 2)


async def test_a_reset_of_a_users_workflow_that_waits_asks_anew(stack: Stack) -> None:
    """Its activity's request is void, and the interceptor calls it again."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], approver_role="finance")
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.temporal.start_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )
        before = await pending(bob, 1)
        await ada.get(run.id).next_approval()
        await reset(stack, run.id, 0)
        for one in await pending(bob, 1, but=before):
            await bob.approvals.approve(one)
        said = await ada.temporal.get_workflow_handle(run.id).result()

    assert (said, cards.charged) == ("charged 17", ["17"])


async def pending(user: ActingClient, count: int, but: Collection[str] = ()) -> list[str]:
    """Returns the ids of that many pending requests, as soon as there are others than `but`."""
    async with asyncio.timeout(30):
        while True:
            found = [one.id for one in await user.approvals.list()]
            if len(found) == count and not set(found) & set(but):
                return found
            await asyncio.sleep(0.05)


@pytest.fixture
async def hurried(database_url: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack on a server that suggests to continue as new after a few events."""
    binary = await find_temporal(None, progress=lambda _: None)
    setting = f"limit.historyCount.suggestContinueAsNew={SUGGEST_AFTER_EVENTS}"
    async with (
        TemporalDevServer(binary, None, ui=False, dynamic_config=[setting]) as server,
        Stack.open(database_url, server.address, key_file=tmp_path / "key") as stack,
    ):
        yield stack


async def test_a_long_run_continues_as_new_and_stays_one_run(hurried: Stack) -> None:
    """Turns, usage and the conversation go on; an approval in a later execution holds."""
    turns = [ask("lookup_order", order_id=str(number)) for number in range(6)]
    app = App([*turns, REFUND, ask("lookup_order", order_id="17"), say("Done.")])
    async with hurried.worker(hurried.plugin(**app.given)):
        ada, bob = await hurried.acting_as("ada"), await hurried.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await bob.approvals.approve((await run.next_approval()).id)
        result = await run.result()
        latest = await ada.temporal.get_workflow_handle(run.id).describe()

    assert latest.run_id != result.run_id, "it never continued as new"
    shown = {one.key.name: one.value for one in latest.typed_search_attributes}
    assert shown.items() >= ada.tags.of(ada.principal, "support").items()
    assert (result.output, result.turns, len(app.shop.refunds)) == ("Done.", 9, 1)
    assert app.shop.lookups == [*map(str, range(6)), "17"]
    assert result.usage.tokens == sum(bill.usage.tokens for bill in app.bills.bills())
    # Each turn of the model saw the whole conversation: its input only ever grows.
    inputs = [bill.usage.input for bill in app.bills.bills()]
    assert inputs == sorted(set(inputs)) and len(inputs) == 9


async def test_a_run_may_end_before_the_first_step_of_a_later_execution(hurried: Stack) -> None:
    """By its limit, which it meets just as it continues as new; the store has not seen that yet."""
    looks = [ask("lookup_order", order_id=str(number)) for number in range(9)]
    app = App(looks, agent_options={"max_turns": 2})
    async with hurried.worker(hurried.plugin(**app.given)):
        ada = await hurried.acting_as("ada")
        run = await ada.start("support", "Where are they?")
        result = await run.result()
        latest = await ada.temporal.get_workflow_handle(run.id).describe()
        story = await run.story()

    assert latest.run_id != result.run_id, "it never continued as new"
    assert (result.interruption_reason, result.turns) == ("max_turns_exceeded", 2)
    assert (story.run.state, story.run.reason) == ("interrupted", "max_turns_exceeded")


async def test_a_repair_holds_in_a_later_execution(hurried: Stack) -> None:
    """Nothing of it is carried: the conversation says that there was one, so there is no second."""
    looks = [ask("lookup_order", order_id=str(number)) for number in range(3)]
    turns = [*looks, say("none"), *looks, say("none"), say("[1]")]
    app = App(turns, agent_options={"output_type": list[int]})
    async with hurried.worker(hurried.plugin(**app.given)):
        ada = await hurried.acting_as("ada")
        run = await ada.start("support", "Where are they?")
        with pytest.raises(OutputValidationError):
            await run.result()
        latest = await ada.temporal.get_workflow_handle(run.id).describe()

    first = latest.raw_description.workflow_execution_info.first_run_id
    assert latest.run_id != first, "it never continued as new"
    assert (len(app.bills.bills()), app.shop.lookups) == (8, [*"012012"])


async def test_an_answer_that_was_first_beats_a_cancel(stack: Stack) -> None:
    """The cancel arrives while the model answers; the run ends with the answer."""
    inside, gate = asyncio.Event(), asyncio.Event()

    async def wait(_: float) -> None:
        inside.set()
        await gate.wait()

    app = App([failing(say("Answered."), Slow(1))])
    given: dict[str, Any] = {**app.given}
    script = {"support": Script(app.turns)}
    given["providers"] = [ScriptedProvider(script, ledger=app.bills, sleep=wait)]
    async with stack.worker(stack.plugin(**given)):
        run = await (await stack.acting_as("ada")).start("support", "Hello?")
        await inside.wait()
        await run.cancel()
        gate.set()
        result = await run.result()

    assert result.output == "Answered."


async def test_a_cancelled_run_runs_nothing_more(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Cancelled while a person is asked: the request is void, the run's row says so."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        await run.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await run.result()
        state = (await bob.approvals.get(request.id)).state

    assert isinstance(caught.value.cause, CancelledError)
    found = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (found, state, app.shop.refunds) == ("cancelled", "void", [])


async def test_a_terminated_run_is_closed_by_a_sweep(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Its row follows the execution, its request is void, nothing ran."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)) as worker:
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        await run.terminate("test")
        async with Store(stack.database_url, role="runward_worker") as store:
            await sweep(store, worker.client, quiet_for=timedelta(0))
        state = (await bob.approvals.get(request.id)).state

    found = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (found, state, app.shop.refunds) == ("ended", "void", [])
