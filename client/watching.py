"""Watching runs: one look at the store for all watchers of a client, several times a second.

Nothing is written for a watcher and nobody is notified, so watching costs runs nothing. What a
watcher has is its offset alone: after a lost connection it goes on behind it, with no gap.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from runward.contracts.errors import RequestRefused, StoreUnavailable
from runward.contracts.progress import Offset, Progress, Watched

LOOK_EVERY_S = 0.05  # twice that and a query are the most that an event is late

Look = Callable[[Sequence[Watched]], Awaitable[Sequence[tuple[Progress, ...]]]]


class Watching:
    """The watchers of one client. The looking ends with the last of them."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._watchers: dict[asyncio.Queue[tuple[Progress, ...] | Exception], Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    async def batches(
        self, tenant: str, run_id: str, after: Offset
    ) -> AsyncIterator[tuple[Progress, ...]]:
        """Yields what each look found behind `after`; () for a look that found nothing."""
        mine: asyncio.Queue[tuple[Progress, ...] | Exception] = asyncio.Queue(maxsize=1)
        self._watchers[mine] = Watched(tenant, run_id, after)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_all())
        try:
            while True:
                found = await mine.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            del self._watchers[mine]
            if not self._watchers:
                await self._stop()

    async def close(self) -> None:
        """Ends the looking; watchers that are left raise RequestRefused, each in its own place."""
        for mine, run in self._watchers.items():
            _put(mine, _closed(run))
        await self._stop()

    async def _stop(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    async def _look_for_all(self) -> None:
        away = False
        while True:
            try:
                await self._look_once()
                away = False
            except StoreUnavailable:  # what happens meanwhile is still there when it is back
                if not away:  # which is at once, where only the connection was cut
                    away = True
                    continue
            except Exception as error:  # noqa: BLE001  each watcher raises it in its own place
                for mine in self._watchers:
                    _put(mine, error)
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_once(self) -> None:
        """Hands out what is new; who has not taken the last yet is spared, and loses nothing."""
        free = [(mine, run) for mine, run in self._watchers.items() if mine.empty()]
        found = await self._look([run for _, run in free]) if free else ()
        for (mine, run), events in zip(free, found, strict=True):
            if mine not in self._watchers:
                continue  # went away meanwhile
            if events:
                self._watchers[mine] = run._replace(after=Offset.parse(events[-1].offset))
            mine.put_nowait(events)


def _closed(run: Watched) -> RequestRefused:
    return RequestRefused(
        f"Watching the run {run.run_id!r}",
        "Its client was closed meanwhile",
        "Go on with another client, behind the `offset` of the last event that you have",
    )


def _put(mine: asyncio.Queue[tuple[Progress, ...] | Exception], error: Exception) -> None:
    if mine.full():
        mine.get_nowait()
    mine.put_nowait(error)
