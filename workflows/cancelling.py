"""Cancels that arrive while an activity ends all the same.

The SDK then returns the activity's result, and the cancel has reached nobody: it is asked for here.
So it does with a failure that another attempt would have mended: after a cancel there is no other.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow

HEARD = "runward.cancel-heard"  # until then such runs went on; theirs is a marker in no other run


def stop_if_cancelled() -> None:
    """Raises CancelledError where this task was cancelled and nothing has told it."""
    if cancelled_unheard():
        raise asyncio.CancelledError


def cancelled_unheard() -> bool:
    """Returns whether this task was cancelled, where something else than the cancel came out."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0 and workflow.patched(HEARD)
