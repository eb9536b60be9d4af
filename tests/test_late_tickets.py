"""Executions that repeat a start's headers long after its ticket was valid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.common import RetryPolicy

from runward.contracts.errors import TicketRefused
from runward.contracts.identity import Issuer, Ticket, verify
from runward.contracts.policy import StandardPermissions
from runward.contracts.tools import tool
from runward.interceptors import identity
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App, reset
from tests.users_code import Cards, ChargesTwice

FREE = StandardPermissions(mode="bypassPermissions")
LATE = timedelta(hours=1)

Refusals = Callable[[], int]


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Refusals:
    """Each ticket holds once and is an hour older afterwards; returns how many were refused."""
    seen: set[str] = set()
    refused: list[str] = []

    def judged(token: str, issuer: Issuer | None, *, at: datetime) -> Ticket:
        late = LATE if token in seen else timedelta()
        seen.add(token)
        try:
            return verify(token, issuer, at=at + late)
        except TicketRefused:
            refused.append(token)
            raise

    monkeypatch.setattr(identity, "verify", judged)
    return lambda: len(refused)


async def test_a_run_can_be_reset_to_its_start(stack: Stack, refusals: Refusals) -> None:
    """The server says whose execution it is; what acted before does not act again."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        ada = await stack.acting_as("ada")
        run = await ada.start("support", "Refund order 17")
        await run.result()
        await reset(stack, run.id, 1)
        result = await ada.get(run.id).result()

    assert (result.output, len(app.shop.refunds)) == ("Refunded.", 1)
    assert refusals() == 1


async def test_a_users_workflow_can_be_retried(stack: Stack, refusals: Refusals) -> None:
    """Its second attempt acts, in the same user's name."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    async with stack.worker(plugin, workflows=[ChargesTwice], activities=[cards.charge]):
        said = await (await stack.acting_as("ada")).temporal.execute_workflow(
            ChargesTwice.run, "17", id=uuid4().hex, task_queue=stack.task_queue,
            retry_policy=RetryPolicy(maximum_attempts=2),
        )  # fmt: skip

    assert (said, cards.charged, refusals()) == ("charged 17", ["17", "17"], 1)


async def test_a_cron_acts_in_each_of_its_executions(stack: Stack, refusals: Refusals) -> None:
    """Days after its start as well."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    async with stack.worker(plugin, workflows=[ChargesTwice], activities=[cards.charge]):
        run = await (await stack.acting_as("ada")).temporal.start_workflow(
            ChargesTwice.run, "17", id=uuid4().hex, task_queue=stack.task_queue,
            cron_schedule="@every 1s",
        )  # fmt: skip
        while len(cards.charged) < 3:  # noqa: ASYNC110  # Temporal's clock decides when
            await asyncio.sleep(0.05)
        await run.terminate()

    assert refusals() >= 2
