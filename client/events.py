"""A run's events for one watcher, from any offset to the run's end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from runward.client.reader import Reader
from runward.contracts.progress import Offset, Progress

ASK_AFTER_LOOKS = 40  # that found nothing of a run


async def events(
    reader: Reader,
    tenant: str,
    run_id: str,
    after: str,
    over: Callable[[], Awaitable[bool]],
) -> AsyncIterator[Progress]:
    """Yields a run's events behind the offset `after`, until one says that the run has ended.

    `over` is asked now and then of a run that tells nothing: one whose first step was refused never
    has an event, and behind an offset of another run or store there may be none. A run that was
    reset after its end has more of them.
    """
    seen = Offset.parse(after) if after else Offset()
    # The last event that the watcher has comes again, unseen: it may be the end.
    again = seen._replace(events=max(seen.events - 1, 0))
    silent = 0
    async for batch in reader.watch(tenant, run_id, again):
        for event in batch:
            if Offset.parse(event.offset) > seen:
                yield event
        silent = -1 if batch or silent < 0 else silent + 1
        if batch and batch[-1].kind == "run_ended":
            row = await reader.run(tenant, run_id)
            if row is None or row.state != "open":
                return
        if silent == ASK_AFTER_LOOKS:
            if await over() and await _nothing_follows(reader, tenant, run_id, seen):
                return
            silent = 0


async def _nothing_follows(reader: Reader, tenant: str, run_id: str, seen: Offset) -> bool:
    """Returns whether a run that is over has no event, or its last one is not behind `seen`."""
    row = await reader.run(tenant, run_id)
    if row is None:
        return True
    if row.state == "open":
        return False
    last: Progress | None = None
    async for batch in reader.watch(tenant, run_id, Offset()):
        if not batch:
            break
        last = batch[-1]
    return last is not None and last.kind == "run_ended" and Offset.parse(last.offset) <= seen
