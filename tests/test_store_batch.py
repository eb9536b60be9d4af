"""Group commit: what is shared, and that nobody in a batch harms the others. No database here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from runward.contracts.errors import RequestRefused, StoreUnavailable
from runward.store.batch import (
    LOCKED,
    OWN_WAIT_MS,
    SHARED_WAIT_MS,
    STUCK_WAIT_MS,
    GroupCommit,
    Locked,
)


class Sink:
    """Answers with twice the number; plays disturbances."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.waits: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = asyncio.Event()
        self.poison: dict[int, Exception] = {}
        self.locked: set[int] = set()

    async def send(self, items: Sequence[int], wait_ms: int) -> list[int | Locked]:
        self.batches.append(list(items))
        self.waits.append(wait_ms)
        self.busy.set()
        await self.gate.wait()
        for item in items:
            if item in self.poison:
                raise self.poison[item]
        return [LOCKED if item in self.locked else 2 * item for item in items]


def commit(sink: Sink, *, items_max: int = 256, bytes_max: int = 2**20) -> GroupCommit[int, int]:
    return GroupCommit(sink.send, in_flight=1, items_max=items_max, bytes_max=bytes_max)


async def put(to: GroupCommit[int, int], item: int, tenant: str = "acme", size: int = 1) -> int:
    return await to.submit(item, tenant=tenant, size=size)


async def test_what_queues_during_a_flush_is_the_next_one() -> None:
    sink = Sink()
    to = commit(sink)
    sink.gate.clear()
    first = asyncio.create_task(put(to, 0))
    await sink.busy.wait()
    others = [asyncio.create_task(put(to, n)) for n in range(1, 9)]
    await asyncio.sleep(0)
    sink.gate.set()

    assert await asyncio.gather(first, *others) == [2 * n for n in range(9)]
    assert sink.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


async def test_a_batch_is_bounded_in_items_and_bytes() -> None:
    few, small = Sink(), Sink()
    by_items, by_bytes = commit(few, items_max=3), commit(small, bytes_max=10)

    await asyncio.gather(*(put(by_items, n) for n in range(7)))
    await asyncio.gather(*(put(by_bytes, n, size=size) for n, size in enumerate((4, 4, 4, 99, 1))))

    assert [len(batch) for batch in few.batches] == [3, 3, 1]
    assert small.batches == [[0, 1], [2], [3], [4]]


async def test_a_poisoned_item_fails_alone() -> None:
    sink = Sink()
    to = commit(sink)
    sink.poison[2] = asyncpg.exceptions.CheckViolationError("bad")

    results = await asyncio.gather(*(put(to, n) for n in range(5)), return_exceptions=True)

    assert isinstance(results[2], RequestRefused)
    assert [r for n, r in enumerate(results) if n != 2] == [0, 2, 6, 8]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        asyncpg.exceptions.AdminShutdownError(""),
        asyncpg.InternalClientError("a connection that was cut while it was idle"),
    ],
)
async def test_a_store_that_is_away_is_said_to_everybody(error: Exception) -> None:
    sink = Sink()
    to = commit(sink)
    sink.poison[0] = error

    results = await asyncio.gather(*(put(to, n) for n in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert len(sink.batches) == 1


async def test_a_cancelled_caller_still_learns_what_became_of_its_item() -> None:
    sink = Sink()
    to = commit(sink)
    tasks = [asyncio.create_task(put(to, n)) for n in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()

    assert await asyncio.gather(*tasks) == [0, 2, 4]
    assert tasks[1].cancelling() == 1, "and that it was cancelled"
    assert sink.batches == [[0, 1, 2]]


async def test_a_caller_cancelled_during_the_flush_does_not_harm_the_others() -> None:
    sink = Sink()
    to = commit(sink)
    sink.gate.clear()
    tasks = [asyncio.create_task(put(to, n)) for n in range(3)]
    await sink.busy.wait()
    tasks[1].cancel()
    await asyncio.sleep(0)
    sink.gate.set()

    assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_whoever_waits_is_let_go_when_the_process_ends() -> None:
    """Those in a flush, those behind it, and those whose lane has not begun yet."""
    sink = Sink()
    to = commit(sink)
    sink.gate.clear()
    tasks = [asyncio.create_task(put(to, 0))]
    await sink.busy.wait()
    tasks += [asyncio.create_task(put(to, n)) for n in (1, 2)]
    await asyncio.sleep(0)

    for task in (*tasks, *to._tasks):
        task.cancel()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(one) for one in ends] == [asyncio.CancelledError] * 3


async def test_a_locked_item_waits_in_a_lane_of_its_tenant() -> None:
    """The others have their answers already; a lane that waited in vain asks only briefly."""
    sink = Sink()
    sink.locked = {1}
    to = commit(sink)

    results = await asyncio.gather(
        put(to, 1, "slow"), put(to, 2, "quick"), put(to, 3, "slow"), return_exceptions=True
    )
    again = await asyncio.gather(put(to, 1, "slow"), put(to, 4, "quick"), return_exceptions=True)

    assert isinstance(results[0], StoreUnavailable) and list(results[1:]) == [4, 6]
    assert isinstance(again[0], StoreUnavailable) and again[1] == 8
    assert sink.batches[:2] == [[1, 2, 3], [1]]
    assert sorted(sink.batches[2:]) == [[1], [4]]
    assert sorted(sink.waits) == sorted(
        [SHARED_WAIT_MS, OWN_WAIT_MS, STUCK_WAIT_MS, SHARED_WAIT_MS]
    )
    assert to.own_lanes == {"slow"}

    sink.locked.clear()
    assert [await put(to, n, "slow") for n in (1, 5)] == [2, 10]
    assert sink.waits[-2:] == [STUCK_WAIT_MS, OWN_WAIT_MS]


async def test_a_batch_that_failed_by_a_lock_is_parted_by_tenants() -> None:
    sink = Sink()
    sink.poison[1] = asyncpg.exceptions.LockNotAvailableError("locked")
    to = commit(sink)

    results = await asyncio.gather(
        put(to, 1, "slow"), put(to, 2, "quick"), put(to, 3, "quick"), return_exceptions=True
    )

    assert isinstance(results[0], StoreUnavailable) and list(results[1:]) == [4, 6]
    assert sink.batches == [[1, 2, 3], [1], [2, 3]]
    assert sink.waits == [SHARED_WAIT_MS, OWN_WAIT_MS, OWN_WAIT_MS]

    await put(to, 4, "quick")
    await asyncio.gather(put(to, 1, "slow"), put(to, 5, "quick"), return_exceptions=True)
    assert to.own_lanes == {"slow"}
    assert sink.batches[-2:] in ([[1], [5]], [[5], [1]])


async def test_drain_waits_for_what_was_queued() -> None:
    sink = Sink()
    to = commit(sink)
    tasks = [asyncio.create_task(put(to, n)) for n in range(3)]
    await asyncio.sleep(0)

    await to.drain()

    assert sink.batches == [[0, 1, 2]]
    assert await asyncio.gather(*tasks) == [0, 2, 4]
