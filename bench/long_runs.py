"""Runs of many turns, and agents of many tools: what they take, and that it does not add up.

One run asks its model and one tool in each turn, and continues as new when the server suggests it.
Half way its worker's caches are emptied, as if another worker had taken it over. The store says
when each turn began, the worker's process what it holds, the histories what was carried on. Then
the conversation is read from the store at half its length and at all. An agent with 1,000 tools
runs as well.

Targets. Carried: what continue-as-new hands on does not grow with the run; 8 KiB are a hundredth of
what the server warns of. Memory: the conversation itself grows by 1.3 KiB per turn, anything beyond
shows in 100 MiB. Turn: the model's own reading grows with the conversation, and a tenth of the time
is noise; all of a quadratic cost would show. Reading: twice the length may take twice as long, and
half as much again for noise. Tools: a history holds those that were called, not all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean, median
from typing import Any

import asyncpg
from report import Report, arguments, run, say
from stack import ANSWER, PROMPT, QUEUE, TENANT, Servers, servers
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from worker_process import TOOLED, Work, WorkerProcess, working

from runward.activities.transcripts import Transcripts
from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.runward_client import RunwardClient
from runward.contracts.runs import ModelStep
from runward.contracts.steps import Run
from runward.store.pool import Store

TURNS = 2_000
TURNS_QUICK = 400  # continues as new once
TOOLS = 1_000
CARRIED_BYTES_MAX = 8 * 1024
MEMORY_GROWTH_MAX = 1.1
TURN_GROWTH_MAX = 1.5
READ_GROWTH_MAX = 3.0  # from half of the turns to all of them
TOOLED_HISTORY_BYTES_MAX = 12 * 1024
READS = 7
SAMPLE_S = 0.5


@dataclass(slots=True)
class Watched:
    """What a run's worker held and took, as seen from outside while it went on."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)  # when, MiB, CPU s

    def between(self, since: float, until: float) -> float:
        """Returns the mean of the samples in that time."""
        return mean(mib for at, mib, _ in self.samples if since <= at < until)

    def cpu_between(self, since: float, until: float) -> float:
        """Returns the CPU seconds that it took per second of that time."""
        found = [(at, cpu) for at, _, cpu in self.samples if since <= at < until]
        return (found[-1][1] - found[0][1]) / (found[-1][0] - found[0][0])


async def watch(worker: WorkerProcess, seen: Watched) -> None:
    """Samples the worker's memory and CPU time until it is cancelled."""
    while True:
        seen.samples.append((time.time(), worker.memory_mib(), worker.cpu_s()))
        await asyncio.sleep(SAMPLE_S)


async def forget_at(worker: WorkerProcess, database: asyncpg.Connection[Any], turn: int) -> None:
    """Empties the worker's caches once the run has come to the turn."""
    begun = "select 1 from runward.step where step = $1"
    while not await database.fetchval(begun, _model(turn)):  # noqa: ASYNC110  another process's row
        await asyncio.sleep(SAMPLE_S)
    say(f"turn {turn}: caches emptied")
    await worker.forget()


async def carried(client: Client, workflow_id: str, run_id: str) -> list[int]:
    """Returns the bytes of each event that continued the run as new."""
    sizes: list[int] = []
    following: str | None = run_id
    while following:
        execution = client.get_workflow_handle(workflow_id, run_id=following)
        following = None
        async for event in execution.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                attributes = event.workflow_execution_continued_as_new_event_attributes
                following = attributes.new_execution_run_id
                sizes.append(event.ByteSize())
    return sizes


async def began(database: asyncpg.Connection[Any], turns: int) -> list[float]:
    """Returns when each turn's model was first asked."""
    rows = await database.fetch("select step, opened_at from runward.step where kind = 'model'")
    found = {row["step"]: row["opened_at"].timestamp() for row in rows}
    return [found[_model(turn)] for turn in range(1, turns + 1)]


def growth(report: Report, starts: Sequence[float], seen: Watched) -> None:
    """Adds how the end of the run compares with its second quarter."""
    quarter = len(starts) // 4
    took = [after - before for before, after in pairwise(starts)]
    early, late = median(took[quarter : 2 * quarter]), median(took[-quarter:])
    report.add("turn_ms", late * 1000)
    report.add("turn_growth_ratio", late / early, f"<= {TURN_GROWTH_MAX}")
    # A server that is busy answers in steps of its own, which would hide what we add to a turn.
    ours = seen.cpu_between(starts[quarter], starts[2 * quarter]) * early
    report.add("turn_cpu_ms", seen.cpu_between(starts[-quarter], starts[-1]) * late * 1000)
    report.add("turn_cpu_growth_ratio", report.figures["turn_cpu_ms"] / ours / 1000)
    before = seen.between(starts[quarter], starts[2 * quarter])
    after = seen.between(starts[-quarter], starts[-1])
    report.add("worker_mib", after)
    report.add("memory_growth_ratio", after / before, f"<= {MEMORY_GROWTH_MAX}")


async def reading(store: Store, owner: Run, turns: int) -> dict[int, float]:
    """Returns the seconds that it takes to read the conversation at half of its turns and at all.

    By whoever has none of it: another worker, or one whose cache is full.
    """
    rows = await store.transcripts.messages(TENANT, owner.run_id)
    answers = [n for n, row in enumerate(rows) if b'"assistant"' in row.content[:24]]
    found: dict[int, float] = {}
    for turn in (turns // 2, turns):
        last = answers[turn - 2]
        new = tuple(row.digest for row in rows[last + 1 : answers[turn - 1]])
        step = ModelStep(turn=turn, head=rows[last].head, new=new)
        found[turn] = median([await _read(store, owner, step) for _ in range(READS)])
    return found


async def _read(store: Store, owner: Run, step: ModelStep) -> float:
    before = time.perf_counter()
    await Transcripts(store, _nothing).load(owner, step)
    return time.perf_counter() - before


async def _nothing(_: Run) -> list[tuple[str, bytes, bytes]]:
    raise RuntimeError("the store has it")


async def many_turns(where: Servers, runward: RunwardClient, turns: int, report: Report) -> None:
    """Adds the figures of one run of so many turns."""
    ada = runward.acting_as("ada", tenant=TENANT)
    database = await asyncpg.connect(where.database_url)
    seen = Watched()
    async with working(Work(where, turns=(turns,))) as worker:
        beside = [
            asyncio.create_task(watch(worker, seen)),
            asyncio.create_task(forget_at(worker, database, turns // 2)),
        ]
        handle = await ada.start(f"turns-{turns}", PROMPT)
        result = await handle.result()
        if (result.output, result.turns) != (ANSWER, turns):
            raise RuntimeError(f"the run of {turns} turns went wrong: {result}")
        await beside[1]
        beside[0].cancel()
    sizes = await carried(runward.temporal, handle.id, result.run_id)
    say(f"{turns} turns; carried {sizes} bytes")
    report.add("turns", result.turns, f">= {turns}")
    report.add("continued_as_new", len(sizes), ">= 1")
    report.add("carried_bytes_max", max(sizes), f"<= {CARRIED_BYTES_MAX}")
    growth(report, await began(database, turns), seen)
    await database.close()
    async with Store(where.database_url, connections_max=1) as store:
        owner = await store.runs.find(handle.id, result.run_id)
        assert owner is not None, "the run is there"
        read = await reading(store, owner, turns)
    report.add("read_ms", read[turns] * 1000)
    report.add("read_growth_ratio", read[turns] / read[turns // 2], f"<= {READ_GROWTH_MAX}")


async def many_tools(where: Servers, runward: RunwardClient, report: Report) -> None:
    """Adds the figures of an agent with many tools."""
    ada = runward.acting_as("ada", tenant=TENANT)
    async with working(Work(where, tools=TOOLS)) as worker:
        report.add("tooled_worker_starts_s", worker.started_s)
        for name in ("first", "second"):
            before = worker.cpu_s()
            handle = await ada.start(TOOLED, PROMPT)
            if (await handle.result()).output != ANSWER:
                raise RuntimeError("the run of many tools went wrong")
            report.add(f"tooled_{name}_run_cpu_s", worker.cpu_s() - before)
        seen = await runward.temporal.get_workflow_handle(handle.id).describe()
        size = seen.raw_description.workflow_execution_info.history_size_bytes
        report.add("tooled_history_bytes", size, f"<= {TOOLED_HISTORY_BYTES_MAX}")
    report.counts["tools"] = TOOLS


async def measure(turns: int) -> Report:
    """Measures both."""
    report = Report("long_runs")
    async with servers() as where:
        runward = RunwardClient(
            await Client.connect(where.temporal),
            issuer=KeyFile(where.key_file),
            reader=DirectReader(where.database_url),
            task_queue=QUEUE,
        )
        async with runward:
            await many_tools(where, runward, report)
            await many_turns(where, runward, turns, report)
    return report


def _model(turn: int) -> str:
    return f"t{turn}.model"


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    chosen = TURNS_QUICK if options.quick else TURNS
    run(lambda: measure(chosen), only_json=options.json)
