"""What runs cost a worker's memory: those that it keeps, and those that it is done with.

A run of 50 turns that waits for a person stays in the worker's cache. The worker is a process of
its own; its resident memory is read with some of them and with many more. The same is done with a
workflow written by hand. Neither keeps a conversation while it waits. Then short runs end, one
after the other, and the memory stays.

Targets. Per run: at 0.3 MiB a worker of 2 GiB keeps 1,700 runs in a quarter of it. It is missed:
Temporal's core keeps a state machine for each activity of a run as long as the run is cached,
some 3 KiB, so that 50 turns take about that much by hand as well. Ours is what is left over that.
Growth: caches are bounded and fill up first, and allocators keep some pages; the memory over the
last fifth of the runs may be a tenth above that over the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import mean
from uuid import uuid4

from report import Report, arguments, run, say
from stack import PROMPT, QUEUE, TENANT, Servers, servers
from starter import BY_HAND_QUEUE, Batch, starting
from temporalio.client import Client
from worker_process import WAITING, Work, WorkerProcess, working

from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.runward_client import RunwardClient

MIB_PER_RUN_MAX = 0.3
OURS_MIB_MAX = 0.05
GROWTH_MAX = 1.1
TURNS = 50
AT_ONCE = 16
WAITS_S_MAX = 300
SHORT_TURNS = (1, 2)  # one model call; two of them and two calls of a tool
TOOLS_EVERY = 5  # the share of runs that call tools


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    kept: int  # runs that stay
    ended: int  # runs that end
    batch: int  # of them, between two looks at the memory


FULL = Amount(kept=100, ended=10_000, batch=250)
QUICK = Amount(kept=16, ended=1_000, batch=50)

One = Callable[[], Awaitable[object]]


async def at_once(one: One, count: int) -> None:
    """Does it so many times, some at once."""
    numbers = iter(range(count))

    async def caller() -> None:
        for _ in numbers:  # shared: each caller takes the next one
            await one()

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


async def per_run(worker: WorkerProcess, kept: One, count: int) -> float:
    """Returns the MiB of each kept run. What every worker comes to hold is there before."""
    await at_once(kept, AT_ONCE)
    before = await worker.settled_mib()
    await at_once(kept, count)
    after = await worker.settled_mib()
    say(f"{AT_ONCE} runs: {before:.1f} MiB, {AT_ONCE + count} runs: {after:.1f} MiB")
    return (after - before) / count


async def governed(where: Servers, count: int) -> float:
    """Returns the MiB of a run of runward's that waits for a person."""
    work = Work(where, waiting_turns=TURNS, cached_runs=2 * count + AT_ONCE)
    runward = RunwardClient(
        await Client.connect(where.temporal),
        issuer=KeyFile(where.key_file),
        reader=DirectReader(where.database_url),
        task_queue=QUEUE,
    )
    async with working(work) as worker, runward:
        ada = runward.acting_as("ada", tenant=TENANT)

        async def waits() -> None:
            await (await ada.start(WAITING, PROMPT)).next_approval(WAITS_S_MAX)

        return await per_run(worker, waits, count)


async def by_hand(where: Servers, count: int) -> float:
    """Returns the MiB of a workflow written by hand that waits."""
    client = await Client.connect(where.temporal)

    async def waits() -> None:
        name = f"hand-{uuid4().hex}"
        handle = await client.start_workflow(
            "HandWaiting", TURNS, id=name, task_queue=BY_HAND_QUEUE
        )
        for _ in range(WAITS_S_MAX):
            if await handle.query("waits"):
                return
            await asyncio.sleep(1)
        raise RuntimeError(f"{name} did not come to its end")

    work = Work(where, governed=False, turns=(TURNS,), cached_runs=2 * count + AT_ONCE)
    async with working(work) as worker:
        return await per_run(worker, waits, count)


async def growth(where: Servers, amount: Amount, report: Report) -> None:
    """Adds what a worker holds after many runs, over what it held after the first of them."""
    seen: list[float] = []
    async with starting(where) as starter, working(Work(where, turns=SHORT_TURNS)) as worker:
        for ended in range(amount.batch, amount.ended + 1, amount.batch):
            tooled = amount.batch // TOOLS_EVERY
            await starter.run(Batch(True, SHORT_TURNS[1], tooled, AT_ONCE))
            await starter.run(Batch(True, SHORT_TURNS[0], amount.batch - tooled, AT_ONCE))
            seen.append(worker.memory_mib())
            say(f"{ended} runs ended: {seen[-1]:.1f} MiB")
    fifth = len(seen) // 5
    first, last = mean(seen[fifth : 2 * fifth]), mean(seen[-fifth:])
    report.add("growth_ratio", last / first, f"<= {GROWTH_MAX}")
    report.add("growth_kib_per_run", (last - first) * 1024 / (amount.ended * 3 / 5))
    report.add("worker_mib", last)
    report.counts["runs_ended"] = amount.ended


async def measure(amount: Amount) -> Report:
    """Measures both kinds of runs."""
    report = Report("memory")
    async with servers() as where:
        ours, plain = await governed(where, amount.kept), await by_hand(where, amount.kept)
        report.add("mib_per_cached_run", ours, f"<= {MIB_PER_RUN_MAX}")
        report.add("mib_per_cached_run_by_hand", plain)
        report.add("mib_per_cached_run_ours", ours - plain, f"<= {OURS_MIB_MAX}")
        report.counts["runs_kept"] = amount.kept
        report.counts["turns"] = TURNS
        await growth(where, amount, report)
    return report


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    chosen = QUICK if options.quick else FULL
    run(lambda: measure(chosen), only_json=options.json)
