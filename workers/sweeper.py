"""The sweep: rows follow executions that ended without a word, by terminate, timeout or failure.

Every worker sweeps. That is harmless: the first closing wins, and each holds for itself what it
saw. Nothing is closed on a guess: an execution that Temporal does not know may live in another
namespace, so its run is left as it is, and told. Where settings ask for it, a sweep also deletes
what runs that ended long ago have left (`retention.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from runward.client.ended import ENDS, reason_of
from runward.client.settings import SWEEP_EVERY_S_DEFAULT
from runward.contracts.audit import run_record
from runward.contracts.errors import RunwardError
from runward.contracts.runs import EndState
from runward.contracts.steps import Closing, Run
from runward.store.pool import Store
from runward.workers.retention import Deletion, Retention

SWEEP_EVERY = timedelta(seconds=SWEEP_EVERY_S_DEFAULT)
QUIET_FOR = timedelta(seconds=60)  # runs in which an attempt began since then are alive
JITTER = 0.5  # of the interval, either way: workers that start together do not sweep together
LOOKS_MAX = 100  # descriptions asked of Temporal in one sweep; the next sweep goes on behind them
CANDIDATES_MAX = 10_000
FORFEITS = 200
_LOG = logging.getLogger("runward.sweeper")


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did."""

    forfeited: int = 0  # holds that were charged because their time was over
    closed: int = 0
    running: int = 0
    lost: int = 0  # runs whose execution Temporal does not know
    deleted: int = 0  # rows of runs that ended long ago


class Sweeper:
    """Sweeps again and again; with more quiet runs than one sweep looks at, each gets its turn."""

    def __init__(
        self,
        store: Store,
        client: Client,
        *,
        every: timedelta = SWEEP_EVERY,
        quiet_for: timedelta = QUIET_FOR,
        retention: Retention | None = None,
    ) -> None:
        self._store = store
        self._client = client
        self._every = every
        self._quiet_for = quiet_for
        self._deletion = Deletion(store, client, retention or Retention())
        self._next = 0  # where the next sweep begins among the candidates

    async def run(self) -> None:
        """Sweeps until it is cancelled; a store or a Temporal that is away ends one sweep only."""
        while True:
            await asyncio.sleep(
                self._every.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER)
            )
            try:
                swept = await self.once()
            except (RunwardError, RPCError) as error:
                _LOG.warning("a sweep was given up, the next one goes on: %s", error)
                continue
            except Exception:  # noqa: BLE001  a mistake of ours must not end all sweeping
                _LOG.exception("a sweep failed, the next one goes on")
                continue
            if swept.lost:
                _LOG.warning(
                    "%d open runs have no execution in namespace %r; they are left open",
                    swept.lost,
                    self._client.namespace,
                )
            if swept.closed or swept.forfeited or swept.deleted:
                _LOG.info("swept: %s", swept)

    async def once(self) -> Swept:
        """Returns what one sweep did. Errors: those of the store, RPCError."""
        forfeited = await _forfeit(self._store)
        runs = await self._store.runs.candidates(self._quiet_for, CANDIDATES_MAX)
        if self._next >= len(runs):
            self._next = 0
        closed = running = lost = 0
        for run in runs[self._next : self._next + LOOKS_MAX]:
            self._next += 1  # first: a run that cannot be closed holds up nobody behind it
            found = await _last(self._client, run)
            if found is None:
                lost += 1
            elif found.status in ENDS:
                await self._store.runs.close(run, _closing(run, found, ENDS[found.status]))
                closed += 1
                self._next -= 1  # it is no candidate any more, and those behind it move up
            else:
                running += 1
        # Last: whatever keeps it from deleting, runs are closed and holds charged.
        return Swept(forfeited, closed, running, lost, await self._deletion.once())


async def sweep(
    store: Store,
    client: Client,
    *,
    quiet_for: timedelta = QUIET_FOR,
    retention: Retention | None = None,
) -> Swept:
    """Returns what one sweep did."""
    return await Sweeper(store, client, quiet_for=quiet_for, retention=retention).once()


async def _forfeit(store: Store) -> int:
    moved = 0
    while (now := await store.runs.forfeit_expired(FORFEITS)) > 0:
        moved += now
    return moved


async def _last(client: Client, run: Run) -> WorkflowExecutionDescription | None:
    """Returns the last execution of the run's chain, None if Temporal knows none.

    An id has one open execution at most. So if the id went to another chain, ours is over, and
    what its first execution says is the best that is left.
    """
    try:
        latest = await client.get_workflow_handle(run.workflow_id).describe()
        if latest.raw_description.workflow_execution_info.first_run_id == run.run_id:
            return latest
        return await client.get_workflow_handle(run.workflow_id, run_id=run.run_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


def _closing(run: Run, found: WorkflowExecutionDescription, state: EndState) -> Closing:
    assert found.status is not None, "an execution that ended has a status"
    at = found.close_time or datetime.now(UTC)
    record = run_record("run_ended", run, action=run.agent, actor="sweeper", at=at, outcome=state)
    return Closing(state, reason_of(found.status), "", record.leaf)
