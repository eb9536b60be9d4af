"""Waits for a store that is away. No cancel of the attempt ends them; `cancelled` tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runward.contracts.errors import StoreUnavailable

AGAIN_AFTER_S = 0.25

T = TypeVar("T")


async def until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Returns the store's answer; asks again while it is away."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(AGAIN_AFTER_S)  # heartbeating, until the attempt ends


async def finish(work: Awaitable[T]) -> T:
    """Returns what the work comes to, even if the attempt is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


def cancelled() -> bool:
    """Returns whether this attempt was cancelled, also while it waited for the store."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
