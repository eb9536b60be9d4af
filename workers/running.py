"""A worker beside a block of code: it runs while the block does, and drains after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.worker import Worker

LET_GO_S_MAX = 2.0


@asynccontextmanager
async def running(worker: Worker, *, drain_s_max: float) -> AsyncIterator[asyncio.Task[None]]:
    """Runs the worker beside the block, yields its task, and returns when it has drained.

    A worker that fails cancels the block and raises its error. TimeoutError says that it did not
    end within `drain_s_max` after the block: activities may not listen to their cancellation. An
    error of the block comes before both, and has them as a note.
    """
    working, block = asyncio.create_task(worker.run()), asyncio.current_task()
    assert block is not None
    inside, cancelled, own = True, False, None

    def ended(_: asyncio.Task[None]) -> None:
        nonlocal cancelled
        if inside and (working.cancelled() or working.exception() is not None):
            cancelled = block.cancel()

    working.add_done_callback(ended)
    try:
        yield working
    except Exception as error:
        own = error
        raise
    finally:
        inside = False
        if cancelled:
            block.uncancel()
        try:
            await _drain(worker, working, drain_s_max)
        except Exception as error:
            if own is None:
                raise
            own.add_note(f"Then the worker failed: {type(error).__name__}: {error}")


async def _drain(worker: Worker, working: asyncio.Task[None], seconds: float) -> None:
    """Returns when the worker has ended; raises what ended it."""
    shutting = asyncio.create_task(worker.shutdown())
    try:
        # Not `shutdown` alone: it never returns for a worker that could not start.
        await asyncio.wait([working], timeout=seconds)
        if not working.done():
            await _let_go(working)
        await working
    except asyncio.CancelledError:
        working.cancel()
        raise
    finally:
        shutting.cancel()


async def _let_go(working: asyncio.Task[None]) -> None:
    """Cancels a worker that does not end.

    On a busy machine the SDK's own last step hung in 5 of 300 exits, when all work had been
    reported. It takes the cancellation for the end; only what hangs earlier is cancelled by it.
    """
    working.cancel()
    await asyncio.wait([working], timeout=LET_GO_S_MAX)
    if not working.done() or working.cancelled():
        raise TimeoutError("The worker did not end in time; others take over what it ran")
