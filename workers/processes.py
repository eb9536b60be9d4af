"""Several worker processes under one parent: they share nothing; one that dies is started again.

The parent runs no code of the app, so it cannot be brought down by it. Each child has a guardian
(`child.py`), so none outlives the parent, not even its `kill -9`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from runward.client.settings import Deployment
from runward.workers.child import Child, ChildFailed, ChildOrder
from runward.workers.sizing import MIB, machine, sizing
from runward.workers.worker import DRAIN_S_MAX, leave, listen, log_to_stderr, told

STOP_S_MAX = DRAIN_S_MAX + 5.0  # a child drains by itself; then it is killed
STEADY_S = 60.0  # who has lived that long was well started: its death is counted from one again
DEATHS_MAX = 6  # in a row, of one child: then something is wrong that starting again cannot mend
AGAIN_S_FIRST, AGAIN_S_MAX = 1.0, 15.0  # before a child is started again; doubles up to the bound
STOPPED = (0, 128 + signal.SIGTERM)  # the latter: before it could listen to signals
_LOG = logging.getLogger("runward.worker")


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon, and how often, a child that died is started again."""

    first_s: float = AGAIN_S_FIRST
    most_s: float = AGAIN_S_MAX
    steady_s: float = STEADY_S
    deaths_max: int = DEATHS_MAX

    def pause_s(self, deaths: int) -> float:
        """Returns how long to wait after so many deaths in a row."""
        return min(self.first_s * 2.0 ** (deaths - 1), self.most_s)


async def run(
    *,
    processes: int,
    app: str,
    database_url: str,
    temporal_address: str,
    task_queue: str,
    version: Deployment | None = None,
    health_file: Path | None = None,
    codec: str | None = None,
) -> NoReturn:
    """Runs so many workers until SIGTERM or SIGINT, drains them, and ends this process.

    0 if all drained, 1 if one did not, or died again and again; other settings reach the children
    by the environment and the file, as they reach one worker.
    """
    log_to_stderr()
    stop = asyncio.Event()
    listen(stop)
    found = machine()
    print(
        f"{processes} worker processes on {found.cores} cores with {found.memory_bytes // MIB} MiB;"
        f" each: {sizing(found, processes)}",
        flush=True,
    )
    order = ChildOrder(
        argv=[
            *(sys.executable, "-m", "runward.cli.main", "worker", "--app", app),
            *("--task-queue", task_queue, "--of", str(processes)),
            *(("--codec", codec) if codec else ()),
            *(("--deployment", version.name, "--build-id", version.build_id) if version else ()),
        ],
        our_output=True,
        # Here and not on the command line, which every user of the machine can read.
        env={
            **os.environ,
            "RUNWARD_DATABASE_URL": database_url,
            "TEMPORAL_ADDRESS": temporal_address,
        },
        cwd=Path.cwd(),
        stop_wait_s_max=STOP_S_MAX,
    )
    try:
        codes = await keep(_each(order, processes, health_file), stop)
    except Exception as error:  # noqa: BLE001  whatever it is, nobody above would get it
        leave(told(error))
    leave(0 if all(code in STOPPED for code in codes) else 1)


def _each(order: ChildOrder, processes: int, health_file: Path | None) -> list[ChildOrder]:
    """Returns the children's orders; each has a health file of its own beside the one named."""
    if health_file is None:
        return [order] * processes
    files = (health_file.with_name(f"{health_file.name}.{n}") for n in range(1, processes + 1))
    return [replace(order, env={**order.env, "RUNWARD_HEALTH_FILE": str(one)}) for one in files]


async def keep(
    orders: Sequence[ChildOrder], stop: asyncio.Event, pace: Pace | None = None
) -> list[int]:
    """Keeps a child running for each order until `stop` is set; returns their last exit codes.

    Raises ChildFailed, after it has stopped the others, if one died too often or cannot be started.
    """

    async def one(number: int, order: ChildOrder) -> int:
        try:
            return await _keep_one(number, order, stop, pace or Pace())
        finally:
            stop.set()  # it was, or this one gave up: then the others stop, too

    kept = [asyncio.create_task(one(number, order)) for number, order in enumerate(orders, 1)]
    await asyncio.wait(kept)
    return [task.result() for task in kept]


async def _keep_one(number: int, order: ChildOrder, stop: asyncio.Event, pace: Pace) -> int:
    deaths = 0
    while True:
        began = time.monotonic()
        child = await Child.start(order)
        over = await _ended(child, stop)
        if over is None:
            return await child.stop()
        deaths = 1 if time.monotonic() - began >= pace.steady_s else deaths + 1
        who = f"worker process {number} (pid {child.pid})"
        if deaths >= pace.deaths_max:
            raise ChildFailed(f"{who} ended with code {over}; so did {deaths} in a row, too soon")
        pause = pace.pause_s(deaths)
        _LOG.warning("%s ended with code %d; it starts again in %.3g s", who, over, pause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
            return 0


async def _ended(child: Child, stop: asyncio.Event) -> int | None:
    """Returns the child's exit code, None if it still runs and is to stop."""
    ended, stopping = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() else None
    finally:
        ended.cancel()
        stopping.cancel()
