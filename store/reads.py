"""What people look at: runs, their steps, what was spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from runward.contracts.budget import Dimension, Scope
from runward.contracts.steps import StepKey
from runward.contracts.story import CapWindow, RunQuery, RunRow
from runward.contracts.tries import Tried
from runward.store.database import Database, Row

_RUNS = """
select tenant, run_id, workflow_id, user_id as user, agent, session, state, reason, epoch, round,
       opened_at, closed_at, coalesce(result_digest, '') as result_digest, content_gone_at
  from runward.run"""
RUNS_LISTED = f"""{_RUNS}
 where tenant = $1 and ($2::text is null or user_id = $2) and ($3::text is null or agent = $3)
   and ($4::text is null or state = $4) and ($5::text is null or session = $5)
 order by opened_at desc limit $6"""
_STEPS = """
select step, epoch, round, kind, name, state, digest, attempt, tries, opened_at, closed_at
  from runward.step where tenant = $1 and run_id = $2 order by opened_at, step, epoch"""
_BUCKETS = """
select scope, scope_id, dimension, period, window_start, window_end, cap, held, settled, overrun
  from runward.bucket
 where tenant = $1 and ($2::text is null or scope = $2) and ($3::text is null or scope_id = $3)
 order by scope, scope_id, dimension, window_start desc limit $4"""


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


class ReadStore:
    """Queries for people; nothing here decides anything."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Returns the database's clock."""
        found: datetime = await self._database.value("select clock_timestamp()")
        return found

    async def server_version(self) -> str:
        """Returns the version of PostgreSQL."""
        return str(await self._database.value("show server_version"))

    async def runs(self, tenant: str, query: RunQuery) -> tuple[RunRow, ...]:
        """Returns the tenant's runs that the query asks for, newest first."""
        rows = await self._database.fetch(
            RUNS_LISTED,
            tenant,
            query.user,
            query.agent,
            query.state,
            query.session,
            query.limit,
        )
        return tuple(_run(row) for row in rows)

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """Returns one run, None if that tenant has none of that id."""
        row = await self._database.row(f"{_RUNS} where tenant = $1 and run_id = $2", tenant, run_id)
        return None if row is None else _run(row)

    async def steps(self, tenant: str, run_id: str) -> tuple[StepView, ...]:
        """Returns the run's steps in the order in which they began."""
        rows = await self._database.fetch(_STEPS, tenant, run_id)
        return tuple(StepView(**dict(row)) for row in rows)

    async def tried(self, key: StepKey) -> Tried:
        """Returns how often that step was tried in that epoch, by all workers together."""
        found = await self._database.row(
            "select tries, place, tries_before, unreadable from runward.step"
            " where tenant = $1 and run_id = $2 and round = $3 and epoch = $4 and step = $5",
            key.tenant,
            key.run_id,
            key.round,
            key.epoch,
            key.step,
        )
        return Tried() if found is None else Tried(*found)

    async def buckets(
        self,
        tenant: str,
        *,
        scope: Scope | None = None,
        scope_id: str | None = None,
        limit: int = 100,
    ) -> tuple[CapWindow, ...]:
        """Returns counters, the newest window of each first."""
        rows = await self._database.fetch(_BUCKETS, tenant, scope, scope_id, limit)
        return tuple(CapWindow(**dict(row)) for row in rows)

    async def spend(
        self, tenant: str, scope: Scope, scope_id: str, *, limit: int = 1000
    ) -> dict[Dimension, int]:
        """Returns what a run or a user has spent in each capped dimension, over all windows."""
        found: dict[Dimension, int] = {}
        for one in await self.buckets(tenant, scope=scope, scope_id=scope_id, limit=limit):
            found[one.dimension] = found.get(one.dimension, 0) + one.spent
        return found


def _run(row: Row) -> RunRow:
    return RunRow(**dict(row))
