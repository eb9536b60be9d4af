"""What a step reads does not grow with its tenant: no plan that was kept reads whole tables."""

from __future__ import annotations

import asyncpg

from runward.store.migrate import migrate
from runward.store.pool import Store
from tests.store_case import Case, tokens

FEW, MORE = 20, 40
_READ_WHOLE = """
select relname, seq_scan from pg_stat_user_tables where schemaname = 'runward' and seq_scan > 0
"""


async def test_tables_that_grew_after_the_plans_are_not_read_whole(
    empty_database_url: str,
) -> None:
    """Statistics of a small table say that reading all of it is cheapest, and plans are kept."""
    await migrate(empty_database_url)
    owner = await asyncpg.connect(empty_database_url)
    try:
        async with Store(empty_database_url, connections_max=1) as store:
            case = Case(store, owner, "tenant")
            for number in range(FEW + MORE):
                if number == FEW:
                    await owner.execute("analyze")
                    await owner.execute("select pg_stat_reset()")
                each = case.another_run(user=f"user-{number}")
                await each.started()
                bounded = tokens(each, 5)
                await each.close(await each.admit(each.draft(**bounded)))
        # What the store's connection counted is there once it has ended.
        while await owner.fetchval(
            "select count(*) from pg_stat_activity where datname"
            " = current_database() and application_name = 'runward'"
        ):
            pass
        assert await owner.fetch(_READ_WHOLE) == []
        runs = await owner.fetchval("select count(*) from runward.run")
    finally:
        await owner.close()

    assert runs == FEW + MORE
