"""Connections are kept between statements: nobody starves for one, and a dead one is replaced."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from bench.outage_gate import Gate, through
from runward.contracts.errors import RequestRefused, RunwardError, StoreUnavailable
from runward.contracts.steps import Admitted
from runward.store import database as store_database
from runward.store.database import Database
from runward.store.pool import Store
from tests.store_case import Case

PATIENCE_S = 1.0
CONNECT_STEPS = 20  # of the event loop; a connection takes some 300


@pytest.mark.parametrize("connections", [1, 2, 3])
async def test_few_connections_serve_everybody(
    case: Case, database_url: str, connections: int
) -> None:
    async with Store(database_url, connections_max=connections) as store:
        case.store = store
        await case.started()
        opens = (case.open(case.draft(f"t1.tool.{n}")) for n in range(20))
        reads = (store.reads.run(case.tenant, case.run) for _ in range(20))
        async with asyncio.timeout(10):
            found = await asyncio.gather(*opens, *reads)

    assert found[:20] == [Admitted()] * 20 and all(found[20:])


async def test_a_connection_that_was_cut_is_replaced(
    database_url: str, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    database = Database(database_url, connections_max=3)
    await database.open()
    backend = await database.value("select pg_backend_pid()")
    assert await database.value("select pg_backend_pid()") == backend

    await owner.execute("select pg_terminate_backend($1)", backend)
    try:
        found = await database.value("select pg_backend_pid()")
    except StoreUnavailable:  # it had not heard of its end yet
        found = await database.value("select pg_backend_pid()")
    await database.close()

    assert found != backend


async def test_a_statement_that_was_cancelled_harms_no_later_one(database_url: str) -> None:
    database = Database(database_url, connections_max=1)
    await database.open()
    sleeping = asyncio.create_task(database.value("select pg_sleep(30)"))
    await asyncio.sleep(0.05)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping

    assert await database.value("select 1") == 1
    await database.close()


async def too_late_to_cancel(task: asyncio.Task[Any]) -> bool:
    """Returns whether the task has ended by itself; else it was cancelled, and hears of it."""
    if not task.cancel():
        return True
    with pytest.raises(asyncio.CancelledError):
        await task
    return False


async def test_a_connect_that_was_cancelled_leaves_nothing_behind(
    database_url: str, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """At whichever of its steps; asyncio would tell on stderr of an exception that nobody took."""
    # Not those of other processes' tests, in databases of their own.
    others = """select count(*) from pg_stat_activity
        where application_name = 'runward' and datname = current_database()"""
    before = await owner.fetchval(others)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    for steps in range(CONNECT_STEPS):
        database = Database(database_url)
        opening = asyncio.create_task(database.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        if await too_late_to_cancel(opening):  # under load a few steps can be enough
            await database.close()
        await asyncio.sleep(0.01)  # until the connection has ended
    gc.collect()
    async with asyncio.timeout(PATIENCE_S):
        while await owner.fetchval(others) > before:  # noqa: ASYNC110  # the server ends them
            await asyncio.sleep(0.05)

    assert told == []


async def test_a_further_connect_that_was_cancelled_leaves_nothing_behind(
    database_url: str,
) -> None:
    """As above, of a connection that the pool makes for a statement."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    database = Database(database_url, connections_max=2)
    await database.open()
    for steps in range(CONNECT_STEPS):
        busy = asyncio.create_task(database.value("select pg_sleep(0.05)"))
        await asyncio.sleep(0.01)
        asking = asyncio.create_task(database.value("select 1"))
        for _ in range(steps):
            await asyncio.sleep(0)
        await too_late_to_cancel(asking)
        await busy
        await database.pool.expire_connections()
    gc.collect()
    both = await asyncio.gather(*(database.value("select 1") for _ in range(2)))
    await database.close()

    assert (told, both) == ([], [1, 1])


@pytest.fixture
async def gate(database_url: str) -> AsyncIterator[Gate]:
    async with Gate(int(database_url.rpartition(":")[2].partition("/")[0])) as opened:
        yield opened


async def opened(database_url: str, gate: Gate) -> Database:
    """Returns a database whose connections, five of them, have all gone silent."""
    database = Database(through(database_url, gate.port))
    await database.open()
    await asyncio.gather(*(database.fetch("select pg_sleep(0.1)") for _ in range(5)))
    gate.hush()
    gate.speak()
    return database


async def test_of_silent_connections_only_the_first_is_waited_for(
    database_url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover that no client was told of: the server is there, for new connections."""
    monkeypatch.setattr(store_database, "COMMAND_S_MAX", PATIENCE_S)
    database = await opened(database_url, gate)

    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="TimeoutError"):
        await database.fetch("select 1")
    first_s = time.monotonic() - began
    assert await database.value("select 1") == 1
    all_s = time.monotonic() - began
    await asyncio.gather(*(database.fetch("select pg_sleep(0.1)") for _ in range(5)))
    await asyncio.sleep(2 * PATIENCE_S)  # until the pool has given up to close the others
    await database.close()
    gc.collect()

    assert PATIENCE_S <= first_s <= all_s < 2 * PATIENCE_S
    assert caplog.messages == []


async def test_a_cancel_does_not_wait_for_a_silent_server(database_url: str, gate: Gate) -> None:
    database = await opened(database_url, gate)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1) as limit:
            await database.fetch("select 1")
    late_s = time.monotonic() - (limit.when() or 0)
    await database.close()

    assert late_s < 1


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays: only a server that is silent loses all of them."""
    monkeypatch.setattr(store_database, "STATEMENT_S_MAX", 0.1)
    database = Database(database_url, connections_max=1)
    await database.open()
    backend = await database.value("select pg_backend_pid()")

    with pytest.raises(StoreUnavailable, match="57014"):
        await database.fetch("select pg_sleep(30)")

    assert await database.value("select pg_backend_pid()") == backend
    await database.close()


async def test_a_connection_that_may_only_read_is_replaced(database_url: str) -> None:
    database = Database(database_url, connections_max=1)
    await database.open()
    await database.fetch("set default_transaction_read_only = on")  # as of a demoted primary

    with pytest.raises(StoreUnavailable, match="25006"):
        await database.fetch("create table runward.never ()")

    assert await database.value("show default_transaction_read_only") == "off"
    assert database.failure is not None and "25006" in str(database.failure.error)
    await database.close()


async def test_a_store_that_only_reads_is_not_writable(database_url: str) -> None:
    async with Store(f"{database_url}?default_transaction_read_only=on") as standby:
        with pytest.raises(StoreUnavailable, match="25006"):
            await standby.check_writable()
    async with Store(database_url, role="runward_worker") as primary:
        await primary.check_writable()

    assert primary.failure is None


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("select 1 / 0", RequestRefused),
        ("do $$ begin raise lock_not_available; end $$", StoreUnavailable),
    ],
)
async def test_a_value_that_does_not_fit_and_a_locked_row_are_no_outage(
    database_url: str, statement: str, told: type[RunwardError]
) -> None:
    async with Store(database_url) as store:
        with pytest.raises(told):
            await store._database.fetch(statement)

    assert store.failure is None


async def test_a_server_that_is_away_is_named_without_its_password() -> None:
    database = Database("postgresql://ada:secret@127.0.0.1:1/ours")

    with pytest.raises(StoreUnavailable, match=r"the store at 127\.0\.0\.1:1\b") as caught:
        await database.open()
    assert "secret" not in str(caught.value)
