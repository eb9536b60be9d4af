"""Group commit: what queues while one flush is under way becomes the next one. There is no timer.

Nobody may harm the others in a batch: a batch with a bad item is sent again item by item, and a
tenant whose rows stay locked goes into a lane of its own for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from runward.store.database import translate, trouble

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_MAX = 256
BYTES_MAX = 4 * 1024 * 1024
IN_FLIGHT = 2  # more would wait for each other's buckets, and make smaller batches
SHARED_WAIT_MS = 100  # how long one tenant's lock may delay the others, once
OWN_WAIT_MS = 2_000
OWN_LANE_S = 30.0  # since its last locked row
OWN_IN_FLIGHT = 2  # of all own lanes together


@dataclass(slots=True)
class _Entry(Generic[Item, Result]):
    item: Item
    tenant: str
    size: int
    answer: asyncio.Future[Result]


@dataclass(slots=True)
class _Lane(Generic[Item, Result]):
    tenant: str | None  # None: shared by all that have no lane of their own
    width: int
    wait_ms: int
    queue: deque[_Entry[Item, Result]] = field(default_factory=deque)
    running: int = 0
    until: float = 0.0


class GroupCommit(Generic[Item, Result]):
    """Sends items in batches; `send` returns one result for each item, in order, or raises."""

    def __init__(
        self,
        send: Callable[[Sequence[Item], int], Awaitable[Sequence[Result]]],
        *,
        in_flight: int = IN_FLIGHT,
        items_max: int = ITEMS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._send = send
        self._items_max = items_max
        self._bytes_max = bytes_max
        self._shared: _Lane[Item, Result] = _Lane(None, in_flight, SHARED_WAIT_MS)
        self._own: dict[str, _Lane[Item, Result]] = {}
        self._own_slots = asyncio.Semaphore(OWN_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self.flushes = 0  # statements sent, for figures and tests

    async def submit(self, item: Item, *, tenant: str, size: int) -> Result:
        """Returns the item's own result, or raises its own error.

        A caller that is cancelled takes back an item that was not sent yet; the others stay.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue(self._lane(tenant), [_Entry(item, tenant, size, answer)])
        return await answer

    async def drain(self) -> None:
        """Waits until everything that was queued is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def own_lanes(self) -> frozenset[str]:
        """Returns the tenants that are kept apart at the moment."""
        return frozenset(self._own)

    def _lane(self, tenant: str) -> _Lane[Item, Result]:
        lane = self._own.get(tenant)
        if lane is None:
            return self._shared
        if not lane.queue and not lane.running and lane.until < _now():
            del self._own[tenant]
            return self._shared
        return lane

    def _queue(self, lane: _Lane[Item, Result], entries: list[_Entry[Item, Result]]) -> None:
        lane.queue.extend(entries)
        if lane.running < lane.width:
            lane.running += 1
            task = asyncio.get_running_loop().create_task(self._work(lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, lane: _Lane[Item, Result]) -> None:
        try:
            while batch := self._take(lane):
                if lane.tenant is None:
                    await self._flush(lane, batch)
                else:
                    async with self._own_slots:
                        await self._flush(lane, batch)
        finally:
            lane.running -= 1

    def _take(self, lane: _Lane[Item, Result]) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        size = 0
        while lane.queue and len(batch) < self._items_max:
            if batch and size + lane.queue[0].size > self._bytes_max:
                break
            entry = lane.queue.popleft()
            if not entry.answer.done():
                batch.append(entry)
                size += entry.size
        return batch

    async def _flush(self, lane: _Lane[Item, Result], batch: list[_Entry[Item, Result]]) -> None:
        try:
            self.flushes += 1
            results = await self._send([entry.item for entry in batch], lane.wait_ms)
            assert len(results) == len(batch), "one result for each item"
        except asyncio.CancelledError:
            for entry in batch:
                entry.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001  whoever waits must hear of any error
            await self._failed(lane, batch, error)
        else:
            for entry, result in zip(batch, results, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(result)

    async def _failed(
        self, lane: _Lane[Item, Result], batch: list[_Entry[Item, Result]], error: Exception
    ) -> None:
        kind = trouble(error.__cause__ or error)
        if kind == "busy" and lane.tenant is None:
            self._part(batch)
        elif kind == "item" and len(batch) > 1:
            for entry in batch:
                await self._flush(lane, [entry])
        else:
            if kind == "busy":
                lane.until = _now() + OWN_LANE_S
            for entry in batch:
                if not entry.answer.done():
                    # One object each: a traceback grows on the error it is raised with.
                    entry.answer.set_exception(translate(error.__cause__ or error))

    def _part(self, batch: list[_Entry[Item, Result]]) -> None:
        """Gives each tenant of a batch its own lane; those that are not locked soon come back."""
        tenants: dict[str, list[_Entry[Item, Result]]] = {}
        for entry in batch:
            tenants.setdefault(entry.tenant, []).append(entry)
        for tenant, entries in tenants.items():
            lane = self._own.setdefault(tenant, _Lane(tenant, 1, OWN_WAIT_MS))
            self._queue(lane, entries)


def _now() -> float:
    return asyncio.get_running_loop().time()
