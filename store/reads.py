"""What people look at: runs, their steps, what was spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from runward.contracts.budget import Dimension, Period, Scope
from runward.contracts.steps import StepKey
from runward.store.database import Database, Row

_RUNS = """
select tenant, run_id, workflow_id, user_id as user, agent, session, state, reason, epoch, round,
       opened_at, closed_at, coalesce(result_digest, '') as result_digest, content_gone_at
  from runward.run"""
_STEPS = """
select step, epoch, round, kind, name, state, digest, attempt, tries, opened_at, closed_at
  from runward.step where tenant = $1 and run_id = $2 order by opened_at, step, epoch"""
_BUCKETS = """
select scope, scope_id, dimension, period, window_start, window_end, cap, held, settled, overrun
  from runward.bucket
 where tenant = $1 and ($2::text is null or scope = $2) and ($3::text is null or scope_id = $3)
 order by scope, scope_id, dimension, window_start desc limit $4"""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run in a list."""

    tenant: str
    run_id: str
    workflow_id: str
    user: str
    agent: str
    session: str
    state: str
    reason: str
    epoch: int
    round: int
    opened_at: datetime
    closed_at: datetime | None
    result_digest: str
    content_gone_at: datetime | None = None  # since then retention deletes what was said


@dataclass(frozen=True, slots=True)
class StepView:
    """A step of a run; `tries` counts the attempts that were admitted."""

    step: str
    epoch: int
    round: int
    kind: str
    name: str
    state: str
    digest: str
    attempt: int
    tries: int
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class BucketView:
    """A counter in one window. `settled` includes what was forfeited."""

    scope: Scope
    scope_id: str
    dimension: Dimension
    period: Period
    window_start: datetime
    window_end: datetime
    cap: int
    held: int
    settled: int
    overrun: int

    @property
    def spent(self) -> int:
        """Returns what was charged, beyond the holds too."""
        return self.settled + self.overrun


class ReadStore:
    """Queries for people; nothing here decides anything."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def runs(
        self, tenant: str, *, user: str | None = None, state: str | None = None, limit: int = 100
    ) -> tuple[RunView, ...]:
        """Returns the tenant's runs, newest first."""
        rows = await self._database.fetch(
            f"{_RUNS} where tenant = $1 and ($2::text is null or user_id = $2)"
            " and ($3::text is null or state = $3) order by opened_at desc limit $4",
            tenant,
            user,
            state,
            limit,
        )
        return tuple(_run(row) for row in rows)

    async def run(self, tenant: str, run_id: str) -> RunView | None:
        """Returns one run, None if that tenant has none of that id."""
        row = await self._database.row(f"{_RUNS} where tenant = $1 and run_id = $2", tenant, run_id)
        return None if row is None else _run(row)

    async def steps(self, tenant: str, run_id: str) -> tuple[StepView, ...]:
        """Returns the run's steps in the order in which they began."""
        rows = await self._database.fetch(_STEPS, tenant, run_id)
        return tuple(StepView(**dict(row)) for row in rows)

    async def tries(self, key: StepKey) -> int:
        """Returns how many attempts of that step were admitted in that epoch."""
        found = await self._database.value(
            "select tries from runward.step where tenant = $1 and run_id = $2 and round = $3"
            " and epoch = $4 and step = $5",
            key.tenant,
            key.run_id,
            key.round,
            key.epoch,
            key.step,
        )
        return int(found or 0)

    async def buckets(
        self,
        tenant: str,
        *,
        scope: Scope | None = None,
        scope_id: str | None = None,
        limit: int = 100,
    ) -> tuple[BucketView, ...]:
        """Returns counters, the newest window of each first."""
        rows = await self._database.fetch(_BUCKETS, tenant, scope, scope_id, limit)
        return tuple(BucketView(**dict(row)) for row in rows)

    async def spend(
        self, tenant: str, scope: Scope, scope_id: str, *, limit: int = 1000
    ) -> dict[Dimension, int]:
        """Returns what a run or a user has spent in each capped dimension, over all windows."""
        found: dict[Dimension, int] = {}
        for one in await self.buckets(tenant, scope=scope, scope_id=scope_id, limit=limit):
            found[one.dimension] = found.get(one.dimension, 0) + one.spent
        return found


def _run(row: Row) -> RunView:
    return RunView(**dict(row))
