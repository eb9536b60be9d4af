"""`runward db print`: what a DBA applies by hand makes the schema that `migrate` makes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from subprocess import run

import asyncpg
import pytest

from runward.contracts.errors import ConfigurationError
from runward.store.migrate import Connection, migrate, migrations, script, status

VERSIONS = tuple(one.version for one in migrations())
# Everything that a schema is made of here: columns, functions with their text and rights, indexes.
SHAPE = """
select format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default)
  from information_schema.columns where table_schema = 'runward'
union all
select format('%s %s %s', p.oid::regprocedure, md5(pg_get_functiondef(p.oid)), p.proacl)
  from pg_proc p where p.pronamespace = 'runward'::regnamespace
union all select indexdef from pg_indexes where schemaname = 'runward'
union all
select format('%s %s', c.oid::regclass, c.relacl) from pg_class c
 where c.relnamespace = 'runward'::regnamespace
order by 1"""


def printed(*words: str) -> str:
    argv = [sys.executable, "-m", "runward.cli.main", "db", "print", *words]
    return run(argv, capture_output=True, text=True, check=True).stdout


async def shape(connection: Connection) -> Sequence[str]:
    return [row[0] for row in await connection.fetch(SHAPE)]


async def test_the_printed_text_makes_the_schema_that_migrate_makes(
    empty_database_url: str, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(printed())
        made = await shape(connection)
    finally:
        await connection.close()

    assert (await status(empty_database_url)).applied == VERSIONS
    assert made == await shape(owner)
    assert (await migrate(empty_database_url)).applied == VERSIONS  # nothing is left to do


async def test_an_upgrade_takes_only_what_is_behind_its_version(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await migrate(empty_database_url)
        last = migrations()[-1]
        await connection.execute(last.down)
        await connection.execute(
            "delete from runward.schema_migrations where version = $1", last.version
        )
        await connection.execute(printed("--after", VERSIONS[-2]))
    finally:
        await connection.close()

    assert (await status(empty_database_url)).applied == VERSIONS


async def test_an_error_leaves_the_files_before_it(empty_database_url: str) -> None:
    """Each file is a transaction of its own, noted in it."""
    broken = script().replace("create function runward.may_wait", "create nonsense", 1)
    connection = await asyncpg.connect(empty_database_url)
    try:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            for part in broken.split("\nbegin;\n"):
                await connection.execute(f"begin;{part}" if "commit;" in part else part)
    finally:
        await connection.close()

    assert (await status(empty_database_url)).applied == VERSIONS[:1]


def test_a_version_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'0815'"):
        script("0815")
