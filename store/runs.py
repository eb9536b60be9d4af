"""Runs: which executions belong to one, how it ends, and what a sweep has to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from runward.contracts.steps import Closing, Run, StepKey, StepState
from runward.store.database import Database, Row
from runward.store.wire import text

Adoption = Literal["continued", "reset", "retried"]

_RUN = """r.tenant, r.run_id, r.workflow_id, r.user_id, r.roles, r.agent, r.session, r.policy,
  r.state"""
_FIND = f"""
select {_RUN}, e.epoch, e.round from runward.execution e
  join runward.run r on r.tenant = e.tenant and r.run_id = e.first_run_id
 where e.run_id = $1 and e.workflow_id = $2"""
_CANDIDATES = f"""
select {_RUN}, r.epoch, r.round from runward.run r
 where r.state = 'open' and r.opened_at < now() - $1::interval
   and not exists (select from runward.step s where s.tenant = r.tenant and s.run_id = r.run_id
                      and s.opened_at >= now() - $1::interval)
 order by r.opened_at limit $2"""
_CLOSE = "select runward.run_close($1, $2, $3, $4, $5, $6, $7, $8)"
_RESOLVE = """
select state, outcome from runward.step_resolve($1, $2, $3, $4, $5,
  jsonb_populate_record(null::runward.ending, $6::jsonb),
  jsonb_populate_record(null::runward.ending, $7::jsonb), $8::bytea[])"""


@dataclass(frozen=True, slots=True)
class Ending:
    """A final outcome for a step whose activity failed for good; never `done`."""

    state: StepState
    outcome: bytes
    record: bytes
    message: str = ""


class RunStore:
    """What the store knows of runs, and who they belong to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, workflow_id: str, execution_run_id: str) -> Run | None:
        """Returns the run of that execution, with its epoch and round; None if unknown."""
        row = await self._database.row(_FIND, execution_run_id, workflow_id)
        return None if row is None else _run(row)

    async def adopt(
        self, workflow_id: str, execution_run_id: str, first_run_id: str, kind: Adoption
    ) -> Run | None:
        """Returns the run of a further execution of a known chain, None if the chain is unknown.

        A reset begins a new epoch and opens the run again, a retry (or a cron's next execution)
        a new round; both void what was still asked. Adopting an execution twice changes nothing.
        """
        for name, value in (("workflow_id", workflow_id), ("run_id", execution_run_id)):
            text(name, value, least=1)
        tenant = await self._database.value(
            "select runward.run_adopt($1, $2, $3, $4)",
            workflow_id,
            execution_run_id,
            first_run_id,
            kind,
        )
        return None if tenant is None else await self.find(workflow_id, execution_run_id)

    async def close(self, run: Run, closing: Closing) -> str:
        """Returns the state the run is in: ours, or that of the closing which came first.

        An execution that a reset left behind closes nothing. Pending approvals become void.
        """
        return str(
            await self._database.value(
                _CLOSE,
                run.tenant,
                run.run_id,
                run.round,
                run.epoch,
                closing.state,
                closing.reason,
                closing.result_digest,
                closing.record,
            )
        )

    async def resolve(
        self, key: StepKey, *, acted: Ending, idle: Ending
    ) -> tuple[StepState, bytes]:
        """Returns the recorded outcome of a step whose activity failed for good.

        If nothing is recorded yet, `acted` is for a step with an attempt inside (its hold is
        charged), and `idle` for one without.
        """
        row = await self._database.row(
            _RESOLVE,
            key.tenant,
            key.run_id,
            key.round,
            key.epoch,
            key.step,
            _ending(acted, 1),
            _ending(idle, 3),
            [acted.outcome, acted.record, idle.outcome, idle.record],
        )
        assert row is not None, "a function returns a row"
        return row["state"], row["outcome"]

    async def candidates(self, older_than: timedelta, limit: int = 100) -> tuple[Run, ...]:
        """Returns open runs in which no attempt began for that long, oldest first."""
        rows = await self._database.fetch(_CANDIDATES, older_than, limit)
        return tuple(map(_run, rows))

    async def forfeit_expired(self, limit: int = 200) -> int:
        """Returns how many expired holds were charged in full; they count as spent from then on."""
        return int(await self._database.value("select runward.forfeit_expired($1)", limit))


def _ending(ending: Ending, first: int) -> str:
    return json.dumps(
        {
            "state": ending.state,
            "outcome": first,
            "record": first + 1,
            "message": text("message", ending.message),
        }
    )


def _run(row: Row) -> Run:
    return Run(
        tenant=row["tenant"],
        run_id=row["run_id"],
        workflow_id=row["workflow_id"],
        user=row["user_id"],
        roles=frozenset(row["roles"]),
        agent=row["agent"],
        session=row["session"],
        policy=row["policy"],
        epoch=row["epoch"],
        round=row["round"],
        state=row["state"],
    )
