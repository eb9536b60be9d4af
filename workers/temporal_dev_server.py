"""Temporal's development server as our child process.

One program with everything in it and SQLite below. For development and tests only: in production
runward connects to a cluster or to Temporal Cloud.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from runward.client.labels import registered
from runward.contracts import names
from runward.workers.child import Child, ChildFailed, ChildOrder, free_port, fresh_log
from runward.workers.file_lock import FileLock, server_lock

NAMESPACE = "default"
START_S_MAX = 30.0
STOP_S_MAX = 10.0
ATTEMPT_S_MAX = 5.0
START_TRIES = 3  # another process may take a port between our choice and the server's start
POLL_S_MIN, POLL_S_MAX = 0.05, 0.5
# Measured: 25 to 30 % more throughput than with Go's default of 100, for some hundred MB.
GARBAGE_COLLECTION = "600"
DYNAMIC_CONFIG = (
    "matching.enableFairness=true",
    # The program turns it on: each run then costs nine more reads of its one database. Without it a
    # search attribute that somebody adds while the server runs is usable two seconds later.
    "system.forceSearchAttributesCacheRefreshOnRead=false",
    # How often a second the server looks for tasks to hand out. With its own 20 every task waits
    # for the next look: a run of 20 steps on an idle server took 1.9 s, and 0.25 s with this.
    "history.transferProcessorMaxPollRPS=100",
    # A worker gets the activities of a task in the answer to that task, as it does from Temporal
    # Cloud and, by default, from server 1.32 on. On a busy machine 20 steps took 0.36 s instead of
    # 0.40, and three quarters of the server's CPU.
    "system.enableActivityEagerExecution=true",
    # Four parts of a queue are for clusters. Here some runs waited 18 s and others 1 s in theirs,
    # with 500 users at once; in one queue all wait alike (p99 11 s), and a task costs less.
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
)


class TemporalDevServer:
    """An async context manager that runs one server and is entered once it answers.

    With a `state_dir` its database and log are kept there. With None everything is in memory, and
    the log is removed at the end.
    """

    def __init__(
        self,
        binary: Path,
        state_dir: Path | None,
        *,
        ui: bool = True,
        dynamic_config: Sequence[str] = (),
    ) -> None:
        self._binary = binary
        self._state_dir = state_dir
        self._ui = ui
        self._dynamic_config = (*DYNAMIC_CONFIG, *dynamic_config)
        self._folder: Path | None = None
        self._child: Child | None = None
        self._lock: FileLock | None = None
        self._ports = (0, 0, 0)

    @property
    def address(self) -> str:
        """Where clients and workers connect, as host:port; the namespace is `NAMESPACE`."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def ui_url(self) -> str | None:
        """The address of the web interface, or None without one."""
        return f"http://127.0.0.1:{self._ports[1]}" if self._ui else None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._child is not None, "the server has not been started"
        return self._child.pid

    async def wait(self) -> ChildFailed:
        """Return the error to report once the server has ended without being asked to."""
        assert self._child is not None, "the server has not been started"
        await self._child.wait()
        return self._child.failure("the Temporal server ended")

    async def __aenter__(self) -> Self:
        try:
            self._folder = await self._prepare_folder()
            await self._start(self._folder)
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

    async def _prepare_folder(self) -> Path:
        if self._state_dir is None:
            return Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="runward-"))
        state_dir = self._state_dir.resolve()
        self._lock = await server_lock(state_dir / "temporal.lock", "Temporal server")
        return state_dir

    async def _start(self, folder: Path) -> None:
        for tries_left in reversed(range(START_TRIES)):
            self._ports = (free_port(), free_port(), free_port())
            self._child = await Child.start(self._order(folder))
            try:
                await self._wait_until_ready(self._child)
                _keep_private(folder)
                return
            except ChildFailed as error:
                await self._child.stop()
                if tries_left == 0 or "address already in use" not in str(error):
                    raise

    def _order(self, folder: Path) -> ChildOrder:
        # Temporal's own settings are for the caller's clients and must not reach this server.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TEMPORAL_")}
        return ChildOrder(
            argv=[str(self._binary), "server", "start-dev", *self._arguments(folder)],
            log=fresh_log(folder / "temporal.log"),
            env={**inherited, "GOGC": GARBAGE_COLLECTION},
            cwd=folder,
            # Without a database file there is nothing to finish, and a graceful end takes 1.5 s.
            stop_signal=signal.SIGKILL if self._state_dir is None else signal.SIGTERM,
            stop_wait_s_max=STOP_S_MAX,
            held=[self._lock.descriptor] if self._lock else [],
            remove=[folder] if self._state_dir is None else [],
        )

    def _arguments(self, folder: Path) -> list[str]:
        frontend, ui, metrics = map(str, self._ports)
        words = ["--ip", "127.0.0.1", "--port", frontend, "--metrics-port", metrics]
        words += ["--ui-port", ui] if self._ui else ["--headless"]
        words += ["--disable-config-file", "--disable-config-env", "--color", "never"]
        if self._state_dir is not None:
            words += ["--db-filename", str(folder / "temporal.sqlite")]
            words += ["--sqlite-pragma", "journal_mode=WAL"]
            words += ["--sqlite-pragma", "synchronous=NORMAL"]
        for value in self._dynamic_config:
            words += ["--dynamic-config-value", value]
        for name in names.SEARCH_ATTRIBUTES:
            words += ["--search-attribute", f"{name}=Keyword"]
        return words

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + START_S_MAX
        pause = POLL_S_MIN
        while not await self._ready():
            if child.returncode is not None or time.monotonic() > deadline:
                raise child.failure("the Temporal server did not start")
            await asyncio.sleep(pause)
            pause = min(POLL_S_MAX, pause * 1.5)

    async def _ready(self) -> bool:
        """Return whether the server serves the namespace with our search attributes in it."""
        try:
            async with asyncio.timeout(ATTEMPT_S_MAX):
                client = await Client.connect(self.address, namespace=NAMESPACE)
                await client.workflow_service.describe_namespace(
                    DescribeNamespaceRequest(namespace=NAMESPACE)
                )
                return await registered(client) is True
        except (RPCError, RuntimeError, TimeoutError):
            return False

    async def _stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
        if self._folder is not None and self._state_dir is None:
            # The guardian leaves it when the server ended by itself, or was never started.
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _keep_private(folder: Path) -> None:
    """Lets only this user read the histories, which hold prompts; later files take the mode."""
    for path in folder.glob("temporal.sqlite*"):
        path.chmod(0o600)
