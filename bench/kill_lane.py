"""One lane: a task queue, a proxy, and one worker process at a time, killed again and again.

Every lane has runs of its own; they meet only in the servers.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import asyncpg
from kill_app import AGENT, BILLS, PORT, SABOTAGE
from kill_ledgers import Ledger
from kill_proxy import Function, Proxy, Side
from report import say
from stack import TENANT, Servers
from temporalio.client import Client

from runward.client.keys import KeyFile
from runward.client.reader import Reader
from runward.client.run_handle import RunHandle
from runward.client.runward_client import RunwardClient
from runward.workers.child import Child, ChildOrder

Window = Literal[
    "before_open", "after_open", "after_effect", "before_close", "after_close", "random"
]
POINTS: dict[Window, tuple[Function, Side]] = {
    "before_open": ("step_open", "request"),
    "after_open": ("step_open", "reply"),
    "before_close": ("step_close", "request"),
    "after_close": ("step_close", "reply"),
}
STEPS = ("t1.model", "t1.tool.0", "t1.tool.1", "t2.model", "t2.tool.0", "t3.model")
TOOLS = {"refund": "t1.tool.0", "letter": "t1.tool.1", "parcel": "t2.tool.0"}
# What the store must say of the trapped attempts' holds at the moment of the kill.
HELD: dict[Window, frozenset[str]] = {
    "before_open": frozenset(),
    "after_open": frozenset("H"),
    "after_effect": frozenset("H"),
    "before_close": frozenset("H"),
    "after_close": frozenset("SR"),
}
REACHED_S_MAX = 90.0
RUNS_PER_KILL = 3
GATHER_S_MAX = 0.3  # between the first step in the window and the kill
RANDOM_S_MAX = 1.5  # between the first step of a new worker and a kill at random
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that a kill met inside the window, as the store had it then."""

    window: Window
    run_id: str
    step: str
    nonce: str


@dataclass
class World:
    """What all lanes share."""

    where: Servers
    ledger: Ledger
    owner: asyncpg.Pool[asyncpg.Record]
    temporal: Client
    reader: Reader
    folder: Path
    seed: int
    sabotage: bool

    @property
    def bills(self) -> Path:
        """Returns the file of the provider's own ledger."""
        return self.folder / "bills"

    def order(self, lane: str, queue: str, dsn: str) -> ChildOrder:
        """Returns how a lane's worker is started: as users start theirs."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RUNWARD_", "TEMPORAL_"))
        }
        environment |= {PORT: str(self.ledger.port), BILLS: str(self.bills)}
        if self.sabotage:
            environment[SABOTAGE] = "1"
        words = ["--app", "kill_app:app", "--task-queue", queue]
        words += ["--database-url", dsn, "--address", self.where.temporal]
        argv = [sys.executable, "-m", "runward.cli.main", "worker", *words]
        log = self.folder / f"{lane}.log"
        return ChildOrder(argv=argv, log=log, env=environment, cwd=HERE, stop_wait_s_max=5.0)


@dataclass
class Lane:
    """Runs, kills, and what was found at each kill."""

    world: World
    name: str
    window: Window
    proxy: Proxy
    rng: random.Random
    kills: int = 0
    empty_kills: int = 0  # at which no attempt was proven to be inside the window
    attempts: list[Attempt] = field(default_factory=list)
    runs: dict[str, RunHandle[str]] = field(default_factory=dict)  # by order
    worker: Child | None = None

    async def play(self, kills: int) -> None:
        """Returns once the worker was killed that often inside the window; a new one works."""
        await self._start_worker()
        while self.kills < kills:
            await (self._at_random() if self.window == "random" else self._in_window())
            await self._start_worker()
            if self.empty_kills > kills:
                raise RuntimeError(f"{self.name}: the window is missed more often than hit")
        say(f"{self.name}: {self.kills} kills, {len(self.attempts)} attempts inside the window")

    async def _in_window(self) -> None:
        reached, look = self._set_trap()
        await self._start_runs()
        await self._reached(reached)
        await asyncio.sleep(self.rng.uniform(0, GATHER_S_MAX))
        found = await look()
        await self._kill()
        self.proxy.release()
        self.world.ledger.release(self.name)
        # After an effect the ledger outside is the proof; what the store lacks, the books will say.
        hit = bool(found) or self.window == "after_effect"
        self.attempts += found
        self.kills += hit
        self.empty_kills += not hit
        if not hit:
            say(f"{self.name}: a kill met nobody that the store had admitted")

    async def _at_random(self) -> None:
        self.proxy.opens.clear()
        await self._start_runs()
        await self._reached(self.proxy.opens)
        await asyncio.sleep(self.rng.uniform(0, RANDOM_S_MAX))
        await self._kill()
        self.kills += 1

    def _set_trap(self) -> tuple[asyncio.Event, Callable[[], Awaitable[list[Attempt]]]]:
        if self.window == "after_effect":
            name, step = self.rng.choice(sorted(TOOLS.items()))
            held = self.world.ledger.withhold(self.name, name)
            return held.reached, lambda: self._inside({(e.run_id, step, "") for e in held.effects})
        steps = frozenset({self.rng.choice(STEPS)})
        trap = self.proxy.hold(*POINTS[self.window], steps)
        return trap.reached, lambda: self._inside(
            {(one.run_id, one.step, one.nonce) for one in trap.items}
        )

    async def _inside(self, asked: set[tuple[str, str, str]]) -> list[Attempt]:
        """Returns those attempts that the store's rows prove to be inside the window now."""
        rows = await self.world.owner.fetch(
            "select run_id, step, nonce, state from runward.hold where run_id = any($1)",
            [run_id for run_id, _, _ in asked],
        )
        found = []
        for run_id, step, nonce in sorted(asked):
            mine = [one for one in rows if (one["run_id"], one["step"]) == (run_id, step)]
            holds = [one for one in mine if nonce in ("", one["nonce"])]
            if self.window == "before_open":
                inside = [nonce] if not holds else []
            else:
                inside = [one["nonce"] for one in holds if one["state"] in HELD[self.window]]
            found += [Attempt(self.window, run_id, step, one) for one in inside]
        return found

    async def _start_runs(self) -> None:
        temporal, where = self.world.temporal, self.world.where
        client = RunwardClient(
            temporal,
            issuer=KeyFile(where.key_file),
            reader=self.world.reader,
            task_queue=self.name,
        )
        user = client.acting_as(self.name, tenant=TENANT)
        for _ in range(RUNS_PER_KILL):
            order = f"{self.name}/{len(self.runs)}"
            self.runs[order] = await user.start(AGENT, order, key=order)

    async def _reached(self, event: asyncio.Event) -> None:
        assert self.worker is not None, "started before"
        until = time.monotonic() + REACHED_S_MAX
        while not event.is_set():
            if self.worker.returncode is not None or time.monotonic() > until:
                raise self.worker.failure(f"{self.name}: no step came to its window")
            await asyncio.sleep(0.02)

    async def _start_worker(self) -> None:
        order = self.world.order(self.name, self.name, self.proxy.dsn)
        self.worker = await Child.start(order)

    async def _kill(self) -> None:
        assert self.worker is not None, "started before"
        os.kill(self.worker.pid, signal.SIGKILL)
        code = await self.worker.wait()
        if code != 128 + signal.SIGKILL:
            raise self.worker.failure(f"{self.name}: the worker ended before it was killed")

    async def stop(self) -> None:
        """Stops the worker."""
        if self.worker is not None:
            await self.worker.stop()


@asynccontextmanager
async def lane(world: World, name: str, window: Window) -> AsyncIterator[Lane]:
    """Yields a lane; its worker ends with the block."""
    async with Proxy(world.where.database_url) as proxy:
        made = Lane(world, name, window, proxy, random.Random(f"{world.seed}/{name}"))
        try:
            yield made
        finally:
            await made.stop()
