"""Retention: the sweep deletes what is due and spares what still runs; old runs answer clearly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from runward.cli.worker import checked
from runward.client.run_handle import RunHandle
from runward.contracts.content import Content
from runward.contracts.errors import AgentError, ConfigurationError
from runward.contracts.steps import Closing
from runward.store.content import HELD_FOR_A_STEP
from runward.store.pool import Store
from runward.testing.scripts import ask, say
from runward.testing.servers import Addresses
from runward.testing.stack import Stack
from runward.workers import retention
from runward.workers.retention import Deletion, Retention
from runward.workers.sweeper import Swept, sweep

from .store_case import Case
from .support import App, reset

QUEUE = f"retention-{os.getpid()}"  # processes of pytest-xdist share a server
KEPT = Retention(content_days=7, steps_days=30)
NOW = timedelta(0)


@workflow.defn(name="WaitsForIt", sandboxed=False)
class WaitsForIt:
    """Waits until it is cancelled."""

    @workflow.run
    async def run(self) -> None:
        await asyncio.Future()


@pytest.fixture(scope="module")
async def temporal(servers: Addresses) -> AsyncIterator[Client]:
    client = await Client.connect(servers.temporal)
    async with Worker(client, task_queue=QUEUE, workflows=[WaitsForIt]):
        yield client


@dataclass
class Answered:
    """A run that the store holds as ended, and its execution, which still runs."""

    case: Case
    handle: WorkflowHandle[WaitsForIt, None]

    async def steps(self) -> int:
        found: int = await self.case.owner.fetchval(
            "select count(*) from runward.step where run_id = $1", self.case.run
        )
        return found


async def answered(client: Client, case: Case, *, days: int = 40, id: str = "") -> Answered:
    handle = await client.start_workflow(
        WaitsForIt.run, id=id or f"case-{uuid4().hex}", task_queue=QUEUE
    )
    assert handle.first_execution_run_id is not None
    case = replace(case, run=handle.first_execution_run_id, jti=uuid4().hex)
    draft = await case.admit(case.first(workflow_id=handle.id))
    await case.close(draft, closing=Closing("answered", "", "result-1", b"run_ended"))
    await case.owner.execute(
        "update runward.run set closed_at = now() - make_interval(days => $2) where run_id = $1",
        case.run,
        days,
    )
    return Answered(case, handle)


async def ended(one: Answered) -> None:
    await one.handle.terminate()


async def listed(client: Client, handles: list[WorkflowHandle[WaitsForIt, None]]) -> None:
    """Waits until Temporal's visibility, which follows a little behind, says what is so."""
    for handle in handles:
        wanted = (await handle.describe()).status
        async with asyncio.timeout(20):
            while True:
                name = handle.id.replace("'", "''")
                seen = [one async for one in client.list_workflows(f"WorkflowId = '{name}'")]
                if seen and seen[0].status is wanted:
                    break
                await asyncio.sleep(0.05)


async def test_deletes_in_the_sweep_what_is_due(temporal: Client, alone: Case) -> None:
    old, young = [await answered(temporal, alone, days=days) for days in (40, 5)]
    for one in (old, young):
        await ended(one)
    await listed(temporal, [old.handle, young.handle])

    assert await sweep(alone.store, temporal, quiet_for=NOW) == Swept()  # unset: for ever
    swept = await sweep(alone.store, temporal, quiet_for=NOW, retention=KEPT)

    assert swept.deleted > 0
    assert (await old.steps(), await young.steps()) == (0, 1)
    assert await sweep(alone.store, temporal, quiet_for=NOW, retention=KEPT) == Swept()


@pytest.mark.parametrize("name", ["plain", 'it\'s \\ "quoted"'])
async def test_what_temporal_still_runs_is_spared_and_holds_up_nobody(
    temporal: Client, alone: Case, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(retention, "RUNS_PER_LOOK", 1)
    running = await answered(temporal, alone, days=50, id=f"{name}-{uuid4().hex}")
    over = await answered(temporal, alone, days=40)
    await ended(over)
    await listed(temporal, [over.handle])
    if name == "plain":
        await listed(temporal, [running.handle])
    deletion = Deletion(alone.store, temporal, Retention(steps_days=30))

    await deletion.once()
    assert (await running.steps(), await over.steps()) == (1, 0)

    await ended(running)
    if name == "plain":
        await listed(temporal, [running.handle])
    await deletion.once()
    assert await running.steps() == 0


async def test_an_id_that_went_to_another_run_spares_nothing(temporal: Client, alone: Case) -> None:
    old = await answered(temporal, alone)
    await ended(old)
    new = await answered(temporal, alone, id=old.handle.id, days=1)
    await listed(temporal, [new.handle])

    await Deletion(alone.store, temporal, Retention(steps_days=30)).once()

    assert (await old.steps(), await new.steps()) == (0, 1)


async def old(stack: Stack, run: RunHandle[str], part: str) -> None:
    """Makes the run 40 days old and deletes that part of it."""
    owner = await asyncpg.connect(stack.database_url)
    await owner.execute(
        "update runward.run set closed_at = now() - interval '40 days' where workflow_id = $1",
        run.id,
    )
    await owner.close()
    async with Store(stack.database_url, role="runward_worker") as store:
        found = [one for one in await store.retention.due("steps", 30, limit=10_000)
                 if one.workflow_id == run.id]  # fmt: skip
        assert await store.retention.retire("steps" if part == "steps" else "content", 30, found)
        while await store.retention.delete(1000):
            pass


@pytest.mark.parametrize("task", [1, 2, 3], ids=["from the start", "from the tool", "at the end"])
@pytest.mark.parametrize("part", ["content", "steps"])
async def test_a_reset_of_an_old_run_is_refused_and_repeats_nothing(
    stack: Stack, part: str, task: int
) -> None:
    pay = ask("refund", order_id="17", amount="5.00")
    app = App([pay, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await bob.approvals.approve((await run.next_approval()).id)
        await run.result()
        await old(stack, run, part)
        assert (await run.result()).output == "Refunded."  # its row still confirms it
        await reset(stack, run.id, task)

        with pytest.raises(AgentError, match="retention deleted what this run did"):
            await ada.get(run.id).result(timeout=30)

    assert len(app.shop.refunds) == 1


async def test_the_result_of_an_old_run_says_that_its_answer_was_deleted(stack: Stack) -> None:
    """A long answer is in the store only."""
    app = App([say("x" * 40_000)], agent_options={"max_output_tokens": 20_000})
    async with stack.worker(stack.plugin(**app.given)):
        ada = await stack.acting_as("ada")
        run = await ada.start("support", "Write")
        assert len((await run.result()).output) == 40_000
        await old(stack, run, "content")

        with pytest.raises(AgentError, match="Retention deleted it after 20"):
            await run.result(timeout=30)


def test_days_come_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"database_url": "postgres://h/d", "address": "h:7233"}
    given["task_queue"] = None
    for name in ("CONTENT", "STEPS"):
        monkeypatch.delenv(f"RUNWARD_RETENTION_{name}_DAYS", raising=False)
    unset = checked("shop:app", **given)
    monkeypatch.setenv("RUNWARD_RETENTION_CONTENT_DAYS", "7")
    monkeypatch.setenv("RUNWARD_RETENTION_STEPS_DAYS", "30")
    found = checked("shop:app", **given)

    assert (unset.retention_content_days, unset.retention_steps_days) == (None, None)
    assert (found.retention_content_days, found.retention_steps_days) == (7, 30)
    for wrong in ("0", "-1", "0.5", "soon", "1000000"):
        monkeypatch.setenv("RUNWARD_RETENTION_STEPS_DAYS", wrong)
        with pytest.raises(ConfigurationError, match="retention_steps_days"):
            checked("shop:app", **given)


async def test_the_sweep_collects_content_that_no_run_uses(alone: Case, temporal: Client) -> None:
    """Also where nothing else is deleted; a chunk is more than a batch and takes one of its own."""
    content = Content(os.urandom(3 * 1024 * 1024))
    await alone.store.content.put(alone.tenant, content, held=HELD_FOR_A_STEP)
    deletion = Deletion(alone.store, temporal, Retention())
    assert await deletion.once() == 0

    await alone.owner.execute("update runward.large_content set free_at = now()")
    assert await deletion.once() > 3 * 128

    assert await alone.store.content.size(alone.tenant, content.digest) is None
    assert await alone.owner.fetchval("select count(*) from runward.content_chunk") == 0
