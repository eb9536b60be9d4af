"""Retention: what ended runs leave behind goes after so many days, a bounded batch at a time.

Never anything of an open run, never an audit record, never a ledger's bucket. The run's own row
stays: its ticket stays spent, and its answer can still be confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from runward.store.database import Database

# What was said (messages, outcomes, arguments), or that and the steps, holds and approvals.
Part = Literal["content", "steps"]

BEGINNING = datetime.min.replace(tzinfo=UTC)
_DUE = """
select tenant, run_id, workflow_id, closed_at from runward.run
 where closed_at < now() - make_interval(days => $1) and {mark} is null
   and (closed_at, tenant, run_id) > ($2, $3, $4)
 order by closed_at, tenant, run_id limit $5"""
_DUE_OF: dict[Part, str] = {
    "content": _DUE.format(mark="content_gone_at"),
    "steps": _DUE.format(mark="steps_gone_at"),
}
_RESET_BARRED = """
select r.content_gone_at from runward.execution e
  join runward.run r on r.tenant = e.tenant and r.run_id = e.first_run_id
 where e.run_id = $1 and e.workflow_id = $2 and r.state <> 'open'"""


@dataclass(frozen=True, slots=True)
class Due:
    """A run that ended long enough ago; where a list of them goes on behind it."""

    tenant: str
    run_id: str
    workflow_id: str
    closed_at: datetime


class RetentionStore:
    """Deletes through functions that decide for themselves what may go."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(
        self, part: Part, days: int, *, after: Due | None = None, limit: int = 100
    ) -> tuple[Due, ...]:
        """Returns runs that ended at least so many days ago and still have that part."""
        place = (after.closed_at, after.tenant, after.run_id) if after else (BEGINNING, "", "")
        rows = await self._database.fetch(_DUE_OF[part], days, *place, limit)
        return tuple(Due(**dict(row)) for row in rows)

    async def retire(self, part: Part, days: int, runs: Sequence[Due]) -> int:
        """Marks the runs, so that `delete` takes that part of them; returns how many it marked.

        A run that is busy, was opened again or still holds budget is left. `days` is at least 1.
        """
        return int(
            await self._database.value(
                "select runward.retire($1, $2, $3, $4)",
                [one.tenant for one in runs],
                [one.run_id for one in runs],
                part,
                days,
            )
        )

    async def delete(self, limit: int) -> int:
        """Returns how many rows of marked runs were deleted or emptied, about `limit` at most.

        0: nothing is left, or another process is at it.
        """
        return int(await self._database.value("select runward.delete_retired($1)", limit))

    async def since(self, workflow_id: str, first_run_id: str) -> datetime | None:
        """Returns since when a run that has ended lacks what a reset needs; None if it has it."""
        found: datetime | None = await self._database.value(
            _RESET_BARRED, first_run_id, workflow_id
        )
        return found
