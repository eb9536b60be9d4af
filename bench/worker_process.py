"""A worker in a process of its own, so that its memory can be read: governed, or by hand."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stack import ANSWER, BUDGET, QUEUE, RESULT, Servers, asked
from starter import BY_HAND_QUEUE
from temporalio import workflow
from temporalio.client import Client
from ungoverned import Bodies, HandWritten

from runward.activities.provider_scripted import Call, Script, ScriptedProvider, Turn
from runward.activities.scripted_ledger import Bill
from runward.contracts.agents import Agent
from runward.contracts.tools import Tool, tool
from runward.workers.plugin import RunwardPlugin
from runward.workers.worker import build, connect, identity

MIB = 1024 * 1024
STARTS_S_MAX = 60.0
WAITING = "waiting"  # the agent that asks a person in its last turn
TOOLED = "tooled"  # the agent with many tools


class NoLedger:
    """Keeps nothing: a bench of memory must not measure its own books."""

    def bill(self, bill: Bill) -> None:
        """Forgets the bill."""

    def bills(self) -> tuple[Bill, ...]:
        """Returns nothing."""
        return ()

    def attempt(self, idempotency_key: str) -> int:
        """Returns 0: no script here has faults."""
        return 0


@dataclass(frozen=True, slots=True)
class Work:
    """What the process works on. `tools` is how many the agent TOOLED has."""

    where: Servers
    governed: bool = True
    turns: tuple[int, ...] = ()
    waiting_turns: int = 1
    tools: int = 0
    cached_runs: int | None = None  # None: as many as `runward worker` would keep


class WorkerProcess:
    """The process, as the bench sees it."""

    def __init__(self, pid: int, pipe: Connection, started_s: float) -> None:
        self._pid = pid
        self._pipe = pipe
        self.started_s = started_s  # from the definition of its agents until it polls

    def memory_mib(self) -> float:
        """Returns its resident memory as it stands."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def cpu_s(self) -> float:
        """Returns the CPU time that it has taken."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def settled_mib(self) -> float:
        """Returns its resident memory without what only waits to be collected."""
        await self._ask("collect")
        return self.memory_mib()

    async def forget(self) -> None:
        """Empties its caches of conversations and runs."""
        await self._ask("forget")

    async def _ask(self, what: str) -> None:
        self._pipe.send(what)
        await asyncio.to_thread(self._pipe.recv)


@asynccontextmanager
async def working(work: Work) -> AsyncIterator[WorkerProcess]:
    """Yields a process whose worker polls; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_process, args=(theirs, work), daemon=True)
    process.start()
    try:
        if not await asyncio.to_thread(ours.poll, STARTS_S_MAX):
            raise RuntimeError("the worker did not start in time")
        assert process.pid is not None, "it runs"
        yield WorkerProcess(process.pid, ours, ours.recv())
    finally:
        process.kill()
        await asyncio.to_thread(process.join)


@workflow.defn(name="HandWaiting", sandboxed=False)
class HandWaiting(HandWritten):
    """The workflow written by hand, which then waits for a word that never comes."""

    def __init__(self) -> None:
        self._waits = False

    @workflow.run
    async def run(self, turns: int) -> str:
        """Returns never."""
        answer = await super().run(turns)
        self._waits = True
        await workflow.wait_condition(lambda: not self._waits)
        return answer

    @workflow.query
    def waits(self) -> bool:
        """Returns whether all turns are behind it."""
        return self._waits


@tool
async def lookup(order_id: str) -> str:
    """Look up where an order's parcels are."""
    return f"{order_id}: {RESULT}"  # a text of its own for each call, or it would weigh nothing


@tool(effect="money", idempotent=True)
async def refund(order_id: str) -> str:
    """Pay an order back."""
    return "refunded"


def model(work: Work) -> ScriptedProvider:
    """Returns the model of all agents."""
    one = Call("lookup", {"order_id": "order-0017"})
    waiting = [Turn(calls=(one,)) for _ in range(work.waiting_turns - 1)]
    waiting += [Turn(calls=(Call("refund", {"order_id": "order-0017"}),)), Turn(text=ANSWER)]
    last = Call(f"tool_{work.tools - 1}", {"order_id": "order-0017"})
    scripts = {f"turns-{number}": Script(asked(number)) for number in work.turns}
    scripts[WAITING] = Script(waiting)
    scripts[TOOLED] = Script([Turn(calls=(last,)), Turn(text=ANSWER)])
    return ScriptedProvider(scripts, ledger=NoLedger())


def many(count: int) -> list[Tool]:
    """Returns tools that differ in their names."""
    return [tool(lookup.body, name=f"tool_{number}") for number in range(count)]


def agents(work: Work) -> list[Agent[str]]:
    """Returns the governed side's agents."""
    found = [
        Agent(f"turns-{number}", model=f"scripted:turns-{number}", tools=[lookup], max_turns=number)
        for number in work.turns
    ]
    found.append(
        Agent(
            WAITING,
            model=f"scripted:{WAITING}",
            tools=[lookup, refund],
            max_turns=work.waiting_turns + 1,
            approver_role="finance",
        )
    )
    if work.tools:
        found.append(Agent(TOOLED, model=f"scripted:{TOOLED}", tools=many(work.tools)))
    return found


def _process(pipe: Connection, work: Work) -> None:
    asyncio.run(_serve(pipe, work))


async def _serve(pipe: Connection, work: Work) -> None:
    began = time.perf_counter()
    kept: dict[str, Any] = {}
    if work.cached_runs is not None:
        kept["max_cached_workflows"] = work.cached_runs
    plugin: RunwardPlugin | None = None
    if work.governed:
        plugin = RunwardPlugin(
            agents=agents(work),
            providers=[model(work)],
            budget=BUDGET,
            database_url=work.where.database_url,
        )
        client = await connect(plugin, work.where.temporal)
        worker = build(client, task_queue=QUEUE, **kept)
    else:
        client = await Client.connect(work.where.temporal, identity=identity())
        bodies = Bodies(model(work), lookup.body)
        worker = build(
            client,
            task_queue=BY_HAND_QUEUE,
            workflows=[HandWritten, HandWaiting],
            activities=bodies.activities,
            **kept,
        )
    async with worker:
        pipe.send(time.perf_counter() - began)
        while True:
            asked_for = await asyncio.to_thread(pipe.recv)
            if asked_for == "forget" and plugin is not None:
                assembly = plugin.assembly_of(worker)
                assembly.transcripts.forget()
                assembly.governance.identity.forget()
            gc.collect()
            pipe.send(asked_for)
