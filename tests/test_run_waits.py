"""What ends a run's wait when nobody decides: the request's expiry, a budget that was raised."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from runward.contracts import names
from runward.contracts.budget import Budget, Cap
from runward.contracts.steps import Run
from runward.testing.scripts import ask, say, scripted
from runward.testing.stack import Stack
from tests.support import App

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
REFUND = ask("refund", order_id="17", amount="5.00")


async def test_a_request_that_nobody_decides_expires_and_the_run_goes_on(stack: Stack) -> None:
    """The model is told, and the call never runs; a decision afterwards holds for nothing."""
    app = App([REFUND, say("Not refunded.")])
    plugin = stack.plugin(approval_ttl=timedelta(seconds=1), **app.given)
    async with stack.worker(plugin):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        result = await ada.execute("support", "Refund order 17")
        (expired,) = await bob.approvals.list("expired")

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])
    assert expired.tool == "refund"
    assert expired.expires_at - expired.created_at == timedelta(seconds=1)


@pytest.mark.parametrize(("holds_s", "said"), [(5, "DENIED: approval expired"), (60, "refunded")])
async def test_an_approval_that_nobody_used_in_time_no_longer_holds(
    stack: Stack, owner: Owner, holds_s: int, said: str
) -> None:
    """Here the worker is late by six seconds."""
    app, model = App([]), scripted("scripted:support", REFUND, say("Done."))
    given = app.given | {"providers": [model], "execution_ttl": timedelta(seconds=holds_s)}
    plugin = stack.plugin(**given)
    async with stack.worker(plugin):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        await owner.execute(
            "update runward.approval set state = 'approved', decided_by = 'bob',"
            " decided_at = now() - interval '6 s' where id = $1",
            request.id,
        )
        await bob.approvals.signal_decision(request.id, "approve")
        await run.result()

    assert len(app.shop.refunds) == (0 if "DENIED" in said else 1)
    assert said in str(model.requests[-1].messages[-1])


async def test_a_parked_run_goes_on_when_its_budget_was_raised(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap is raised where it is set; the signal only makes the run ask again.

    Until then the worker keeps nothing of its conversation.
    """
    app = App([say("Hello.")])
    ada = await stack.acting_as("ada")
    small, large = (Budget(user=Cap(tokens=one, per="day"), on_exceeded="park")
                    for one in (10, 100_000))  # fmt: skip
    plugin = stack.plugin(budget=small, **app.given)
    async with stack.worker(plugin) as worker:
        released: list[Run] = []
        monkeypatch.setattr(plugin.assembly_of(worker).transcripts, "release", released.append)
        run = await ada.start("support", "Hello?")
        while (await run.status()).state != "parked":  # noqa: ASYNC110  # the run decides when
            await asyncio.sleep(0.05)
        assert app.bills.bills() == ()
        assert [one.workflow_id for one in released] == [run.id]
    async with stack.worker(stack.plugin(budget=large, **app.given)):
        await ada.temporal.get_workflow_handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)
        result = await run.result()

    assert (result.output, len(app.bills.bills())) == ("Hello.", 1)
