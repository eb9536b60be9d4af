"""Heartbeats for long attempts, so that a dead worker is noticed and a cancel arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio import activity

INTERVAL_S = 3.0  # below it a call is over before its heartbeat would matter


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Sends heartbeats while the block runs, where the activity has a heartbeat timeout."""
    if activity.info().heartbeat_timeout is None:
        yield
        return
    task = asyncio.create_task(_beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _beat() -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        activity.heartbeat()
