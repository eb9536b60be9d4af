"""What a user is told while Temporal or the store is away: in three parts, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from bench.outage_gate import Gate
from runward.client.answering import NoWorkerAnswered, answered
from runward.client.reader import DirectReader
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts.errors import RunwardError, StoreUnavailable, TemporalUnavailable
from runward.testing.servers import Addresses

from .client_stand_in import Desk

TOLD_S_MAX = 15.0
GIVES_UP_S = 0.5


@pytest.fixture
async def gate(servers: Addresses) -> AsyncIterator[Gate]:
    async with Gate(int(servers.temporal.rpartition(":")[2])) as opened:
        yield opened


@pytest.fixture
async def ada(desk: Desk, gate: Gate) -> ActingClient:
    """The desk's user by way of the gate; her SDK gives up after one try, as ours do after ten."""
    temporal = await Client.connect(
        f"127.0.0.1:{gate.port}", retry_config=RetryConfig(max_retries=1)
    )
    rw = RunwardClient(temporal, issuer=desk.key, reader=desk.reader, task_queue=desk.rw.task_queue)
    return rw.acting_as("ada", tenant=desk.tenant, roles=["finance"])


async def told(ask: Awaitable[object], kind: type[RunwardError]) -> RunwardError:
    """Returns the error, which has three parts and comes soon."""
    async with asyncio.timeout(TOLD_S_MAX):
        with pytest.raises(kind) as caught:
            await ask
    assert caught.value.asked and caught.value.holds and caught.value.instead
    return caught.value


async def test_start_says_how_asking_again_is_harmless(
    desk: Desk, ada: ActingClient, gate: Gate
) -> None:
    await gate.away()

    keyed = await told(ada.start("support", "say done", key="17"), TemporalUnavailable)
    unkeyed = await told(ada.start("support", "say done"), TemporalUnavailable)

    assert "Ask again under the same key" in keyed.instead
    assert "It may have been started all the same" in unkeyed.instead
    await gate.back()
    run = await ada.start("support", "say done", key="17")
    assert (await desk.unconfirmed(run.id)) == "done"


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: run.result(),
        lambda run: run.status(),
        lambda run: run.cancel(),
        lambda run: run.next_approval(),
    ],
    ids=["result", "status", "cancel", "next_approval"],
)
async def test_run_says_that_it_goes_on_without_temporal(
    ada: ActingClient, gate: Gate, ask: Callable[[RunHandle[Any]], Awaitable[object]]
) -> None:
    run = await ada.start("support", "wait")
    await gate.away()

    error = await told(ask(run), TemporalUnavailable)

    assert error.instead == "Ask again; what was under way goes on without you"


async def test_handle_of_an_id_says_that_temporal_is_away(ada: ActingClient, gate: Gate) -> None:
    run = await ada.start("support", "wait")
    await gate.away()

    await told(ada.get(run.id).result(), TemporalUnavailable)


async def test_decision_says_that_temporal_is_away(
    desk: Desk, ada: ActingClient, gate: Gate
) -> None:
    run = await ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    await gate.away()

    await told(ada.approvals.approve("ap-1"), TemporalUnavailable)


async def test_decision_that_loses_its_connection_does_not_blame_the_workers(
    desk: Desk, ada: ActingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's SDK has one error for that, for silence, and for a caller who gives up."""

    async def cut(*_: object, **__: object) -> None:
        cause = RPCError("operation was canceled", RPCStatusCode.CANCELLED, b"")
        raise WorkflowUpdateRPCTimeoutOrCancelledError from cause

    run = await ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    monkeypatch.setattr(WorkflowHandle, "execute_update", cut)

    await told(ada.approvals.approve("ap-1"), TemporalUnavailable)


async def test_caller_who_gives_up_a_decision_is_cancelled(desk: Desk) -> None:
    away = RunwardClient(desk.rw.temporal, issuer=desk.key, reader=desk.reader, task_queue="empty")
    ada = away.acting_as("ada", tenant=desk.tenant)
    run = await ada.start("support", "ask refund")
    desk.reader.asks(desk.tenant, run.id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(GIVES_UP_S):
            await ada.approvals.approve("ap-1")


async def test_answer_and_approvals_say_that_the_store_is_away(desk: Desk) -> None:
    reader = DirectReader("postgresql://ada:secret@127.0.0.1:1/ours")
    rw = RunwardClient(
        desk.rw.temporal, issuer=desk.key, reader=reader, task_queue=desk.rw.task_queue
    )
    ada = rw.acting_as("ada", tenant=desk.tenant)
    run = await ada.start("support", "say done")

    for ask in (run.result(), ada.approvals.list(), ada.approvals.approve("ap-1")):
        error = await told(ask, StoreUnavailable)
        assert "secret" not in str(error)


@pytest.mark.parametrize("status", [RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED])
async def test_silence_is_of_workers_only_where_they_have_to_answer(status: RPCStatusCode) -> None:
    async def silence() -> None:
        raise RPCError("Timeout expired", status, b"")

    with pytest.raises(TemporalUnavailable):
        await answered(silence(), "The run")
    with pytest.raises(NoWorkerAnswered):
        await answered(silence(), "The query", by_worker=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RPCStatusCode.CANCELLED, "operation was canceled"),
        (RPCStatusCode.UNKNOWN, "transport error"),
    ],
)
async def test_cut_connection_is_never_the_workers_silence(
    status: RPCStatusCode, words: str
) -> None:
    async def cut() -> None:
        raise RPCError(words, status, b"")

    with pytest.raises(TemporalUnavailable):
        await answered(cut(), "The query", by_worker=True)
