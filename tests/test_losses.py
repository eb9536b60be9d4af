"""What a worker or the store loses in the middle of a run, while a person is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg
import pytest

from runward.contracts.errors import WAITING
from runward.contracts.runs import RunResult
from runward.contracts.steps import TranscriptRow
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from runward.workers.governance import Assembly
from runward.workers.plugin import RunwardPlugin
from tests.attacker import Attacker
from tests.support import App

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TURNS = [
    ask("lookup_order", order_id="17"),
    ask("refund", order_id="17", amount="5.00"),
    ask("lookup_order", order_id="18"),
    say("Done."),
]


async def _nothing(assembly: Assembly, owner: Owner, tenant: str) -> None: ...


async def _caches(assembly: Assembly, owner: Owner, tenant: str) -> None:
    assembly.transcripts.forget()
    assembly.governance.identity.forget()


async def _transcript(assembly: Assembly, owner: Owner, tenant: str) -> None:
    found = await owner.execute("delete from runward.transcript where tenant = $1", tenant)
    assert found != "DELETE 0"


async def _both(assembly: Assembly, owner: Owner, tenant: str) -> None:
    await _caches(assembly, owner, tenant)
    await _transcript(assembly, owner, tenant)


async def _run(
    stack: Stack, owner: Owner, lose: Callable[[Assembly, Owner, str], Awaitable[None]]
) -> tuple[RunResult[str], App]:
    app = App(list(TURNS))
    plugin: RunwardPlugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        await lose(plugin.assembly_of(worker), owner, stack.tenant)
        await bob.approvals.approve(request.id)
        return await run.result(), app


@pytest.mark.parametrize("lose", [_caches, _transcript, _both])
async def test_a_conversation_outlives_what_a_worker_can_read_again(
    stack: Stack, owner: Owner, lose: Callable[[Assembly, Owner, str], Awaitable[None]]
) -> None:
    """Cache, then store, then Temporal's history: the model sees the same, the bill is the same."""
    undisturbed, before = await _run(stack, owner, _nothing)
    result, app = await _run(stack, owner, lose)

    assert (result.output, result.turns, result.usage, result.cost) == (
        undisturbed.output,
        undisturbed.turns,
        undisturbed.usage,
        undisturbed.cost,
    )
    assert [one.usage for one in app.bills.bills()] == [one.usage for one in before.bills.bills()]
    assert (len(app.shop.refunds), app.shop.lookups) == (1, ["17", "18"])


async def test_a_worker_keeps_no_conversation_while_a_person_is_asked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take days: the next model step reads it from the store, a step without a wait not."""
    app = App(list(TURNS))
    plugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        store = plugin.assembly_of(worker).governance.store.transcripts
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        read: list[str] = []
        from_store = store.messages

        async def messages(
            tenant: str, run_id: str, head: str | None = None
        ) -> tuple[TranscriptRow, ...]:
            read.append(run_id)
            return await from_store(tenant, run_id, head)

        monkeypatch.setattr(store, "messages", messages)
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        assert read == []
        await bob.approvals.approve(request.id)
        await run.result()

    assert len(read) == 1


@pytest.mark.parametrize("cached", [True, False], ids=["run cached", "run not cached"])
@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (("run", "step"), "know this run|unknown run"),
        (("step",), "no recorded outcome leads to this step"),
        (("run", "step", "execution"), "know this run|unknown run"),
    ],
    ids=["run and step", "step", "all"],
)
async def test_a_run_that_the_store_forgot_waits_and_says_why(
    stack: Stack, owner: Owner, tables: tuple[str, ...], reason: str, *, cached: bool
) -> None:
    """An operator has to bring the rows back; then the run goes on as if nothing had been."""
    app = App(list(TURNS))
    plugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        bills = app.bills.bills()
        if not cached:
            plugin.assembly_of(worker).governance.identity.forget()
        for table in tables:
            await owner.execute(f"create temp table kept_{table} as table runward.{table}")
            await owner.execute(f"delete from runward.{table} where tenant = $1", stack.tenant)
        await bob.approvals.approve(request.id)
        kind, said = await (await Attacker.of(stack)).said(run.id, "t2.tool.0")
        assert kind == WAITING
        assert any(one in said for one in reason.split("|")), said
        assert (app.bills.bills(), app.shop.refunds) == (bills, [])
        for table in tables:
            columns = "tenant = $1"
            await owner.execute(
                f"insert into runward.{table} select * from kept_{table} where {columns}",
                stack.tenant,
            )
            await owner.execute(f"drop table kept_{table}")
        result = await run.result()

    assert (result.output, len(app.shop.refunds)) == ("Done.", 1)
