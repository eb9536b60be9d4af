"""What ends a run's wait when nobody decides: the request's expiry, a budget that was raised."""

from __future__ import annotations

import asyncio

from runward.contracts import names
from runward.contracts.budget import Budget, Cap
from runward.interceptors.concern import Attempt
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App


class _Soon:
    """A concern behind the others: what it asks expires after a second."""

    def open(self, attempt: Attempt) -> None:
        attempt.draft.approval_ttl_s = 1


async def test_a_request_that_nobody_decides_expires_and_the_run_goes_on(stack: Stack) -> None:
    """The model is told, and the call never runs; a decision afterwards holds for nothing."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Not refunded.")])
    plugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        governance = plugin.assembly_of(worker).governance
        governance.concerns = (*governance.concerns, _Soon())
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        result = await ada.execute("support", "Refund order 17")
        (expired,) = await bob.approvals.list("expired")

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])
    assert expired.tool == "refund"


async def test_a_parked_run_goes_on_when_its_budget_was_raised(stack: Stack) -> None:
    """The cap is raised where it is set; the signal only makes the run ask again."""
    app = App([say("Hello.")])
    ada = await stack.acting_as("ada")
    small, large = (Budget(user=Cap(tokens=one, per="day"), on_exceeded="park")
                    for one in (10, 100_000))  # fmt: skip
    async with stack.worker(stack.plugin(budget=small, **app.given)):
        run = await ada.start("support", "Hello?")
        while (await run.status()).state != "parked":  # noqa: ASYNC110  # the run decides when
            await asyncio.sleep(0.05)
        assert app.bills.bills() == ()
    async with stack.worker(stack.plugin(budget=large, **app.given)):
        await ada.temporal.get_workflow_handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)
        result = await run.result()

    assert (result.output, len(app.bills.bills())) == ("Hello.", 1)
