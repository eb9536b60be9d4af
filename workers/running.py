"""A worker beside a block of code: it runs while the block does, and drains after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.worker import Worker

LET_GO_S_MAX = 2.0


@asynccontextmanager
async def running(worker: Worker, *, drain_s_max: float) -> AsyncIterator[None]:
    """Runs the worker beside the block, and returns when it has drained.

    A worker that fails cancels the block and raises its error. TimeoutError says that activities
    did not end within `drain_s_max` after the block; they may not listen to their cancellation.
    """
    working, block = asyncio.create_task(worker.run()), asyncio.current_task()
    assert block is not None

    def ended(_: asyncio.Task[None]) -> None:
        if working.cancelled() or working.exception() is not None:
            block.cancel()

    working.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if not working.done() or block.uncancel() > 0:  # somebody else cancelled the block
            raise
    finally:
        working.remove_done_callback(ended)
        await _drain(worker, working, drain_s_max)


async def _drain(worker: Worker, working: asyncio.Task[None], seconds: float) -> None:
    """Returns when the worker has ended; raises what ended it."""
    shutting = asyncio.create_task(worker.shutdown())
    try:
        # Not `shutdown` alone: it never returns for a worker that could not start.
        await asyncio.wait([working], timeout=seconds)
        if not working.done():
            await _let_go(working)
        await working
    finally:
        shutting.cancel()


async def _let_go(working: asyncio.Task[None]) -> None:
    """Cancels a worker that does not end.

    Once in about a hundred times on a busy machine the SDK's own last step hangs, when all work has
    been reported already. It then takes the cancellation for the end; only what hangs earlier is
    cancelled by it.
    """
    working.cancel()
    await asyncio.wait([working], timeout=LET_GO_S_MAX)
    if not working.done() or working.cancelled():
        raise TimeoutError("Activities did not end in time; other workers will take them over")
