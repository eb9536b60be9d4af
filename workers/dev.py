"""`runward dev`: PostgreSQL, Temporal, a key and a worker on this machine, with nothing to set up.

`DevStack` is all of it but the worker: tests and the demo use it as well.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runward.client.connecting import connected
from runward.client.keys import KeyFile
from runward.client.settings import temporal_connection
from runward.contracts.errors import TemporalUnavailable
from runward.contracts.identity import Issuer
from runward.contracts.names import TASK_QUEUE
from runward.store.database import FAILURES, unreached
from runward.store.migrate import migrate
from runward.store.pool import Store
from runward.workers.child import Child, ChildFailed, ChildOrder, fresh_log
from runward.workers.embedded_postgres import EmbeddedPostgres
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import NAMESPACE, TemporalDevServer
from runward.workers.worker import leave, listen, told

KEY_FILE = "dev.key"
WORKER_STOP_S_MAX = 2.0  # the whole stack stops within 5 s; a killed worker's runs go on later
TEMPORAL_S_MAX = 5.0  # for a server of others to answer
LOG_EVERY_S = 0.1
# Where a file is open already, the system's error for this does not name it.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ANY = ("*",)
WIDTH_IN_FILES = 400  # whoever reads the table as a file gets one line for each row

Value = TypeVar("Value")


class DevStack:
    """An async context manager over the servers that runward needs, migrated and with an issuer.

    With a `state_dir` everything is kept there and found again; with None it is temporary. A
    `database_url` or `temporal_address` names a server that exists; it is used and not stopped.
    """

    def __init__(
        self,
        state_dir: Path | None,
        *,
        database_url: str | None = None,
        temporal_address: str | None = None,
        temporal_binary: Path | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._database_url = database_url
        self._temporal_address = temporal_address
        self._temporal_binary = temporal_binary
        self._postgres: EmbeddedPostgres | None = None
        self._temporal: TemporalDevServer | None = None
        self._folder = AsyncExitStack()
        self._key: KeyFile | None = None

    @property
    def database_url(self) -> str:
        """Returns the store's DSN, its password included."""
        return self._postgres.dsn if self._postgres else _entered(self._database_url)

    @property
    def owns_database(self) -> bool:
        """Returns whether the database is ours, for development on this machine."""
        return self._postgres is not None

    @property
    def temporal_address(self) -> str:
        """Returns where Temporal listens, as host:port."""
        return self._temporal.address if self._temporal else _entered(self._temporal_address)

    @property
    def ui_url(self) -> str | None:
        """Returns the address of Temporal's web interface, None for a server that is not ours."""
        return self._temporal.ui_url if self._temporal else None

    @property
    def key_file(self) -> Path:
        """Returns the key that may speak for every tenant, user and role of this store."""
        return _entered(self._key).path

    @property
    def issuer(self) -> KeyFile:
        """Returns that key as a ticket source."""
        return _entered(self._key)

    async def wait(self) -> ChildFailed:
        """Returns the error once one of our servers has ended; waits for ever if we have none."""
        forever: asyncio.Future[ChildFailed] = asyncio.get_running_loop().create_future()
        ending = [forever, *(asyncio.ensure_future(one.wait()) for one in self._servers())]
        try:
            done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for one in ending:
                one.cancel()

    async def __aenter__(self) -> Self:
        try:
            await self._ask_others()
            await _together(self._start_database(), self._start_temporal())
            await asyncio.to_thread(self._make_key)
            await self._register()
        except BaseException as error:
            await self._stop()
            if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
                place = str(self._state_dir or tempfile.gettempdir())
                raise OSError(error.errno, error.strerror, place) from error
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    def _servers(self) -> list[EmbeddedPostgres | TemporalDevServer]:
        return [one for one in (self._postgres, self._temporal) if one is not None]

    async def _ask_others(self) -> None:
        """Raises for a server of others that is away, before a folder is made for ours."""
        if self._temporal_address is not None:
            await _answers(self._temporal_address)
        if self._database_url is not None:
            await self._migrate()

    async def _start_database(self) -> None:
        if self._database_url is None:
            server = EmbeddedPostgres(self._state_dir)
            self._postgres = await server.__aenter__()
            await self._migrate()

    async def _migrate(self) -> None:
        try:
            await migrate(self.database_url)
        except FAILURES as error:
            raise unreached(self.database_url, error) from error

    async def _start_temporal(self) -> None:
        if self._temporal_address is None:
            binary = await find_temporal(self._temporal_binary, progress=_progress)
            server = TemporalDevServer(binary, self._state_dir)
            self._temporal = await server.__aenter__()

    def _make_key(self) -> None:
        """Takes the key that is there, or makes one that only this user can read."""
        if self._state_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="runward-")
            folder = Path(self._folder.enter_context(temporary))
        else:
            folder = self._state_dir.resolve()
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
                file.write("*\n")  # nobody commits a key by mistake
        path = folder / KEY_FILE
        self._key = KeyFile(path) if path.exists() else KeyFile.create(path)

    async def _register(self) -> None:
        key = self.issuer
        async with Store(self.database_url, connections_max=1) as store:
            await store.issuers.add(Issuer(key.kid, key.public_key, ANY, ANY, ANY))

    async def _stop(self) -> None:
        try:
            stops = (one.__aexit__(None, None, None) for one in self._servers())
            for said in await asyncio.gather(*stops, return_exceptions=True):
                if said is not None:
                    raise said
        finally:
            await self._folder.aclose()


async def run(
    *,
    app: str | None = None,
    database_url: str | None = None,
    temporal_address: str | None = None,
    temporal_binary: Path | None = None,
    state_dir: Path = Path(".runward"),
    ephemeral: bool = False,
    task_queue: str = "runward",
) -> NoReturn:
    """Runs everything until SIGTERM or SIGINT, stops it within 5 s, and ends this process.

    What kept it from starting, or ended a server or the worker, is told on stderr.
    """
    stop = asyncio.Event()
    listen(stop)
    kept = None if ephemeral else await asyncio.to_thread(state_dir.resolve)
    stack = DevStack(
        kept,
        database_url=database_url,
        temporal_address=temporal_address,
        temporal_binary=temporal_binary,
    )
    stopping = asyncio.create_task(stop.wait())
    serving = asyncio.create_task(_serve(stack, app, kept, task_queue))
    await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        _progress("stopping")
        serving.cancel()
        await asyncio.wait([serving])
        if serving.cancelled():
            leave(0)
    leave(told(serving.exception() or RuntimeError("the servers ended")))


async def _serve(stack: DevStack, app: str | None, kept: Path | None, task_queue: str) -> None:
    """Runs the stack and its worker until it is cancelled; raises what ended one of them."""
    async with stack:
        _show(stack, app, kept, task_queue)
        if app is None:
            raise await stack.wait()
        with tempfile.TemporaryDirectory(prefix="runward-") as folder:
            log = fresh_log((kept or Path(folder)) / "worker.log")
            await _with_worker(stack, app, log, task_queue)


async def _with_worker(stack: DevStack, app: str, log: Path, task_queue: str) -> None:
    """Runs one worker as a child: whatever the app does, it cannot keep us from stopping."""
    environment = _worker_environment(stack)
    argv = [sys.executable, "-m", "runward.cli.main", "worker", "--app", app]
    worker = await Child.start(
        ChildOrder(
            argv=[*argv, "--task-queue", task_queue],
            log=log,
            env=environment,
            cwd=Path.cwd(),
            stop_wait_s_max=WORKER_STOP_S_MAX,
        )
    )
    following = asyncio.create_task(_follow(log))
    ended, broken = asyncio.create_task(worker.wait()), asyncio.create_task(stack.wait())
    try:
        await asyncio.wait([ended, broken], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, broken, following):
            task.cancel()
        await worker.stop()
        await asyncio.gather(following, return_exceptions=True)
    if broken.done() and not broken.cancelled():
        raise broken.result()
    raise ChildFailed(f"The worker ended with code {worker.returncode}; it said why above")


def _worker_environment(stack: DevStack) -> Mapping[str, str]:
    """Returns our environment; for a Temporal of ours without settings that are for another."""
    environment = dict(os.environ)
    if stack.ui_url is not None:
        environment = {k: v for k, v in environment.items() if not k.startswith("TEMPORAL_")}
        environment["TEMPORAL_CONFIG_FILE"] = os.devnull
        environment["TEMPORAL_NAMESPACE"] = NAMESPACE
    environment["TEMPORAL_ADDRESS"] = stack.temporal_address
    # Here and not on the command line, which every user of the machine can read.
    environment["RUNWARD_DATABASE_URL"] = stack.database_url
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


async def _follow(log: Path) -> None:
    """Copies what the worker writes to stderr until it is cancelled, and the rest then."""
    with log.open("rb") as file:

        def copy() -> None:
            sys.stderr.write(file.read().decode(errors="replace"))
            sys.stderr.flush()

        try:
            while True:
                copy()
                await asyncio.sleep(LOG_EVERY_S)
        finally:
            copy()


def _show(stack: DevStack, app: str | None, kept: Path | None, task_queue: str) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "Temporal UI": stack.ui_url or "-",
        "Temporal address": stack.temporal_address,
        "Database": stack.database_url if stack.owns_database else _masked(stack.database_url),
        "Key file": str(stack.key_file),
        "Task queue": task_queue,
        "App": app or "none: start one with `runward worker --app module:name`",
        "Kept in": str(kept) if kept else "nothing is kept",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    console = Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES)
    console.print(table)
    if stack.owns_database:
        console.print("The password is shown: this database is on this machine, for development.")
    print("For other terminals:\n", *_exports(stack, task_queue), sep="\n", flush=True)


def _exports(stack: DevStack, task_queue: str) -> list[str]:
    """Returns what a shell is told to find all this; a database of others is theirs to name."""
    settings = {
        "TEMPORAL_ADDRESS": stack.temporal_address,
        "RUNWARD_DATABASE_URL": stack.database_url if stack.owns_database else None,
        "RUNWARD_KEY_FILE": str(stack.key_file),
        "RUNWARD_TEMPORAL_UI_URL": stack.ui_url,
        "RUNWARD_TASK_QUEUE": None if task_queue == TASK_QUEUE else task_queue,
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in settings.items() if value]


def _masked(dsn: str) -> str:
    return re.sub(r"(?<=:)[^/@:]*(?=@)|(?<=password=)[^&\s]*", "***", dsn)


async def _together(*work: Coroutine[Any, Any, Any]) -> None:
    """Runs all to their end, cancelling the others when one fails; raises the first error."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _answers(address: str) -> None:
    """Raises unless a Temporal server is there: without an app, nobody else would find out."""
    fix = "Start it, or correct --temporal-address: it is host:port"
    try:
        async with asyncio.timeout(TEMPORAL_S_MAX):
            await connected(temporal_connection(address), fix=fix)
    except TimeoutError as error:
        holds = "It did not answer in time"
        raise TemporalUnavailable(f"Temporal at {address!r}", holds, fix) from error


def _entered(value: Value | None) -> Value:
    assert value is not None, "the stack has not been started"
    return value


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
