"""The sweep: closes runs whose execution ended without a word, and leaves the others alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from runward.contracts.errors import StoreUnavailable
from runward.testing.servers import Addresses
from runward.workers import sweeper
from runward.workers.sweeper import Sweeper, Swept, sweep

from .store_case import Case, tokens

QUEUE = f"sweeper-{os.getpid()}"  # processes of pytest-xdist share a server
NOW = timedelta(0)


@workflow.defn(name="Ends", sandboxed=False)
class Ends:
    """Ends as it is told to; waits for ever otherwise."""

    @workflow.run
    async def run(self, how: str) -> str:
        if how == "fail":
            raise ApplicationError("as told", non_retryable=True)
        if how == "continue":
            workflow.continue_as_new("wait")
        await workflow.wait_condition(lambda: how == "complete")
        return "done"


@pytest.fixture(scope="module")
async def temporal(servers: Addresses) -> AsyncIterator[Client]:
    client = await Client.connect(servers.temporal)
    async with Worker(client, task_queue=QUEUE, workflows=[Ends]):
        yield client


async def started(
    client: Client, case: Case, how: str = "wait", *, id: str = ""
) -> tuple[Case, WorkflowHandle[Ends, str]]:
    """Starts an execution and opens its run, with a step that has begun and not ended."""
    handle = await client.start_workflow(
        Ends.run,
        how,
        id=id or f"case-{uuid4().hex}",
        task_queue=QUEUE,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )
    assert handle.first_execution_run_id is not None
    case = replace(case, run=handle.first_execution_run_id, jti=uuid4().hex)
    await case.admit(case.first(workflow_id=handle.id, **tokens(case, 5)))
    return case, handle


async def state(case: Case) -> tuple[str, str]:
    row = await case.owner.fetchrow(
        "select state, reason from runward.run where run_id = $1", case.run
    )
    assert row is not None
    return row["state"], row["reason"]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("complete", ("ended", "execution completed")),
        ("fail", ("failed", "execution failed")),
        ("cancel", ("cancelled", "execution canceled")),
        ("terminate", ("ended", "execution terminated")),
    ],
)
async def test_closes_as_the_execution_ended(
    temporal: Client, alone: Case, how: str, expected: tuple[str, str]
) -> None:
    case, handle = await started(temporal, alone, how)
    if how == "cancel":
        await handle.cancel()
    elif how == "terminate":
        await handle.terminate()
    if how == "complete":
        await handle.result()
    else:
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    assert await sweep(case.store, temporal, quiet_for=NOW) == Swept(closed=1)
    assert await state(case) == expected
    assert (await case.audit())[-1] == ("run_ended", "", False)
    assert await sweep(case.store, temporal, quiet_for=NOW) == Swept()


async def test_leaves_what_runs_or_was_busy_lately(temporal: Client, alone: Case) -> None:
    running, _ = await started(temporal, alone)
    continued, first = await started(temporal, alone, "continue")
    ended, handle = await started(temporal, alone)
    await handle.terminate()

    busy = await sweep(alone.store, temporal, quiet_for=timedelta(minutes=5))
    quiet = await sweep(alone.store, temporal, quiet_for=NOW)

    assert (busy, quiet) == (Swept(), Swept(closed=1, running=2))
    assert (await state(running))[0] == (await state(continued))[0] == "open"
    assert (await state(ended))[0] == "ended"
    assert first.id


async def test_a_reset_run_stays_open(temporal: Client, alone: Case) -> None:
    case, handle = await started(temporal, alone)
    await handle.query("__stack_trace")  # its first workflow task has completed
    await handle.terminate()
    await temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=case.run),
            workflow_task_finish_event_id=4,
            request_id=uuid4().hex,
            reason="test",
        )
    )

    assert await sweep(case.store, temporal, quiet_for=NOW) == Swept(running=1)
    assert (await state(case))[0] == "open"


async def test_closes_a_run_whose_id_went_to_another(temporal: Client, alone: Case) -> None:
    old, handle = await started(temporal, alone)
    await handle.terminate()
    new, _ = await started(temporal, alone, id=handle.id)

    assert await sweep(alone.store, temporal, quiet_for=NOW) == Swept(closed=1, running=1)
    assert (await state(old), (await state(new))[0]) == (("ended", "execution terminated"), "open")


async def test_an_execution_that_temporal_does_not_know_is_left(
    temporal: Client, alone: Case
) -> None:
    await alone.admit(alone.first())

    assert await sweep(alone.store, temporal, quiet_for=NOW) == Swept(lost=1)
    assert (await state(alone))[0] == "open"


async def test_charges_holds_whose_time_is_over(temporal: Client, alone: Case) -> None:
    case, handle = await started(temporal, alone)
    await handle.terminate()
    await case.owner.execute("update runward.hold set expires_at = now() - interval '1 s'")

    assert await sweep(case.store, temporal, quiet_for=NOW) == Swept(forfeited=1, closed=1)
    assert await case.holds() == ["F"]
    assert (await case.counters("tokens"))[:2] == (0, 5)


async def test_every_quiet_run_gets_its_turn(
    temporal: Client, alone: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "LOOKS_MAX", 2)
    runs = [await started(temporal, alone) for _ in range(5)]
    await runs[0][1].terminate()
    await runs[4][1].terminate()
    sweeping = Sweeper(alone.store, temporal, quiet_for=NOW)

    swept = [await sweeping.once() for _ in range(3)]

    assert [(one.closed, one.running) for one in swept] == [(1, 1), (0, 2), (1, 0)]


class _AwayAtFirst(Sweeper):
    sweeps = 0
    closed: asyncio.Event

    async def once(self) -> Swept:
        self.sweeps += 1
        if self.sweeps == 1:
            raise StoreUnavailable("the store", "It did not answer")
        swept = await super().once()
        if swept.closed:
            self.closed.set()
        return swept


async def test_goes_on_after_a_sweep_that_failed(temporal: Client, alone: Case) -> None:
    case, handle = await started(temporal, alone)
    await handle.terminate()
    short = timedelta(milliseconds=10)
    sweeping = _AwayAtFirst(alone.store, temporal, every=short, quiet_for=NOW)
    sweeping.closed = asyncio.Event()
    running = asyncio.create_task(sweeping.run())
    async with asyncio.timeout(20):
        await sweeping.closed.wait()
    running.cancel()

    assert sweeping.sweeps >= 2
    assert (await state(case))[0] == "ended"
