"""Group commit: what queues while one flush is under way becomes the next one. There is no timer.

Nobody may harm the others in a batch. A batch with a bad item is sent again item by item. An item
whose rows somebody else has locked comes back at once and waits in a lane of its tenant's own, on
another connection; a tenant that stays locked is asked only briefly, until it is free again.
Near a cap an item costs what any other costs, so that needs no lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from asyncpg.exceptions import LockNotAvailableError

from runward.store.database import translate, trouble

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_MAX = 64  # beyond, a batch saves little per item, and its last item waits for all of them
BYTES_MAX = 4 * 1024 * 1024
IN_FLIGHT = 2  # more would wait for each other's buckets, and make smaller batches
SHARED_WAIT_MS = 5  # about a commit: other batches over the same buckets end within it
OWN_WAIT_MS = 1_000
STUCK_WAIT_MS = 20  # of a lane that waited in vain: it may not keep a slot from the others
OWN_LANE_S = 30.0  # since its last locked row
OWN_IN_FLIGHT = 2  # of all own lanes together


class Locked:
    """Stands for the result of an item whose rows were locked: nothing was done for it."""


LOCKED: Final = Locked()


class _Answer(asyncio.Future[Result]):
    """What a submit waits for. A cancel of whoever waits comes through only when it is there.

    `asyncio.shield` says the same with two more futures and one more round of the loop, per step
    and direction.
    """

    def cancel(self, msg: Any = None) -> bool:
        return False

    def abandon(self) -> None:
        """Ends the wait without an answer, if there is none: the flush itself was cancelled."""
        super().cancel()


@dataclass(slots=True)
class _Entry(Generic[Item, Result]):
    item: Item
    tenant: str
    size: int
    answer: _Answer[Result]


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
        send: Callable[[Sequence[Item], int], Awaitable[Sequence[Result | Locked]]],
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
        """Returns the item's own result, or raises its own error; a cancel waits until then.

        So nobody has to guess whether what they sent was committed.
        """
        answer: _Answer[Result] = _Answer()
        self._queue(self._lane(tenant), [_Entry(item, tenant, size, answer)])
        try:
            return await answer
        except asyncio.CancelledError:
            return answer.result()  # raises it again if the flush was cancelled: the process ends

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
            task.add_done_callback(lambda done: self._worked(lane, done))

    def _worked(self, lane: _Lane[Item, Result], task: asyncio.Task[None]) -> None:
        """Lets go of whoever waits in a lane that nobody works on any more, also if none began."""
        self._tasks.discard(task)
        if task.cancelled():
            _abandon(lane.queue)

    async def _work(self, lane: _Lane[Item, Result]) -> None:
        batch: list[_Entry[Item, Result]] = []
        try:
            while batch := self._take(lane):
                if lane.tenant is None:
                    await self._flush(lane, batch)
                else:
                    async with self._own_slots:
                        await self._flush(lane, batch)
        except asyncio.CancelledError:
            _abandon(batch)
            raise
        finally:
            lane.running -= 1

    def _take(self, lane: _Lane[Item, Result]) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        size = 0
        while lane.queue and len(batch) < self._items_max:
            if batch and size + lane.queue[0].size > self._bytes_max:
                break
            entry = lane.queue.popleft()
            batch.append(entry)
            size += entry.size
        return batch

    async def _flush(self, lane: _Lane[Item, Result], batch: list[_Entry[Item, Result]]) -> None:
        try:
            self.flushes += 1
            results = await self._send([entry.item for entry in batch], lane.wait_ms)
            assert len(results) == len(batch), "one result for each item"
        except Exception as error:  # noqa: BLE001  whoever waits must hear of any error
            await self._failed(lane, batch, error)
        else:
            self._answer(lane, batch, results)

    def _answer(
        self,
        lane: _Lane[Item, Result],
        batch: list[_Entry[Item, Result]],
        results: Sequence[Result | Locked],
    ) -> None:
        locked = []
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Locked):
                locked.append(entry)
            else:
                entry.answer.set_result(result)
        if locked:
            self._locked(lane, locked, until=_now() + OWN_LANE_S)
        elif lane.tenant is not None:
            lane.wait_ms = OWN_WAIT_MS

    async def _failed(
        self, lane: _Lane[Item, Result], batch: list[_Entry[Item, Result]], error: Exception
    ) -> None:
        kind = trouble(error.__cause__ or error)
        if kind == "busy":
            # Whose row it was, nobody knows: those that are not locked soon come back.
            self._locked(lane, batch, until=0.0)
        elif kind == "item" and len(batch) > 1:
            for entry in batch:
                await self._flush(lane, [entry])
        else:
            _refuse(batch, error.__cause__ or error)

    def _locked(
        self, lane: _Lane[Item, Result], entries: list[_Entry[Item, Result]], *, until: float
    ) -> None:
        """Lets the items wait in lanes of their tenants' own; who waited there, waited in vain."""
        if lane.tenant is not None:
            lane.until, lane.wait_ms = _now() + OWN_LANE_S, STUCK_WAIT_MS
            _refuse(entries, LockNotAvailableError())
            return
        tenants: dict[str, list[_Entry[Item, Result]]] = {}
        for entry in entries:
            tenants.setdefault(entry.tenant, []).append(entry)
        for tenant, its in tenants.items():
            own = self._own.setdefault(tenant, _Lane(tenant, 1, OWN_WAIT_MS))
            own.until = max(own.until, until)
            self._queue(own, its)


def _refuse(entries: Sequence[_Entry[Item, Result]], error: BaseException) -> None:
    for entry in entries:
        # One object each: a traceback grows on the error it is raised with.
        entry.answer.set_exception(translate(error))


def _abandon(entries: Iterable[_Entry[Any, Any]]) -> None:
    for entry in entries:
        entry.answer.abandon()


def _now() -> float:
    return asyncio.get_running_loop().time()
