"""Many callers against one database: commits per step, deadlocks, and a tenant that is locked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runward.contracts.budget import Bound, Bucket
from runward.contracts.errors import StoreUnavailable
from runward.contracts.steps import Admitted
from runward.store.pool import Store
from tests.store_case import Case


@pytest.mark.parametrize(("callers", "most"), [(1, 2.0), (32, 0.5)])
async def test_commits_per_step(case: Case, database_url: str, callers: int, most: float) -> None:
    async with Store(database_url) as store:
        case.store = store
        await case.started()
        before = store.steps.opens.flushes + store.steps.closes.flushes
        turns = 8

        async def caller(n: int) -> None:
            for turn in range(turns):
                await case.close(await case.admit(case.draft(f"t{turn}.tool.{n}")))

        await asyncio.gather(*map(caller, range(callers)))
        commits = store.steps.opens.flushes + store.steps.closes.flushes - before

    assert commits / (callers * turns) <= most


@pytest.mark.parametrize("shared_runs", [True, False])
async def test_batches_over_shared_rows_do_not_deadlock(
    case: Case,
    database_url: str,
    owner: asyncpg.Connection[asyncpg.Record],
    shared_runs: bool,
) -> None:
    """8 pools send batches of 8, each in its own order, over the same runs and buckets.

    Shared runs keep such batches apart before they reach a bucket; so once with runs of their own.
    """
    runs = [case.another_run() for _ in range(12 if shared_runs else 64)]
    for each in runs:
        await each.started()
    flushes = 0
    query = "select deadlocks from pg_stat_database where datname = current_database()"

    async def pool(n: int) -> None:
        nonlocal flushes
        play = random.Random(n)
        mine = runs if shared_runs else runs[8 * n : 8 * n + 8]
        async with Store(database_url, connections_max=4) as store:
            for turn in range(30):
                drafts = []
                for place, each in enumerate(play.sample(mine, 8)):
                    users = [f"user-{u}" for u in play.sample(range(6), 2)]
                    buckets = tuple(Bucket("user", u, "tokens", "day", 10**9) for u in users)
                    step = f"p{n}.t{turn}.tool.{place}"
                    drafts.append(each.draft(step, bound=Bound(output_tokens=10), buckets=buckets))
                answers = await asyncio.gather(*map(store.steps.open, drafts))
                assert answers == [Admitted()] * 8
                used: dict[str, Any] = {"resolution": "settle", "actual": Bound(output_tokens=3)}
                closes = [case.ending(draft, **used) for draft in play.sample(drafts, 8)]
                await asyncio.gather(*map(store.steps.close, closes))
            flushes += store.steps.opens.flushes + store.steps.closes.flushes

    before = await owner.fetchval(query)
    await asyncio.gather(*map(pool, range(8)))

    assert flushes >= 480
    assert await owner.fetchval(query) == before
    assert await case.counters("tokens") == (0, 2 * 8 * 30 * 8 * 3, 0)


@contextlib.asynccontextmanager
async def locked(case: Case, database_url: str) -> AsyncIterator[None]:
    """Holds the lock of the case's run, as a stuck transaction would."""
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute(
            "select pg_advisory_xact_lock(runward.run_key($1, $2))", case.tenant, case.run
        )
        yield
    await connection.close()


async def test_a_locked_tenant_does_not_stall_another(case: Case, database_url: str) -> None:
    """Bounds are medians and tails of the same loop with and without the locked tenant."""
    await case.started()
    other = Case(case.store, case.owner, tenant=f"{case.tenant}-other")
    await other.started()

    async def steps(label: str) -> list[float]:
        took = []
        for turn in range(60):
            began = time.perf_counter()
            draft = await other.admit(other.draft(f"{label}{turn}.tool.0"))
            await other.close(draft)
            took.append(time.perf_counter() - began)
        return sorted(took)

    quiet = await steps("a")
    async with locked(case, database_url):
        blocked = [asyncio.create_task(case.open(case.draft(f"t{n}.tool.0"))) for n in range(8)]
        disturbed = await steps("b")
        results = await asyncio.gather(*blocked, return_exceptions=True)

    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert disturbed[len(disturbed) // 2] <= 2 * quiet[len(quiet) // 2]
    assert disturbed[-1] < 1.0  # far from the 2 s that the locked tenant waits
    await case.admit(case.draft())
