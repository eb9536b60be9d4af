"""Cancels that arrive while an activity ends all the same.

The SDK then returns the activity's result, and the cancel has reached nobody: it is asked for here.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow

HEARD = "runward.cancel-heard"  # until then such runs went on; theirs is a marker in no other run


def stop_if_cancelled() -> None:
    """Raises CancelledError where this task was cancelled and nothing has told it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling() and workflow.patched(HEARD):
        raise asyncio.CancelledError
