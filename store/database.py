"""Connections, and what the database's errors mean to those who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg
import asyncpg.pool

from runward.contracts.errors import (
    ConfigurationError,
    RequestRefused,
    RunwardError,
    StoreUnavailable,
)

STATEMENT_S_MAX = 9.0  # then the server ends it, and the connection goes on
COMMAND_S_MAX = 10.0  # a server that has not even ended it does not hear us
CONNECT_S_MAX = 5.0  # also for a user who waits to be told that the store is away
CANCELLED_S_MAX = 1.0  # for what is under way to come to its end
CONNECTIONS_MAX = 10  # two lanes of two for steps, as many for slow tenants, two for reads
PLANS_FIRST = 64  # statements on a connection, until it makes its plans anew
KEPT_MAX = 2  # one for opens, one for closes: to give one back to the pool costs 50 us, and a task

Row = asyncpg.Record
# Quoted: asyncpg's classes take parameters in its stubs only.
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row]"
Connected = TypeVar("Connected")
Trouble = Literal["busy", "away", "item"]

# What asyncpg raises when a statement fails. Its internal error is a connection on which the server
# said goodbye while nobody listened.
FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# After these a connection is of no use, though it is open: a new one may lead to another server.
# To be used again after the last two, it would have to wait for the server's answer to a cancel.
_WORN_OUT = (
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncio.CancelledError,
    TimeoutError,
)
_BUSY = ("55P03", "40P01", "40001")  # lock_not_available, deadlock_detected, serialization_failure
_AWAY = ("08", "53", "57", "58")  # connection, resources, operator intervention, system
_READ_ONLY = "25006"  # a standby, or what was the primary before a failover: a matter of time
_MIGRATE = "Run `runward db migrate` and check the role"
_SETUP = ("28", "3D", "3F", "42")  # authorization, no such database or schema, no such object


def trouble(error: BaseException) -> Trouble:
    """Returns what failed: a lock was not free, the store is away, or one item is at fault."""
    state = getattr(error, "sqlstate", None)
    if state in _BUSY:
        return "busy"
    if isinstance(state, str) and isinstance(error, asyncpg.PostgresError):
        return "away" if state[:2] in _AWAY or state == _READ_ONLY else "item"
    # asyncpg's DataError is an argument that cannot be encoded; its siblings are connections.
    if isinstance(error, asyncpg.InterfaceError):
        return "item" if isinstance(error, asyncpg.DataError) else "away"
    return "away" if isinstance(error, FAILURES) else "item"


def translate(error: BaseException, *, store: str = "the store") -> RunwardError:
    """Returns the error that a caller of the store sees; it never holds a value of a row."""
    if isinstance(error, RunwardError):
        return error
    kind, state = trouble(error), getattr(error, "sqlstate", None) or type(error).__name__
    if kind == "busy":
        return StoreUnavailable(store, f"A row stayed locked ({state})", "Try again")
    if kind == "away":
        return StoreUnavailable(store, f"It did not answer ({state})", "Try again")
    if str(state)[:2] in _SETUP:
        return ConfigurationError(store, f"It refused us: {error}", _MIGRATE)
    return RequestRefused(store, f"It cannot hold this value ({state})", "Give another one")


def place(dsn: str) -> str:
    """Returns host and port of a DSN, for errors: never its user or its password."""
    try:
        found = urlsplit(dsn)
        host = found.hostname or parse_qs(found.query).get("host", ["this machine"])[0]
        return f"{host}:{found.port or 5432}"
    except ValueError:  # no address at all; who connects says so
        return "an address that cannot be read"


def unreached(dsn: str, error: BaseException) -> ConfigurationError:
    """Returns the error of a store that nobody could ask; the driver's does not say where."""
    said = str(error) or "It did not answer in time"
    fix = "Start it, or correct RUNWARD_DATABASE_URL"
    return ConfigurationError(f"The store at {place(dsn)}", said, fix)


@dataclass(frozen=True, slots=True)
class Failure:
    """The last time that the store was away, by the clock that is never stepped."""

    error: RunwardError
    at: float


class _Connection(asyncpg.Connection):
    """A connection whose end needs no answer: the pool lets tasks close some, and awaits none."""

    _statements = 0
    _plans_until = PLANS_FIRST

    async def fetch(self, query: str, *values: Any, **options: Any) -> Any:
        """Returns all rows; its plans are renewed now and then."""
        await self._renew_plans()
        return await super().fetch(query, *values, **options)

    async def _renew_plans(self) -> None:
        """Drops the plans after so many statements, then after twice as many, and so on.

        A plan for a table that PostgreSQL has not analyzed yet may take an index by the tenant
        alone, and is kept while the tenant's rows become many: at 1,000 runs each step of a fresh
        database took twice as long.
        """
        if self._statements == self._plans_until:
            await self.execute("discard plans")
            self._plans_until *= 2
        self._statements += 1

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  asyncpg's own
        with suppress(TimeoutError):
            await super().close(timeout=timeout)


class Database:
    """A pool of connections to one database; every error is translated."""

    def __init__(
        self, dsn: str, *, role: str | None = None, connections_max: int = CONNECTIONS_MAX
    ):
        self._dsn = dsn
        self._role = role
        self._connections_max = connections_max
        self._pool: asyncpg.Pool[Row] | None = None
        self._lent = 0  # connections that the pool has given us
        self._kept: list[Connection] = []  # of these, the idle ones
        self.failure: Failure | None = None

    async def open(self) -> None:
        """Connects. Errors: StoreUnavailable, ConfigurationError."""
        settings = {
            "application_name": "runward",
            # The step functions read fresh rows after each lock; no other level does that.
            "default_transaction_isolation": "read committed",
            # Plans are kept while tables grow: one for a small table would come to read all of it.
            "enable_seqscan": "off",
            "jit": "off",
            "statement_timeout": f"{STATEMENT_S_MAX * 1000:.0f}ms",
            "timezone": "UTC",
        }
        if self._role is not None:
            settings["role"] = self._role
        try:
            self._pool = await _connected(
                asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._connections_max,
                    timeout=CONNECT_S_MAX,
                    command_timeout=COMMAND_S_MAX,
                    connection_class=_Connection,
                    server_settings=settings,
                    reset=_keep,
                ),
                _end,
            )
        except FAILURES as error:
            said = translate(error, store=f"the store at {place(self._dsn)}")
            if isinstance(said, RequestRefused):  # nothing was asked yet: a role is missing
                raise ConfigurationError(said.asked, f"It refused us: {error}", _MIGRATE) from error
            raise said from error

    async def close(self) -> None:
        """Closes all connections; waits for statements under way."""
        if self._pool is not None:
            while self._kept:
                await self._release(self._kept.pop())
            await self._pool.close()
            self._pool = None

    @property
    def pool(self) -> asyncpg.Pool[Row]:
        """Returns the open pool."""
        if self._pool is None:
            raise StoreUnavailable("the store", "It is not open", "Use `async with Store(dsn)`")
        return self._pool

    async def fetch(self, query: str, *values: Any) -> list[Row]:
        """Returns all rows."""
        try:
            connection = await self._take()
            try:
                rows = await connection.fetch(query, *values)
            except BaseException as error:
                if isinstance(error, _WORN_OUT):
                    connection.terminate()
                await self._release(connection)
                if isinstance(error, TimeoutError):
                    await self._doubt()
                raise
            await self._put(connection)
        except FAILURES as error:
            translated = translate(error)
            if isinstance(translated, StoreUnavailable) and trouble(error) == "away":
                self.failure = Failure(translated, time.monotonic())
            raise translated from error
        return rows

    async def row(self, query: str, *values: Any) -> Row | None:
        """Returns the first row, None if there is none."""
        rows = await self.fetch(query, *values)
        return rows[0] if rows else None

    async def value(self, query: str, *values: Any) -> Any:
        """Returns the first column of the first row, None if there is none."""
        row = await self.row(query, *values)
        return None if row is None else row[0]

    async def _take(self) -> Connection:
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_closed():
                return connection
            await self._release(connection)
        pool = self.pool
        if pool.get_size() == self._connections_max and pool.get_idle_size() == 0:
            connection = await pool.acquire()  # of somebody else, so a cancel need not wait
        else:  # also an idle one may be made anew, where it is expired
            connection = await _connected(pool.acquire(), pool.release)
        self._lent += 1
        return connection

    async def _put(self, connection: Connection) -> None:
        """Keeps the connection for the next statement, while the pool can give others another."""
        if self._lent < self._connections_max and len(self._kept) < KEPT_MAX:
            self._kept.append(connection)
        else:
            await self._release(connection)

    async def _doubt(self) -> None:
        """Gives up the idle connections: where the network lost one, it has lost the others, too.

        Asked one after the other, each would take as long as the first to show it.
        """
        await self.pool.expire_connections()
        while self._kept:
            connection = self._kept.pop()
            connection.terminate()
            await self._release(connection)

    async def _release(self, connection: Connection) -> None:
        self._lent -= 1
        await self.pool.release(connection)


async def _connected(
    given: Awaitable[Connected], undo: Callable[[Connected], Awaitable[None]]
) -> Connected:
    """Returns what is given once it is connected; cancelled, it waits a moment for that.

    Then it is undone. Cancelled itself while it asks for TLS, asyncpg leaves an exception that
    nobody takes, and asyncio tells of it on stderr.
    """
    connecting = asyncio.ensure_future(given)
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        try:
            found = await asyncio.wait_for(connecting, CANCELLED_S_MAX)
        except FAILURES:  # nobody asks for it any more
            pass
        else:
            await undo(found)
        raise


async def _end(pool: asyncpg.Pool[Row]) -> None:
    pool.terminate()


async def _keep(connection: object) -> None:
    """Leaves a returned connection as it is: our statements change nothing in a session."""
