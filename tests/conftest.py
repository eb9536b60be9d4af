"""One PostgreSQL and one Temporal server for a test session, spread by pytest-xdist or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from runward.store.migrate import migrate
from runward.store.pool import Store
from runward.testing.servers import Addresses, Servers
from runward.testing.stack import Stack
from tests.store_case import Case

_SERVERS = pytest.StashKey[Servers]()


def _servers(config: pytest.Config) -> Servers:
    if _SERVERS not in config.stash:
        config.stash[_SERVERS] = Servers()
    return config.stash[_SERVERS]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Hands the controller's servers to each process of pytest-xdist."""
    addresses = asdict(_servers(node.config).addresses)  # type: ignore[attr-defined]  # no types
    node.workerinput["runward_servers"] = addresses  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the servers that this process started, if any."""
    if _SERVERS in config.stash:
        config.stash[_SERVERS].stop()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Addresses:
    """Where the session's servers are."""
    given: dict[str, dict[str, str]] = getattr(pytestconfig, "workerinput", {})
    if "runward_servers" in given:
        return Addresses(**given["runward_servers"])
    return _servers(pytestconfig).addresses


@pytest.fixture(scope="session")
def server_url(servers: Addresses) -> str:
    """The address of the session's PostgreSQL."""
    return servers.postgres


@pytest.fixture(scope="session")
async def database_url(server_url: str) -> AsyncIterator[str]:
    """The address of a migrated database that only this process uses."""
    async for url in fresh_database(server_url):
        await migrate(url)
        yield url


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """The address of an empty database for one test."""
    async for url in fresh_database(server_url):
        yield url


@pytest.fixture(scope="session")
async def store(database_url: str) -> AsyncIterator[Store]:
    """The store as a worker opens it: with the worker's rights only."""
    async with Store(database_url, role="runward_worker") as opened:
        yield opened


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that may do everything: to look into tables and to play disturbances."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def case(store: Store, owner: asyncpg.Connection[asyncpg.Record]) -> Iterator[Case]:
    """A tenant of its own."""
    yield Case(store, owner, tenant=f"tenant-{uuid4().hex}")


async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """Yields the address of a new database, and drops it afterwards."""
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f"create database {name}")
        base, _, query = server_url.partition("?")
        yield base.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")
        await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


@pytest.fixture
async def stack(database_url: str, servers: Addresses, tmp_path: Path) -> AsyncIterator[Stack]:
    """A tenant and a task queue of its own on the session's servers."""
    key_file = tmp_path / "issuer.key"
    async with Stack.open(database_url, servers.temporal, key_file=key_file) as opened:
        yield opened
