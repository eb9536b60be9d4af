"""What the scenes play on: the servers, the ledgers and the worker, each a process of its own.

All of them are children that end with this process, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ledgers import Book, Kind, LedgerClient
from support import tokens_per_day
from telling import expect, tell

from runward import RunwardClient
from runward.contracts.names import TASK_QUEUE
from runward.contracts.runs import RunResult
from runward.store.pool import Store
from runward.workers.child import Child, ChildOrder, free_port
from runward.workers.dev import DevStack
from runward.workers.temporal_binary import SETTING_VARIABLE

HERE = Path(__file__).resolve().parent
WORKER = ("-m", "runward.cli.main", "worker", "--app", "app:app")
LOG_LINES = 15
LEDGERS_START_S_MAX = 15.0
REACHED_S_MAX = 20.0
STOP_S_MAX = 3.0  # a worker whose servers have gone would drain for longer
POLL_S = 0.05


@dataclass
class Told:
    """A run that the closing table lists."""

    scene: int
    user: str
    asked: str
    result: RunResult[str]


@dataclass
class Stage:
    """Everything a scene needs, and the runs that were played."""

    client: RunwardClient
    store: Store
    ledgers: LedgerClient
    ui_url: str
    tokens_per_day: int
    worker_order: ChildOrder
    worker: Child | None = None
    told: list[Told] = field(default_factory=list)

    async def start_worker(self) -> None:
        """Starts a worker process, unless one runs."""
        if self.worker is None or self.worker.returncode is not None:
            self.worker = await Child.start(self.worker_order)

    async def kill_worker(self) -> int:
        """Kills the worker process with kill -9 and returns its process id."""
        assert self.worker is not None, "a worker was started before"
        pid = self.worker.pid
        os.kill(pid, signal.SIGKILL)
        expect("the worker's exit code", 128 + signal.SIGKILL, await self.worker.wait())
        return pid

    async def stop_worker(self) -> None:
        """Stops the worker process, if one runs."""
        if self.worker is not None:
            await self.worker.stop()

    async def withheld(self, book: Kind) -> Book:
        """Returns the book once it has done what it was asked, and withholds the answer."""
        return await _until(lambda: self.ledgers.show(book), lambda one: one.withheld > 0,
                            f"a call reaches the ledger of {book}")  # fmt: skip

    def worker_log(self) -> str:
        """Returns the end of what the worker said."""
        if not self.worker_order.log.exists():
            return ""
        lines = self.worker_order.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


@asynccontextmanager
async def staged(model: str) -> AsyncIterator[Stage]:
    """Yields the stage, set; everything on it is gone afterwards."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="runward-demo-")))
        ledgers = LedgerClient(free_port())
        await _serve_ledgers(stack, ledgers, folder)
        servers = await stack.enter_async_context(DevStack(None))
        store = await stack.enter_async_context(Store(servers.database_url))
        client = await RunwardClient.connect(
            servers.temporal_address, issuer=servers.issuer, database_url=servers.database_url
        )
        await stack.enter_async_context(client)
        environment = {
            **os.environ,
            "RUNWARD_DATABASE_URL": servers.database_url,
            "TEMPORAL_ADDRESS": servers.temporal_address,
            "DEMO_LEDGERS_PORT": str(ledgers.port),
            "MODEL": model,
        }
        order = _python(folder / "worker.log", WORKER, environment)
        stage = Stage(client, store, ledgers, servers.ui_url or "", tokens_per_day(model), order)
        stack.push_async_callback(stage.stop_worker)
        await stage.start_worker()
        seconds = time.monotonic() - began
        tell(f"PostgreSQL, Temporal and the tools' ledgers run ({seconds:.1f} s); a worker starts")
        yield stage


def without_others_settings() -> None:
    """Takes settings that are for other servers out of this process's environment."""
    for name in list(os.environ):
        if name.startswith(("TEMPORAL_", "RUNWARD_")) and name != SETTING_VARIABLE:
            del os.environ[name]
    os.environ["TEMPORAL_CONFIG_FILE"] = os.devnull
    os.environ["RUNWARD_TASK_QUEUE"] = TASK_QUEUE  # also where a runward.toml names another


def _python(log: Path, words: Sequence[str], environment: Mapping[str, str]) -> ChildOrder:
    return ChildOrder(
        argv=[sys.executable, *words],
        log=log,
        env=environment,
        cwd=HERE,
        stop_wait_s_max=STOP_S_MAX,
    )


async def _serve_ledgers(stack: AsyncExitStack, ledgers: LedgerClient, folder: Path) -> None:
    words = [str(HERE / "ledgers.py"), str(ledgers.port)]
    order = _python(folder / "ledgers.log", words, os.environ)
    # Stopped last, it takes the folder with it even where this process is killed.
    child = await Child.start(replace(order, remove=[folder]))
    stack.push_async_callback(child.stop)
    deadline = time.monotonic() + LEDGERS_START_S_MAX
    while True:
        try:
            await ledgers.show("orders")
            return
        except ConnectionError:
            if child.returncode is not None or time.monotonic() > deadline:
                raise child.failure("the ledgers did not start") from None
            await asyncio.sleep(POLL_S)


async def _until(
    look: Callable[[], Awaitable[Book]], holds: Callable[[Book], bool], what: str
) -> Book:
    deadline = time.monotonic() + REACHED_S_MAX
    while not holds(book := await look()):
        if time.monotonic() > deadline:
            expect(what, "it does", f"not within {REACHED_S_MAX:.0f} s")
        await asyncio.sleep(POLL_S)
    return book
