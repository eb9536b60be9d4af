"""What Temporal answers to a call on a run, where that is a refusal: errors that say what to do."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from temporalio.service import RPCError, RPCStatusCode

from runward.contracts.errors import RequestRefused, RunwardError

Answer = TypeVar("Answer")

_NO_ANSWER = (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


async def answered(call: Awaitable[Answer], asked: str) -> Answer:
    """Returns what the call returns; Temporal's refusals become errors that say what to do."""
    try:
        return await call
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise RequestRefused(asked, f"Temporal says: {error.message}") from error
        if error.status in _NO_ANSWER or "no poller" in error.message:
            raise no_worker(asked) from error
        if error.status is RPCStatusCode.FAILED_PRECONDITION:
            raise failing_worker(asked, error) from error
        raise


class NoWorkerAnswered(RunwardError):
    """A call that only a worker can answer, and none did."""


def no_worker(asked: str) -> NoWorkerAnswered:
    """Returns the error for a call that only a worker can answer, and none did."""
    return NoWorkerAnswered(
        asked, "No worker answered in time", "Start one: `runward worker --app module:app`"
    )


def failing_worker(asked: str, error: RPCError) -> NoWorkerAnswered:
    """Returns the error for a run whose last tasks failed or timed out: it answers nobody yet."""
    return NoWorkerAnswered(
        asked,
        f"Temporal says: {error.message}",
        "Ask again once a worker has taken the run up; if none does, their logs say why",
    )
