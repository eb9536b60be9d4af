"""Heartbeats for long attempts, so that a dead worker is noticed and a cancel arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity

INTERVAL_S = 3.0  # below it a call is over before its heartbeat would matter


@contextmanager
def heartbeating() -> Iterator[None]:
    """Sends heartbeats while the block runs, where the activity has a heartbeat timeout."""
    if activity.info().heartbeat_timeout is None:
        yield
        return
    loop = asyncio.get_running_loop()
    # A timer, not a task: most attempts end before it fires. It runs in the activity's context.
    timer = loop.call_later(INTERVAL_S, lambda: beat())

    def beat() -> None:
        nonlocal timer
        timer = loop.call_later(INTERVAL_S, beat)  # first: a beat that fails is not the last one
        activity.heartbeat()

    try:
        yield
    finally:
        timer.cancel()
