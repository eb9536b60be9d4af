"""A user's own governed workflow is told of like a run: by its story, to watchers, to tests."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.errors import NotFound, RequestRefused
from runward.contracts.identity import named_tenant
from runward.contracts.progress import Progress
from runward.contracts.tools import tool
from runward.store.pool import Store
from runward.testing.stack import Stack
from runward.workers.sweeper import QUIET_FOR, sweep
from tests.test_cli_runs import UI, Shell
from tests.users_code import LIMIT, Cards, Charges

CARD = "17-is-nobody-elses"


@workflow.defn(sandboxed=False)
class ChargesLater:
    """Continues as new once, and has not come to its charge."""

    @workflow.run
    async def run(self, card: str, again: bool) -> None:
        """Waits for ever."""
        if again:
            workflow.continue_as_new(args=[card, False])
        await asyncio.Event().wait()

    @workflow.query
    def continued(self) -> bool:
        """Returns whether this is the later execution."""
        return workflow.info().continued_run_id is not None


@workflow.defn(sandboxed=False)
class ChargesFirst:
    """Charges, and goes on in a further execution, which has no ticket of its own."""

    @workflow.run
    async def run(self, card: str, charged: bool) -> None:
        """Waits for ever once it has charged."""
        if charged:
            await asyncio.Event().wait()
        await workflow.execute_activity("charge", card, start_to_close_timeout=LIMIT)
        workflow.continue_as_new(args=[card, True])

    @workflow.query
    def continued(self) -> bool:
        """Returns whether this is the later execution."""
        return workflow.info().continued_run_id is not None


def worker(stack: Stack) -> AbstractAsyncContextManager[Worker]:
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], approver_role="finance")
    kinds = [Charges, ChargesFirst, ChargesLater]
    return stack.worker(plugin, workflows=kinds, activities=[cards.charge])


async def charge(ada: ActingClient, kind: str = "Charges") -> WorkflowHandle[object, object]:
    return await ada.temporal.start_workflow(
        kind,
        args=[CARD, kind == "ChargesLater"],
        id=f"pay-{uuid4().hex}",
        task_queue=ada.task_queue,
    )


async def watched(run: RunHandle[str]) -> list[Progress]:
    async with asyncio.timeout(60):
        return [one async for one in run.watch()]


async def test_a_story_tells_of_its_calls_while_it_waits_and_after_it(stack: Stack) -> None:
    """It ends by Temporal's word at once, and stays so after the sweep."""
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with worker(stack):
        pay = await charge(ada)
        run = ada.get(pay.id)
        asked = await run.next_approval()
        waits = await run.story()
        await bob.approvals.approve(asked.id, reason="checked")
        await pay.result()
        ran = await stack.ran(run)

    (waiting,), (done,) = waits.steps, ran.story.steps
    assert (waits.run.state, waits.run.agent, waits.run.user) == ("open", "Charges", "ada")
    assert (waiting.state, [one.state for one in waiting.approvals]) == ("idle", ["pending"])
    assert (done.step, done.turn, done.name, done.state) == ("a1", None, "charge", "done")
    assert (ran.calls, ran.verdicts) == (["charge"], [("charge", "ask", "consumed")])
    assert ran.spend == (0, 0, Decimal(0))
    assert (ran.story.run.state, ran.story.run.reason) == ("ended", "execution completed")


async def test_watchers_are_told_from_before_its_first_call_to_the_sweep(
    stack: Stack, store: Store
) -> None:
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    pay = await charge(ada)
    run = ada.get(pay.id)
    watching = asyncio.create_task(watched(run))
    async with worker(stack):
        await bob.approvals.approve((await run.next_approval()).id)
        await pay.result()
    assert not watching.done()
    await sweep(store, ada.temporal, quiet_for=0 * QUIET_FOR)
    seen = await watching

    assert [(one.kind, one.step, one.name) for one in seen] == [
        ("run_started", "", "Charges"),
        ("approval_requested", "a1", "charge"),
        ("approval_decided", "a1", ""),
        ("call_started", "a1", "charge"),
        ("call_ended", "a1", "charge"),
        ("run_ended", "", "Charges"),
    ]
    assert seen[-1].outcome == "ended"
    assert await watched(run) == seen


async def test_a_terminated_one_says_so(stack: Stack) -> None:
    ada = await stack.acting_as("ada")
    async with worker(stack):
        run = ada.get((await charge(ada)).id)
        await run.next_approval()
        await run.terminate("a test")
        story = await run.story()

    assert (story.run.state, story.run.reason) == ("ended", "execution terminated")
    assert [one.name for one in story.steps] == ["charge"]


async def test_one_that_continued_as_new_is_told_of_whole(stack: Stack) -> None:
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with worker(stack):
        pay = await charge(ada, "ChargesFirst")
        run = ada.get(pay.id)
        await bob.approvals.approve((await run.next_approval()).id)
        await _continued(pay)
        story = await run.story()
        await run.terminate("a test")

    assert story.run.state == "open"
    assert [(one.name, one.state) for one in story.steps] == [("charge", "done")]


async def test_before_its_first_call_a_story_says_what_it_waits_for(stack: Stack) -> None:
    ada = await stack.acting_as("ada")
    pay = await charge(ada)

    with pytest.raises(NotFound, match=r"No step of it has reached the store yet: no worker has"):
        await ada.get(pay.id).story()
    await pay.terminate()


@pytest.mark.parametrize("kind", ["Charges", "ChargesLater"])
@pytest.mark.parametrize("worked", [True, False])
async def test_to_another_tenant_it_is_not_there(stack: Stack, kind: str, worked: bool) -> None:
    """Before its first call and after it, and where it continued as new before that."""
    ada = await stack.acting_as("ada")
    eve = (await stack.client()).acting_as("eve", tenant=f"not-{stack.tenant}")
    pay = await charge(ada, kind)
    if worked:
        async with worker(stack):
            if kind == "Charges":
                await ada.get(pay.id).next_approval()
            else:
                await _continued(pay)
    run = eve.get(pay.id)

    for ask in (run.story(), anext(run.watch()), stack.ran(run)):
        with pytest.raises(NotFound, match=f"Tenant 'not-{stack.tenant}' has no run") as caught:
            await ask
        assert CARD not in str(caught.value)
    await pay.terminate()


async def _continued(pay: WorkflowHandle[object, object]) -> None:
    async with asyncio.timeout(30):
        while not await pay.query("continued"):  # noqa: ASYNC110  # Temporal continues it
            await asyncio.sleep(0.05)


async def test_its_result_and_status_name_what_works(stack: Stack) -> None:
    ada = await stack.acting_as("ada")
    async with worker(stack):
        run = ada.get((await charge(ada)).id)
        await run.next_approval()
        await run.story()
        for ask in (run.result(timeout=20), run.status()):
            with pytest.raises(RequestRefused, match=r"no agent run.*Temporal client.*story\(\)"):
                await ask
        await run.terminate("a test")


async def test_a_look_that_waits_for_nothing_still_looks(stack: Stack) -> None:
    """A worker is asked before its silence is told; without one the silence is true."""
    ada = await stack.acting_as("ada")
    async with worker(stack):
        run = ada.get((await charge(ada)).id)
        asked = await run.next_approval()

        assert (await run.next_approval(0)).id == asked.id
        await run.terminate("a test")


async def test_the_command_line_shows_it_as_it_lists_it(stack: Stack, tmp_path: Path) -> None:
    runward, ada = Shell(stack, tmp_path), await stack.acting_as("ada")
    async with worker(stack):
        pay = await charge(ada)
        await ada.get(pay.id).next_approval()
        await pay.terminate()
    _, listed, _ = await runward("runs", "list", "-o", "json")
    code, shown, said = await runward("runs", "show", pay.id, "--as", "ada")
    _, told, _ = await runward("runs", "show", pay.id, "--as", "ada", "-o", "json")

    assert (code, said) == (0, "")
    assert [one["agent"] for one in json.loads(listed)] == ["Charges"]
    assert (json.loads(told)["agent"], json.loads(told)["steps"][0]["name"]) == (
        "Charges",
        "charge",
    )
    assert UI in shown.splitlines()[-1]
    assert "0 turns" not in shown


@pytest.mark.parametrize("text", ["", "no token", "a.b.c", "e30.W10.e30", "\ud800"])
def test_what_is_no_ticket_names_no_tenant(text: str) -> None:
    """Whoever can write to the namespace can put anything in its place."""
    assert named_tenant(text) is None
