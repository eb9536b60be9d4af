"""Retention in the sweep: what ended runs left goes after so many days, and slows no step.

Batches are small, and between two of them there is a pause several times as long as a batch. One
process at a time deletes. A run that Temporal still executes keeps everything, whatever the store
says of it: its history may yet come to an end that needs what was recorded.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from runward.store.pool import Store
from runward.store.retention import Due, Part

ROWS_PER_BATCH = 100  # about a millisecond of one core
PAUSE_PER_BATCH = 19.0  # times what the batch took: a twentieth of one connection
RUNS_PER_LOOK = 100  # asked of Temporal's visibility in one query
SECONDS_PER_SWEEP = 40.0  # some 4,000 rows each; the next sweep goes on with the rest
# Ids that can stand in a visibility query without any question of quoting.
_PLAIN = re.compile(r"[\w.:/@+=, -]+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days ended runs keep what they said, and their steps; None is for ever."""

    content_days: int | None = None
    steps_days: int | None = None

    @property
    def parts(self) -> tuple[tuple[Part, int], ...]:
        """Returns what is to go, after how many days; steps take the content with them."""
        given: tuple[tuple[Part, int | None], ...] = (
            ("steps", self.steps_days),
            ("content", self.content_days),
        )
        return tuple((part, days) for part, days in given if days is not None)


class Deletion:
    """Deletes what is due, a share in each sweep; a run that must wait holds up no other."""

    def __init__(self, store: Store, client: Client, retention: Retention) -> None:
        self._store = store
        self._client = client
        self._parts = retention.parts
        self._after: dict[Part, Due] = {}  # where the next look goes on

    async def once(self) -> int:
        """Returns how many rows were deleted or emptied, a chunk of large content counted for 128.

        Errors: those of the store, RPCError.
        """
        until = time.monotonic() + SECONDS_PER_SWEEP
        deleted = await delete(self._store, until) if self._parts else 0
        for part, days in self._parts:
            while time.monotonic() < until:
                runs = await self._store.retention.due(
                    part, days, after=self._after.get(part), limit=RUNS_PER_LOOK
                )
                running = await _running(self._store, self._client, runs)
                ended = [one for one in runs if one not in running]
                await self._store.retention.retire(part, days, ended)
                deleted += await delete(self._store, until)
                if len(runs) < RUNS_PER_LOOK:
                    self._after.pop(part, None)
                    break
                self._after[part] = runs[-1]
        # Also where everything is kept: content that no run came to use, and that of deleted runs.
        return deleted + await _batches(self._store.content.delete_unused, until)


async def delete(store: Store, until: float) -> int:
    """Returns how many rows of marked runs went before that time of the monotonic clock."""
    return await _batches(store.retention.delete, until)


async def _batches(batch: Callable[[int], Awaitable[int]], until: float) -> int:
    deleted = 0
    while (began := time.monotonic()) < until:
        rows = await batch(ROWS_PER_BATCH)
        if rows == 0:
            break
        deleted += rows
        await asyncio.sleep(PAUSE_PER_BATCH * (time.monotonic() - began))
    return deleted


async def _running(store: Store, client: Client, runs: Sequence[Due]) -> set[Due]:
    """Returns those of the runs that Temporal still executes."""
    found: list[tuple[str, str]] = []
    plain = [one.workflow_id for one in runs if _PLAIN.match(one.workflow_id)]
    if plain:
        ids = ", ".join(f"'{one}'" for one in sorted(set(plain)))
        query = f"ExecutionStatus = 'Running' AND WorkflowId IN ({ids})"
        found += [(one.id, one.run_id) async for one in client.list_workflows(query)]
    for name in {one.workflow_id for one in runs} - set(plain):
        found += await _described(client, name)
    running: set[Due] = set()
    for workflow_id, run_id in found:
        known = await store.runs.find(workflow_id, run_id)
        # An execution that the store does not know may be a further one of the run.
        running |= {
            one
            for one in runs
            if one.workflow_id == workflow_id and (known is None or known.run_id == one.run_id)
        }
    return running


async def _described(client: Client, workflow_id: str) -> list[tuple[str, str]]:
    """Returns the running execution of that id, if there is one."""
    try:
        found = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return []
        raise
    return [(found.id, found.run_id)] if found.status is WorkflowExecutionStatus.RUNNING else []
