"""A run's story and a user's usage, put together from the rows that the steps wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from runward.contracts.approvals import Approval
from runward.contracts.outcomes import Denied, Failed, ModelDone, ToolDone, Unknown, decode_outcome
from runward.contracts.runs import usd
from runward.contracts.story import Story, StoryStep, UserUsage
from runward.contracts.usage import Usage
from runward.store.approvals import ApprovalStore
from runward.store.database import Database, Row
from runward.store.reads import ReadStore

# Requests of before a reset stand with the call that they were asked for. After it they count for
# the same call if somebody approved it: that holds, and nobody is asked again.
_STEPS = """
select s.step, s.epoch, s.round, s.kind, s.name, s.state, s.tries, s.opened_at, s.closed_at,
       s.outcome, asked.at as asked_at, asked.rule as asked_rule, asked.requests
  from runward.step s cross join lateral (
    select min(a.created_at) filter (where a.epoch = s.epoch) as at,
           coalesce((array_agg(a.rule order by a.created_at desc)
                     filter (where a.epoch = s.epoch))[1], '') as rule,
           coalesce(array_agg(a.id), '{}') as requests
      from runward.approval a
     where a.tenant = s.tenant and a.run_id = s.run_id and a.round = s.round and a.step = s.step
       and (a.epoch = s.epoch or (a.epoch < s.epoch and a.digest = s.digest
                                  and a.state in ('approved', 'consumed')))) asked
 where s.tenant = $1 and s.run_id = $2"""
_DECIDED = """
select kind, leaf, at from runward.audit_record
 where tenant = $1 and run_id = $2 and kind in ('intent', 'outcome') order by xact, seq"""
# Keys of `ModelDone` as it is recorded; what is at its default is not in it.
_SPENT = """
with answered as (
  select s.run_id, case when s.outcome = '' then '{}'
                        else convert_from(s.outcome, 'UTF8')::jsonb end as o
    from runward.step s join runward.run r on r.tenant = s.tenant and r.run_id = s.run_id
   where r.tenant = $1 and r.user_id = $2 and s.kind = 'model' and s.state = 'done'
     and s.closed_at >= $3)
select count(distinct run_id) as runs, count(*) as calls,
       coalesce(sum((o -> 'u' ->> 0)::bigint), 0)::bigint as input,
       coalesce(sum((o -> 'u' ->> 1)::bigint), 0)::bigint as cache_read,
       coalesce(sum((o -> 'u' ->> 2)::bigint), 0)::bigint as cache_write,
       coalesce(sum((o -> 'u' ->> 3)::bigint), 0)::bigint as output,
       coalesce(sum((o ->> '$')::bigint), 0)::bigint as cost
  from answered"""


class StoryStore:
    """Queries for people who want to know what a run did, and what a user has spent."""

    def __init__(self, database: Database, reads: ReadStore, approvals: ApprovalStore) -> None:
        self._database = database
        self._reads = reads
        self._approvals = approvals

    async def story(self, tenant: str, run_id: str) -> Story | None:
        """Returns the run with its calls as they began, None if the tenant has none of that id.

        Where the run ended or was reset meanwhile, they are read again: else the calls of another
        epoch would look like its own.
        """
        run = await self._reads.run(tenant, run_id)
        while run is not None:
            steps = await self._steps(tenant, run_id)
            now = await self._reads.run(tenant, run_id)
            if now == run:
                return Story(run, steps)
            run = now
        return None

    async def _steps(self, tenant: str, run_id: str) -> tuple[StoryStep, ...]:
        asked = await self._approvals.of_run(tenant, run_id)
        rows = await self._database.fetch(_STEPS, tenant, run_id)
        decided = Decided(await self._database.fetch(_DECIDED, tenant, run_id))
        return tuple(sorted((_step(row, asked, decided) for row in rows), key=_place))

    async def usage(self, tenant: str, user: str, since: datetime) -> UserUsage:
        """Returns what the user's models answered since then, and the newest windows of caps."""
        row = await self._database.row(_SPENT, tenant, user, since)
        assert row is not None, "an aggregate returns a row"
        windows = await self._reads.buckets(tenant, scope="user", scope_id=user)
        newest = {(one.dimension, one.period): one for one in reversed(windows)}
        return UserUsage(
            user=user,
            since=since,
            runs=row["runs"],
            calls=row["calls"],
            usage=Usage(row["input"], row["cache_read"], row["cache_write"], row["output"]),
            cost=usd(row["cost"]),
            windows=tuple(sorted(newest.values(), key=lambda one: (one.dimension, one.period))),
        )


def _place(one: StoryStep) -> tuple[datetime, str, int]:
    return one.opened_at, one.step, one.epoch


class Decided:
    """What a run's audit records say of its steps, each under its round, epoch and id."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rules: dict[str, str] = {}
        self.began: dict[str, datetime] = {}
        for row in rows:
            said = json.loads(row["leaf"])
            if "rule" in said:  # the last attempt's; an outcome has one where there was none
                self.rules[said["step"]] = said["rule"]
            if row["kind"] == "intent":  # the first attempt's; a step's row has the last one's
                self.began.setdefault(said["step"], row["at"])


def _step(row: Row, asked: Sequence[Approval], decided: Decided) -> StoryStep:
    place = f"{row['round']}.{row['epoch']}.{row['step']}"
    began = (row["opened_at"], row["asked_at"], decided.began.get(place))
    outcome = decode_outcome(row["outcome"]) if row["outcome"] else None
    done = outcome if isinstance(outcome, ModelDone) else None
    return StoryStep(
        step=row["step"],
        epoch=row["epoch"],
        round=row["round"],
        kind=row["kind"],
        name=row["name"],
        state=row["state"],
        tries=row["tries"],
        opened_at=min(filter(None, began)),
        closed_at=row["closed_at"],
        usage=None if done is None else done.counters,
        cost=0 if done is None else done.cost,
        rule=decided.rules.get(place, row["asked_rule"]),
        reason=outcome.reason if isinstance(outcome, Denied | Failed | Unknown) else "",
        approvals=tuple(one for one in asked if one.id in row["requests"]),
        full=outcome.full.digest if isinstance(outcome, ToolDone) and outcome.full else "",
    )
