"""Brings a database to this version's schema: numbered SQL files, one lock, checksums.

The files are in dbmate's format. A schema that is newer than this code, or whose applied files
differ from ours, is refused: guessing there would put ledgers at risk.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeAlias

import asyncpg
import asyncpg.pool

from runward.contracts.errors import ConfigurationError
from runward.store.database import CONNECT_S_MAX

LOCK = 7_041_100_001  # one migration at a time for each database

_NAME = re.compile(r"(\d{4})_[a-z_]+\.sql\Z")
_PARTS = re.compile(r"^-- migrate:up\n(?P<up>.*)^-- migrate:down\n(?P<down>.*)\Z", re.M | re.S)
_LEDGER = """
create schema if not exists runward;
create table if not exists runward.schema_migrations (
  version text primary key,
  checksum text not null,
  applied_at timestamptz not null default clock_timestamp()
)"""
# For a reader's own tools: one file is all there or not at all, and is noted as `migrate` notes it.
_HEAD = """\
-- The store of runward, as `runward db migrate` would make it. Apply it as the schema's owner, and
-- stop at the first error: psql -v ON_ERROR_STOP=1 -f FILE
"""
_ONE = """
begin;
-- {name}
{up}
insert into runward.schema_migrations (version, checksum)
values ('{version}', '{checksum}');
commit;
"""

# Quoted: asyncpg's classes take parameters in its stubs only.
Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: str
    name: str
    up: str
    down: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands: versions applied, and those that `migrate` would apply."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """Returns this version's migrations in their order."""
    found = []
    for file in sorted(files("runward.store").joinpath("migrations").iterdir(), key=str):
        match = _NAME.match(file.name)
        if match is None:
            continue
        text = file.read_text(encoding="utf-8")
        parts = _PARTS.match(text)
        assert parts is not None, f"{file.name} has no up and down part"
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(match[1], file.name, parts["up"], parts["down"], checksum))
    return tuple(found)


def script(after: str = "") -> str:
    """Returns the SQL of all migrations behind that version, to be applied by hand.

    Errors: ConfigurationError for a version that is none of ours.
    """
    known = migrations()
    if after and after not in {one.version for one in known}:
        raise ConfigurationError(
            f"The migrations after {after!r}",
            f"There are {known[0].version} to {known[-1].version}",
            "Take the last one that `runward db status` names as applied",
        )
    parts = [_HEAD] if after else [_HEAD, _LEDGER.lstrip() + ";\n"]
    for one in known:
        if one.version > after:
            up = one.up.strip()
            parts.append(
                _ONE.format(name=one.name, up=up, version=one.version, checksum=one.checksum)
            )
    return "".join(parts)


async def migrate(dsn: str) -> Status:
    """Applies what is pending, each file in a transaction of its own; returns the new status.

    Errors: ConfigurationError for a schema that is newer than this code, or was edited.
    """
    connection = await asyncpg.connect(dsn, timeout=CONNECT_S_MAX)
    try:
        # A session's lock: it outlives the single transactions and ends with the connection.
        await connection.execute("select pg_advisory_lock($1)", LOCK)
        await connection.execute(_LEDGER)
        status = await check(connection)
        for one in migrations():
            if one.version in status.pending:
                async with connection.transaction():
                    await connection.execute(one.up)
                    await connection.execute(
                        "insert into runward.schema_migrations (version, checksum) values ($1, $2)",
                        one.version,
                        one.checksum,
                    )
        return await check(connection)
    finally:
        await connection.close()


async def status(dsn: str) -> Status:
    """Returns where the database stands; changes nothing. Errors: as `migrate`."""
    connection = await asyncpg.connect(dsn, timeout=CONNECT_S_MAX)
    try:
        return await check(connection)
    finally:
        await connection.close()


async def check(connection: Connection) -> Status:
    """Returns the status as seen by this connection. Errors: as `migrate`."""
    known = {one.version: one for one in migrations()}
    exists = await connection.fetchval(
        "select to_regclass('runward.schema_migrations') is not null"
    )
    rows = []
    if exists:
        rows = await connection.fetch(
            "select version, checksum from runward.schema_migrations order by version"
        )
    for version, checksum in rows:
        if version not in known:
            raise ConfigurationError(
                "the store's schema",
                f"It has migration {version!r}, which this version of runward does not know",
                "Upgrade runward",
            )
        if checksum != known[version].checksum:
            raise ConfigurationError(
                "the store's schema",
                f"Migration {known[version].name!r} was applied with another text",
                "Restore that file, and put the change into a new migration",
            )
    applied = tuple(version for version, _ in rows)
    return Status(applied, tuple(version for version in known if version not in applied))
