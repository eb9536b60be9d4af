"""What our tests need beyond runward's own fixtures, which they use under shorter names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from typer.main import get_command

from runward.store.migrate import migrate, script
from runward.store.pool import Store
from runward.testing import Addresses, Stack
from runward.testing.databases import create, drop
from runward.workers.dev import DevStack
from tests.app_folder import APP
from tests.bad_input_shell import spoiled
from tests.client_stand_in import Desk, open_desk
from tests.store_case import Case
from tests.wheel import build


@pytest.fixture(scope="session", autouse=True)
def tree_of_commands() -> Iterator[None]:
    """Typer makes the tree anew for each call in this process, which takes longer than the call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def servers(runward_servers: Addresses) -> Addresses:
    """Where the session's servers are."""
    return runward_servers


@pytest.fixture(scope="session")
def server_url(servers: Addresses) -> str:
    """The address of the session's PostgreSQL."""
    return servers.postgres


@pytest.fixture(scope="session")
def database_url(runward_database_url: str) -> str:
    """The address of a migrated database that only this process uses."""
    return runward_database_url


@pytest.fixture
def stack(runward_stack: Stack) -> Stack:
    """A tenant and a task queue of its own on the session's servers."""
    return runward_stack


@pytest.fixture
async def desk(servers: Addresses, tmp_path: Path) -> AsyncIterator[Desk]:
    """A client's user, with a stand-in for the run, on the session's Temporal."""
    async with open_desk(servers.temporal, tmp_path) as opened:
        yield opened


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """The address of an empty database for one test."""
    url = await create(server_url)
    yield url
    await drop(server_url, url)


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


@pytest.fixture(scope="module")
async def dev(database_url: str, servers: Addresses) -> AsyncIterator[DevStack]:
    """The stack of `runward dev`, without an app, on the session's servers."""
    async with DevStack(
        None, database_url=database_url, temporal_address=servers.temporal
    ) as entered:
        yield entered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app in it: `shop:app`."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.fixture
def bad_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, of bad apps and files; nothing is set."""
    yield from spoiled(tmp_path, monkeypatch)


@pytest.fixture
def stack_settings(bad_folder: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bad folder, and variables that name the stack's servers."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", stack.temporal_address)
    monkeypatch.setenv("RUNWARD_DATABASE_URL", stack.database_url)
    monkeypatch.setenv("RUNWARD_KEY_FILE", str(stack.key.path))
    monkeypatch.setenv("RUNWARD_TASK_QUEUE", stack.task_queue)
    monkeypatch.setenv("RUNWARD_TENANT", stack.tenant)
    return bad_folder


@pytest.fixture
async def old_database_url(server_url: str) -> AsyncIterator[str]:
    """The address of a database with the schema of an older release."""
    url = await create(server_url)
    connection = await asyncpg.connect(url)
    older, _, _ = script().partition("-- 0009_")
    await connection.execute(older.rpartition("begin;")[0])
    await connection.close()
    yield url
    await drop(server_url, url)


@pytest.fixture
async def alone(empty_database_url: str) -> AsyncIterator[Case]:
    """A tenant in a database in which there is nobody else."""
    await migrate(empty_database_url)
    owner = await asyncpg.connect(empty_database_url)
    async with Store(empty_database_url, role="runward_worker") as store:
        yield Case(store, owner, tenant="acme")
    await owner.close()
