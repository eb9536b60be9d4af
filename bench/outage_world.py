"""The servers that outages meet, each behind a proxy, and a worker that is started when it dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import outage_clock
from kill_ledgers import Ledger
from kill_proxy import Proxy
from outage_app import CLOCK, LEDGER_PORT, MODEL_PORT, SABOTAGE
from outage_gate import Gate, through
from outage_model import Model
from report import say
from stack import prepared

from runward.client.keys import KeyFile
from runward.workers.child import Child, ChildOrder
from runward.workers.embedded_postgres import DATABASE, EmbeddedPostgres
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer

LOGIN, PASSWORD = "outage_worker", "bench"  # workers and clients: no superuser may be refused
DISK_MIB = 256
TOOL_S = 0.3
SWEEP_EVERY_S = 2  # often, so that sweeps meet the outages, too
SAYS_S_MAX = 60.0
AGAIN_S = 1.0  # before a worker that died is started again
HERE = Path(__file__).resolve().parent


class Disk:
    """A small file system of the store's own; it takes root to make one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leaves no byte free."""
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        """Takes away what filled it."""
        (self.folder / "ballast").unlink()

    def made_for(self, data: str) -> Path:
        """Returns a folder on this disk for the server whose data lies there."""
        place, server = self.folder / "store", Path(data).stat()
        place.mkdir()
        for folder in (self.folder, place):
            os.chown(folder, server.st_uid, server.st_gid)
        return place

    @classmethod
    def mounted(cls, stack: AsyncExitStack) -> Disk | None:
        """Returns a disk that goes with the stack, None where we may not mount any."""
        folder = Path(tempfile.mkdtemp(prefix="runward-disk-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
            return None
        stack.callback(subprocess.run, ["umount", str(folder)], check=False)
        return cls(folder)


class FileTemporal:
    """Temporal's development server on a file, behind a gate that stays where it is."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self._server: TemporalDevServer | None = None

    async def start(self) -> int:
        """Returns the port of the server that was started on the file."""
        self._server = TemporalDevServer(self._binary, self._folder, ui=False)
        await self._server.__aenter__()
        return int(self._server.address.rpartition(":")[2])

    async def kill(self) -> None:
        """Ends it without a word."""
        assert self._server is not None, "started before"
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stops it, if it runs."""
        if self._server is not None:
            await self._server.__aexit__(None, None, None)
            self._server = None


@dataclass
class World:
    """Everything that an outage can take away, and what nobody can: the books."""

    owner: asyncpg.Pool[asyncpg.Record]
    postgres: Gate
    answers: Proxy
    temporal: Gate
    provider: Gate
    model: Model
    ledger: Ledger
    server: FileTemporal
    disk: Disk | None
    folder: Path
    key_file: Path
    dsn: str  # by way of the gate
    sabotage: bool = False

    @property
    def clock(self) -> Path:
        """Returns the file with the step of the worker's clock, in seconds."""
        return self.folder / "clock"

    @property
    def address(self) -> str:
        """Returns Temporal's, by way of the gate."""
        return f"127.0.0.1:{self.temporal.port}"

    def health_file(self, queue: str) -> Path:
        """Returns where that queue's worker says how it is."""
        return self.folder / f"{queue}.health"

    def order(self, queue: str) -> ChildOrder:
        """Returns how a worker is started: as users start theirs."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RUNWARD_", "TEMPORAL_", "ANTHROPIC_"))
        }
        environment |= {
            LEDGER_PORT: str(self.ledger.port),
            MODEL_PORT: str(self.provider.port),
            CLOCK: str(self.clock),
            "ANTHROPIC_API_KEY": "of-the-bench",
            "SSL_CERT_FILE": str(self.model.certificate),
            "RUNWARD_SWEEP_EVERY_S": str(SWEEP_EVERY_S),
            "RUNWARD_HEALTH_FILE": str(self.health_file(queue)),
        }
        if self.sabotage:
            environment[SABOTAGE] = "1"
        words = ["--app", "outage_app:app", "--task-queue", queue]
        words += ["--database-url", self.dsn, "--address", self.address]
        return ChildOrder(
            argv=[sys.executable, "-m", "runward.cli.main", "worker", *words],
            log=self.folder / f"{queue}.log",
            env=environment,
            cwd=HERE,
            stop_wait_s_max=20.0,
        )


@dataclass
class Keeper:
    """Keeps one worker process running, as an orchestrator does."""

    order: ChildOrder
    ends: list[str] = field(default_factory=list)  # of workers that nobody had told to stop
    _child: Child | None = None
    _keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the worker, and again whenever it ends."""
        self._keeping = asyncio.create_task(self._keep())

    async def says(self, words: str) -> None:
        """Returns once the worker has said these words. Errors: RuntimeError."""
        until = time.monotonic() + SAYS_S_MAX
        while words not in self.said:
            if time.monotonic() > until:
                raise RuntimeError(f"no worker has said {words!r}, but: {self.said}")
            await asyncio.sleep(0.05)

    @property
    def said(self) -> str:
        """Returns the log, of all workers that were started."""
        return self.order.log.read_text() if self.order.log.exists() else ""

    async def stop(self) -> None:
        """Stops the worker."""
        assert self._keeping is not None, "started before"
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        if self._child is not None and (code := await self._child.stop()):
            self.ends.append(f"asked to stop, it ended with code {code}")

    async def _keep(self) -> None:
        while True:
            self._child = await Child.start(self.order)
            await self._child.wait()
            self.ends.append(str(self._child.failure("a worker ended")))
            self._child = None
            await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def made(seed: int, *, sabotage: bool) -> AsyncIterator[World]:
    """Yields all servers, with nothing wrong yet."""
    binary = await find_temporal(None, progress=say)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = Disk.mounted(stack)
        postgres = await stack.enter_async_context(EmbeddedPostgres(None))
        if disk is not None:
            await _move(postgres, disk)
        key = await prepared(postgres.dsn, folder)
        owner = await _owner(stack, postgres.dsn)
        server = FileTemporal(binary, folder / "temporal")
        stack.push_async_callback(server.stop)
        answers = await stack.enter_async_context(Proxy(postgres.dsn))
        model = stack.enter_context(Model(folder, seed, bills_twice=sabotage))
        gates = [
            await stack.enter_async_context(Gate(port))
            for port in (answers.port, await server.start(), model.server_address[1])
        ]
        world = World(
            owner,
            gates[0],
            answers,
            gates[1],
            gates[2],
            model,
            await stack.enter_async_context(Ledger(TOOL_S)),
            server,
            disk,
            folder,
            key.path,
            through(postgres.dsn, gates[0].port, user=LOGIN, password=PASSWORD),
            sabotage,
        )
        world.clock.write_text("0")
        yield world


async def _move(postgres: EmbeddedPostgres, disk: Disk) -> None:
    """Lets the store lie on the small disk; the log of transactions stays where it is."""
    connection = await asyncpg.connect(postgres.dsn.rpartition("/")[0] + "/postgres")
    try:
        place = disk.made_for(await connection.fetchval("show data_directory"))
        await connection.execute(f"create tablespace small location '{place}'")
        await connection.execute(f"alter database {DATABASE} set tablespace small")
    finally:
        await connection.close()


async def _owner(stack: AsyncExitStack, dsn: str) -> asyncpg.Pool[asyncpg.Record]:
    owner = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=2))
    await owner.execute(f"create role {LOGIN} login password '{PASSWORD}'")
    await owner.execute(f"grant runward_worker, runward_reader to {LOGIN}")
    await outage_clock.prepare(owner)
    return owner


def issuer(world: World) -> KeyFile:
    """Returns the key that vouches for the users of the bench."""
    return KeyFile(world.key_file)
