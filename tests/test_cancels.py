"""A cancel during a model call: whatever comes first, the run ends once and does no more."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from runward.client.run_handle import RunHandle
from runward.contracts.errors import StoreUnavailable
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse
from runward.contracts.steps import Answer, Draft, StepKey
from runward.contracts.tries import Tried
from runward.testing.scripts import Script, ScriptedProvider, Slow, Turn, ask, failing, say
from runward.testing.stack import Stack
from tests.support import App


class Held:
    """An app whose model's first answer waits for a gate."""

    def __init__(self, *turns: Turn) -> None:
        self.app = App([failing(turns[0], Slow(1)), *turns[1:]])
        self.inside, self.gate = asyncio.Event(), asyncio.Event()

    @property
    def given(self) -> dict[str, Any]:
        """Returns what the plugin takes."""
        scripts = {"support": Script(self.app.turns)}
        provider = ScriptedProvider(scripts, ledger=self.app.bills, sleep=self._wait)
        return {**self.app.given, "providers": [provider]}

    async def _wait(self, _: float) -> None:
        self.inside.set()
        await self.gate.wait()


class Busy:
    """A provider that is always busy, and says whether it bills for saying so."""

    name = "scripted"

    def __init__(self, *, unbilled: bool = True) -> None:
        self.unbilled = unbilled
        self.asked = 0
        self.inside, self.gate = asyncio.Event(), asyncio.Event()

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked += 1
        self.inside.set()
        await self.gate.wait()
        raise ModelError("busy", retryable=True, unbilled=self.unbilled)


async def ended(run: Any) -> None:
    """Returns once the run has ended as cancelled."""
    with pytest.raises(WorkflowFailureError) as caught:
        await run.result()
    assert isinstance(caught.value.cause, CancelledError)


async def test_a_cancel_that_is_first_cuts_the_model_call_off(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The call is charged, as it may have been billed, and nothing follows it."""
    held = Held(say("Never."))
    async with stack.worker(stack.plugin(**held.given)):
        run = await (await stack.acting_as("ada")).start("support", "Hello?")
        await held.inside.wait()
        await run.cancel()
        await ended(run)

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    holds = await owner.fetch("select state from runward.hold where tenant = $1", stack.tenant)
    assert (state, [one["state"] for one in holds]) == ("cancelled", ["F"])


@pytest.mark.parametrize("cached", [0, 10], ids=["each task replayed", "cached"])
async def test_a_cancel_that_comes_before_an_answer_with_calls_runs_none_of_them(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record], cached: int
) -> None:
    """The answer still arrives and is recorded; the run was cancelled, so it is not acted on."""
    held = Held(ask("lookup_order", order_id="17"), say("Never."))
    async with stack.worker(stack.plugin(**held.given), max_cached_workflows=cached):
        run = await (await stack.acting_as("ada")).start("support", "Where is order 17?")
        await held.inside.wait()
        await run.cancel()
        held.gate.set()
        await ended(run)

    steps = await owner.fetch(
        "select step, state from runward.step where tenant = $1", stack.tenant
    )
    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (state, [tuple(one) for one in steps]) == ("cancelled", [("t1.model", "done")])
    assert held.app.shop.lookups == []


async def test_a_cancel_that_comes_before_a_call_asks_waits_for_nobody(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The tool's step is held in the store when the cancel comes, and asks a person afterwards."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Never.")])
    plugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        steps = plugin.assembly_of(worker).governance.store.steps
        inside, gate = asyncio.Event(), asyncio.Event()
        opening = steps.open

        async def held(draft: Draft) -> Answer:
            if draft.kind == "tool":
                inside.set()
                await gate.wait()
            return await opening(draft)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(steps, "open", held)
            run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
            await inside.wait()
            await run.cancel()
            gate.set()
            await ended(run)

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (state, app.shop.refunds) == ("cancelled", [])


async def asked_to_end(run: RunHandle[Any]) -> None:
    """Returns once the server knows that the step under way is to end."""
    kind = EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED
    while True:
        if any(one.event_type == kind for one in (await run.history()).events):
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("unbilled", "charged"), [(True, "R"), (False, "F")])
async def test_a_cancel_that_comes_while_the_store_counts_a_failed_try_ends_the_run(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record], unbilled: bool, charged: str
) -> None:
    """No further try follows; what the failed one held is given back, or charged, once."""
    app = App([say("Never.")])
    busy = Busy(unbilled=unbilled)
    busy.gate.set()
    plugin = stack.plugin(**{**app.given, "providers": [busy]})
    async with stack.worker(plugin) as worker:
        reads = plugin.assembly_of(worker).governance.store.reads
        inside, counting = asyncio.Event(), reads.tried

        async def held(key: StepKey) -> Tried:
            inside.set()
            await activity.wait_for_cancelled()
            return await counting(key)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(reads, "tried", held)
            run = await (await stack.acting_as("ada")).start("support", "Hello?")
            await inside.wait()
            await run.cancel()
            await ended(run)

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    holds = await owner.fetch("select state from runward.hold where tenant = $1", stack.tenant)
    assert (state, [one["state"] for one in holds]) == ("cancelled", [charged])
    assert busy.asked == 1


@pytest.mark.parametrize("cached", [0, 10], ids=["each task replayed", "cached"])
async def test_a_cancel_that_a_failing_try_never_hears_of_ends_the_run(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record], cached: int
) -> None:
    """The server knows of it, and so it schedules no other try: the run is told by that failure."""
    app, busy = App([say("Never.")]), Busy()
    plugin = stack.plugin(**{**app.given, "providers": [busy]})
    async with stack.worker(plugin, max_cached_workflows=cached):
        run = await (await stack.acting_as("ada")).start("support", "Hello?")
        await busy.inside.wait()
        await run.cancel()
        await asked_to_end(run)
        busy.gate.set()
        await ended(run)

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    holds = await owner.fetch("select state from runward.hold where tenant = $1", stack.tenant)
    assert (state, [one["state"] for one in holds], busy.asked) == ("cancelled", ["R"], 1)


async def test_a_cancel_that_comes_while_the_store_is_away_ends_the_run(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The attempt that waited for the store was never admitted; the run is closed by its own."""
    app = App([ask("lookup_order", order_id="17"), say("Never.")])
    plugin = stack.plugin(**app.given)
    async with stack.worker(plugin) as worker:
        steps = plugin.assembly_of(worker).governance.store.steps
        inside, opening = asyncio.Event(), steps.open

        async def away(draft: Draft) -> Answer:
            if draft.kind != "tool":
                return await opening(draft)
            inside.set()
            raise StoreUnavailable("the store", "It did not answer (test)", "Try again")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(steps, "open", away)
            run = await (await stack.acting_as("ada")).start("support", "Where is order 17?")
            await inside.wait()
            await run.cancel()
            await ended(run)

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (state, app.shop.lookups) == ("cancelled", [])
