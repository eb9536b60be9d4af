"""What a step reads does not grow with its tenant: no plan that was kept reads whole tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from runward.store.database import PLANS_FIRST
from runward.store.migrate import migrate
from runward.store.pool import Store
from tests.store_case import Case, tokens

FEW, MORE, MANY = 20, 40, 2_000
_READ_WHOLE = """
select relname, seq_scan from pg_stat_user_tables where schemaname = 'runward' and seq_scan > 0
"""
_OTHERS = """
insert into runward.bucket
  (tenant, scope, scope_id, dimension, period, window_start, window_end, cap)
select 'tenant', 'user', 'other-' || n, 'tokens', 'day', now(), now() + interval '1 day', 5
  from generate_series(1, $1) n
"""
_READ = "select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'bucket'"


@dataclass
class Fresh:
    """A database of its own, by its owner; the store has one connection, and one tenant."""

    url: str
    owner: asyncpg.Connection[asyncpg.Record]

    async def runs(self, store: Store, first: int, number: int) -> None:
        """Opens so many runs, each with one step of a budget."""
        case = Case(store, self.owner, "tenant")
        for one in range(first, first + number):
            each = case.another_run(user=f"user-{one}")
            await each.started()
            await each.close(await each.admit(each.draft(**tokens(each, 5))))

    async def count_from_here(self, store: Store) -> None:
        """Forgets what was counted so far, also what the store's connection has not told yet."""
        await store.content._database.value("select pg_stat_force_next_flush()")
        await self.owner.execute("select pg_stat_reset()")

    async def counted(self) -> None:
        """Returns once the store's connection has ended: what it counted is there then."""
        while await self.owner.fetchval(
            "select count(*) from pg_stat_activity where datname"
            " = current_database() and application_name = 'runward'"
        ):
            pass


@pytest.fixture
async def fresh(empty_database_url: str) -> AsyncIterator[Fresh]:
    await migrate(empty_database_url)
    owner = await asyncpg.connect(empty_database_url)
    try:
        yield Fresh(empty_database_url, owner)
    finally:
        await owner.close()


async def test_tables_that_grew_after_the_plans_are_not_read_whole(fresh: Fresh) -> None:
    """Statistics of a small table say that reading all of it is cheapest, and plans are kept."""
    async with Store(fresh.url, connections_max=1) as store:
        await fresh.runs(store, 0, FEW)
        await fresh.owner.execute("analyze")
        await fresh.count_from_here(store)
        await fresh.runs(store, FEW, MORE)
    await fresh.counted()

    assert await fresh.owner.fetch(_READ_WHOLE) == []
    assert await fresh.owner.fetchval("select count(*) from runward.run") == FEW + MORE


async def test_tables_that_nobody_analyzed_are_not_read_by_the_tenant_alone(fresh: Fresh) -> None:
    """Where the tables are empty any index that begins with the tenant looks as good."""
    async with Store(fresh.url, connections_max=1) as store:
        await fresh.runs(store, 0, FEW)
        await fresh.owner.execute(_OTHERS, MANY)
        await fresh.runs(store, FEW, PLANS_FIRST)
        await fresh.count_from_here(store)
        await fresh.runs(store, FEW + PLANS_FIRST, MORE)
    await fresh.counted()

    read = await fresh.owner.fetchval(_READ)
    assert 0 < read / MORE < 50, f"{read / MORE} index entries per run"


async def test_the_plans_of_steps_are_kept(fresh: Fresh) -> None:
    """A migration that replaces one of the functions loses its settings, unless it repeats them."""
    query = "select proname, proconfig from pg_proc where proname in ('step_open', 'step_close')"
    settings = {name: set(given) for name, given in await fresh.owner.fetch(query)}

    own = {"search_path=runward, pg_catalog, pg_temp", "plan_cache_mode=force_generic_plan"}
    assert settings == {"step_open": own, "step_close": own}
