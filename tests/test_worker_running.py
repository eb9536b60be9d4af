"""A worker beside a block: what fails, what does not end, and the SDK's own last step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from typing import cast

import pytest
from temporalio import activity, workflow
from temporalio.bridge.worker import Worker as BridgeWorker
from temporalio.client import Client
from temporalio.worker import Worker

from runward.testing.stack import Stack
from runward.workers.running import running

NEVER_S = 60.0


@activity.defn
async def idle() -> None: ...


@workflow.defn(sandboxed=False)
class Acts:
    @workflow.run
    async def run(self, name: str) -> None:
        await workflow.execute_activity(name, start_to_close_timeout=timedelta(minutes=1))


async def worker_of(stack: Stack, act: Callable[[], Awaitable[None]]) -> Worker:
    client = await Client.connect(stack.temporal_address)
    return Worker(client, task_queue=stack.task_queue, activities=[act], workflows=[Acts])


class Played:
    """Stands for a worker whose run ends as it is told to."""

    def __init__(self) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        await self.told

    async def shutdown(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


def beside(played: Played) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    return running(cast("Worker", played), drain_s_max=1.0)


def cancelling() -> int:
    """Returns how many cancellations of this test are under way."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_last_step_that_hangs_is_the_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, hung = BridgeWorker.finalize_shutdown, asyncio.Event()

    async def hangs(self: BridgeWorker) -> None:
        await final(self)
        hung.set()
        await asyncio.sleep(NEVER_S)

    monkeypatch.setattr(BridgeWorker, "finalize_shutdown", hangs)
    async with asyncio.timeout(NEVER_S / 2):
        async with running(await worker_of(stack, idle), drain_s_max=0.5):
            pass

    assert hung.is_set()


async def test_a_worker_that_fails_ends_the_block() -> None:
    played, waited = Played(), False
    played.told.set_exception(ValueError("it could not start"))
    with pytest.raises(ValueError, match="it could not start"):
        async with beside(played):
            await asyncio.sleep(NEVER_S)
            waited = True

    assert (waited, cancelling()) == (False, 0)  # whoever waits next is not cancelled


async def test_what_cancels_the_block_is_not_taken_for_the_worker(stack: Stack) -> None:
    entered = asyncio.Event()

    async def block() -> None:
        async with running(await worker_of(stack, idle), drain_s_max=30.0):
            entered.set()
            await asyncio.sleep(NEVER_S)

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_activity_that_does_not_listen_is_told(stack: Stack) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    @activity.defn
    async def stubborn() -> None:
        begun.set()
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    worker = await worker_of(stack, stubborn)
    try:
        with pytest.raises(TimeoutError, match="did not end in time"):
            async with running(worker, drain_s_max=0.5):
                acts = await worker.client.start_workflow(
                    Acts.run, "stubborn", id=stack.task_queue, task_queue=stack.task_queue
                )
                await begun.wait()
    finally:
        released.set()
    await acts.terminate()


async def test_a_worker_that_fails_as_the_block_ends_raises_its_own_error() -> None:
    played = Played()
    with pytest.raises(ValueError, match="late"):
        async with beside(played) as working:
            await asyncio.sleep(0)
            played.told.set_exception(ValueError("late"))
            await asyncio.sleep(0)
            assert working.done()

    await asyncio.sleep(0)  # what was to come after the block would come here
    assert cancelling() == 0


async def test_a_timeout_holds_where_the_worker_has_ended_by_itself() -> None:
    played = Played()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), beside(played):
            await played.shutdown()
            await asyncio.sleep(NEVER_S)


async def test_the_error_of_the_block_comes_first() -> None:
    played = Played()
    with pytest.raises(KeyError, match="own") as raised:
        async with beside(played):
            await asyncio.sleep(0)
            played.told.set_exception(ValueError("the worker's"))
            try:
                await asyncio.sleep(NEVER_S)
            except asyncio.CancelledError:
                raise KeyError("own") from None

    assert cancelling() == 0
    assert raised.value.__notes__ == ["Then the worker failed: ValueError: the worker's"]
