"""The schema: applied once, whoever comes first; refused when newer or edited; least rights."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from runward.contracts.errors import ConfigurationError, StoreUnavailable
from runward.contracts.steps import Admitted
from runward.contracts.story import RunQuery
from runward.store.migrate import migrate, migrations, status
from runward.store.pool import Store
from tests.store_case import Case, tokens

VERSIONS = tuple(one.version for one in migrations())


async def test_concurrent_migrations_apply_each_file_once(empty_database_url: str) -> None:
    assert (await status(empty_database_url)).pending == VERSIONS

    found = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))

    assert {one.applied for one in found} == {VERSIONS}
    assert (await status(empty_database_url)).pending == ()


async def test_every_file_can_be_taken_back(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    for one in reversed(migrations()):
        await connection.execute(one.down)
    await connection.close()

    assert (await status(empty_database_url)).applied == ()
    assert (await migrate(empty_database_url)).applied == VERSIONS


async def test_an_edited_schema_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("update runward.schema_migrations set checksum = 'x'")
    await connection.close()

    with pytest.raises(ConfigurationError, match="applied with another text"):
        await migrate(empty_database_url)


async def test_a_newer_schema_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("insert into runward.schema_migrations values ('9999', 'x')")
    await connection.close()

    with pytest.raises(ConfigurationError, match="'9999'"):
        await status(empty_database_url)
    async with Store(empty_database_url) as store:
        with pytest.raises(ConfigurationError, match="'9999'"):
            await store.check_schema()


async def test_a_missing_schema_is_refused(empty_database_url: str) -> None:
    async with Store(empty_database_url) as store:
        with pytest.raises(ConfigurationError, match="not applied"):
            await store.check_schema()


async def test_a_store_that_is_away_says_so() -> None:
    with pytest.raises(StoreUnavailable):
        async with Store("postgresql://nobody@127.0.0.1:1/nothing"):
            pass


async def test_the_worker_role_sees_the_current_schema(store: Store) -> None:
    await store.check_schema()


@pytest.mark.parametrize("role", ["runward_worker", "runward_reader"])
@pytest.mark.parametrize(
    "statement",
    [
        "update runward.bucket set held = 0",
        "update runward.hold set state = 'R'",
        "update runward.step set outcome = null",
        "update runward.approval set state = 'approved'",
        "update runward.audit_record set late = true",
        "insert into runward.issuer values ('k', '{}', '{*}', '{*}', '{*}')",
        "delete from runward.audit_record",
        "truncate runward.run cascade",
        "create table runward.mine ()",
        "select runward.resolve_hold('t', 'n', 'R', '{}')",
        "select runward.end_run('t', 'r', 'ended', '', '', '')",
    ],
)
async def test_a_role_may_not_write(
    case: Case, owner: asyncpg.Connection[asyncpg.Record], role: str, statement: str
) -> None:
    await case.started()
    await owner.execute(f"set role {role}")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute(statement)


async def test_the_worker_role_opens_and_closes_steps_and_cannot_touch_the_ledger(
    case: Case, database_url: str
) -> None:
    """By a login of its own that has been granted the role, as in production."""
    login = f"login_{case.run}"
    await case.owner.execute(
        f"create role {login} login password 'p'; grant runward_worker to {login}"
    )
    place = database_url.rpartition("@")[2]
    try:
        async with Store(f"postgresql://{login}:p@{place}") as store:
            case.store = store
            await case.started()
            draft = case.draft(**tokens(case, 5))
            assert await case.open(draft) == Admitted()
            with pytest.raises(ConfigurationError, match="permission denied"):
                await store._database.fetch("update runward.bucket set held = 0")
            assert await case.close(draft)
    finally:
        await case.owner.execute(f"drop role {login}")


async def test_the_reader_role_reads_and_runs_nothing(case: Case, database_url: str) -> None:
    await case.started()

    async with Store(database_url, role="runward_reader") as store:
        assert len(await store.reads.runs(case.tenant, RunQuery())) == 1
        with pytest.raises(ConfigurationError, match="permission denied"):
            await store.steps.open(case.draft())
