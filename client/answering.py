"""What Temporal answers to a call on a run, where that is a refusal: errors that say what to do."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from temporalio.service import RPCError, RPCStatusCode

from runward.contracts.errors import (
    ConfigurationError,
    NotFound,
    RunwardError,
    TemporalUnavailable,
)

Answer = TypeVar("Answer")

AGAIN = "Ask again; what was under way goes on without you"
ASK_UNDER_KEY = "Ask again under the same key: it is one run, however often you ask"
LIST_RUNS = "`runward runs list` has the tenant's runs"
USE_A_KEY = "It may have been started all the same; with a key, asking again is harmless"
_NO_NAMESPACE = ".NamespaceNotFoundFailure"  # what the server puts beside its message
_SILENCE = (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
_CUT = {  # the words of the HTTP client; a timeout has others
    RPCStatusCode.UNKNOWN: "transport error",
    RPCStatusCode.CANCELLED: "operation was canceled",
}
_AWAY = (*_SILENCE, RPCStatusCode.UNAVAILABLE, RPCStatusCode.RESOURCE_EXHAUSTED)


async def answered(call: Awaitable[Answer], asked: str, *, by_worker: bool = False) -> Answer:
    """Returns what the call returns; Temporal's refusals become errors that say what to do.

    `by_worker`: a worker has to answer it, so silence is that of the workers.
    """
    try:
        return await call
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise not_there(asked, error) from error
        silent = error.status in _SILENCE and not _cut(error)
        if by_worker and (silent or "no poller" in error.message):
            raise no_worker(asked) from error
        if error.status is RPCStatusCode.FAILED_PRECONDITION:
            raise failing_worker(asked, error) from error
        if is_away(error):
            raise unavailable(asked, error) from error
        raise


async def admitted_by_temporal(start: Awaitable[Answer], asked: str, *, keyed: bool) -> Answer:
    """Returns what the start returns; a Temporal that is away becomes an error with advice."""
    try:
        return await start
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise not_there(asked, error) from error
        if is_away(error):
            raise unavailable(asked, error, ASK_UNDER_KEY if keyed else USE_A_KEY) from error
        raise


def not_there(asked: str, error: RPCError) -> RunwardError:
    """Returns the error for what Temporal does not know: its namespace, else what was asked for."""
    says = f"Temporal says: {error.message}"
    if any(one.type_url.endswith(_NO_NAMESPACE) for one in error.grpc_status.details):
        return ConfigurationError(
            asked, says, "Correct TEMPORAL_NAMESPACE; `runward doctor` says how one is made"
        )
    return NotFound(asked, says, LIST_RUNS)


def is_away(error: RPCError) -> bool:
    """Returns whether Temporal is away or too busy."""
    return error.status in _AWAY or _cut(error)


def _cut(error: RPCError) -> bool:
    """Returns whether the connection was cut in the call; that has words, but no status."""
    words = _CUT.get(error.status)
    return words is not None and words in error.message


def unavailable(asked: str, error: RPCError, instead: str = AGAIN) -> TemporalUnavailable:
    """Returns the error for a call that Temporal did not answer, or is too busy for."""
    return TemporalUnavailable(asked, f"Temporal did not answer: {error.message}", instead)


class NoWorkerAnswered(RunwardError):
    """A call that only a worker can answer, and none did."""

    code = "RW-WORKER"


def no_worker(asked: str) -> NoWorkerAnswered:
    """Returns the error for a call that only a worker can answer, and none did."""
    return NoWorkerAnswered(
        asked,
        "No worker answered in time",
        "Start one: `runward worker --app module:app`. The log of one that runs says what it waits"
        " for, which may be its store",
    )


def failing_worker(asked: str, error: RPCError) -> NoWorkerAnswered:
    """Returns the error for a run whose last tasks failed or timed out: it answers nobody yet."""
    return NoWorkerAnswered(
        asked,
        f"Temporal says: {error.message}",
        "Ask again once a worker has taken the run up; if none does, their logs say why",
    )
