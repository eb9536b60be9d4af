"""The worker's CPU for governance: a governed step beside the same step written by hand.

Both sides make the same calls of the same model and tool (which answer at once) with inputs and
results of the same size, on workers of the same settings in this one process. Its CPU time is read
around each batch of runs. PostgreSQL, Temporal and the client that starts the runs are processes of
their own and are not counted. A run of 1 step is one model call, so it bears the run's opening too;
a run of 20 steps is 10 model calls and 10 tool calls. Pairs are interleaved, in turns governed
first and by hand first; figures are medians over pairs, with their 95 % interval.

Within that, what the face costs (summaries, current details, `RunwardState`; tax_face.py lists all)
is profiled in a pass of its own after the pairs: the CPU time of its functions in the threads of
this process, the profile's own included, per step. And its events: those of a run beside those of
the same run with these functions emptied, without workflow tasks.

Targets: a step written by hand costs some 4 ms of worker CPU, so 1 ms more is a quarter. To be
looked at may cost a tenth of that, and no event in a run that does not wait.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import comb
from statistics import median

from report import Report, arguments, run, say
from stack import QUEUE, Servers, lookup, plugin, provider, servers
from starter import BY_HAND_QUEUE, Batch, Starter, starting
from tax_face import events, profiled, silenced
from temporalio.client import Client
from temporalio.worker import Worker
from ungoverned import Bodies, HandWritten

from runward.store.steps import StepStore
from runward.workers.worker import build, connect, identity

TAX_MS_MAX = 1.0
FACE_MS_MAX = 0.1
FACE_EVENTS_MAX = 0
AT_ONCE = 16
PAIRS = 9
PAIRS_QUICK = 5
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Kind:
    """Runs of one length; a run of N turns has N model calls and N tool calls, one turn no tool."""

    steps: int
    turns: int
    runs: int


KINDS = (Kind(steps=1, turns=1, runs=320), Kind(steps=20, turns=10, runs=32))
KINDS_QUICK = (Kind(steps=1, turns=1, runs=160), Kind(steps=20, turns=10, runs=16))
TURNS = [one.turns for one in KINDS]


@asynccontextmanager
async def workers(where: Servers) -> AsyncIterator[StepStore]:
    """Runs both workers in this process; yields the governed one's store of steps."""
    app = plugin(where.database_url, TURNS)
    governed = build(await connect(app, where.temporal), task_queue=QUEUE)
    bodies = Bodies(provider(TURNS), lookup.body)
    by_hand: Worker = build(
        await Client.connect(where.temporal, identity=identity()),
        task_queue=BY_HAND_QUEUE,
        workflows=[HandWritten],
        activities=bodies.activities,
    )
    async with governed, by_hand:
        yield app.assembly_of(governed).governance.store.steps


async def cpu_ms(starter: Starter, kind: Kind, *, governed: bool) -> float:
    """Returns this process's CPU time per step of a batch."""
    before = time.process_time()
    await starter.run(Batch(governed, kind.turns, kind.runs, AT_ONCE))
    return (time.process_time() - before) * 1000 / (kind.runs * kind.steps)


async def pair(starter: Starter, kind: Kind, *, governed_first: bool) -> tuple[float, float]:
    """Returns the CPU time per step, governed and by hand."""
    found = {}
    for governed in (governed_first, not governed_first):
        found[governed] = await cpu_ms(starter, kind, governed=governed)
    return found[True], found[False]


def interval(values: list[float]) -> tuple[float, float]:
    """Returns two of the values between which the median lies, as sure as they can say."""
    found, n = sorted(values), len(values)
    outside, place = 0.0, 0
    while place < n // 2 and (outside := outside + 2 * comb(n, place) / 2**n) <= 1 - CONFIDENCE:
        place += 1
    place = max(place - 1, 0)
    return found[place], found[-1 - place]


async def compare(starter: Starter, kind: Kind, pairs: int, report: Report) -> None:
    """Adds the figures of one length of runs."""
    await pair(starter, kind, governed_first=True)  # warms caches and connections
    found: list[tuple[float, float]] = []
    for number in range(pairs):
        found.append(await pair(starter, kind, governed_first=number % 2 == 0))
        ours, plain = found[-1]
        say(f"{kind.steps} steps, pair {number + 1}: {ours:.2f} ms governed, {plain:.2f} by hand")
    taxes = [ours - plain for ours, plain in found]
    low, high = interval(taxes)
    name = f"tax_ms_per_step_{kind.steps}"
    report.add(name, median(taxes), f"<= {TAX_MS_MAX}")
    report.add(f"{name}_low", low)
    report.add(f"{name}_high", high)
    report.add(f"ratio_{kind.steps}", median(ours / plain for ours, plain in found))
    report.add(f"governed_ms_per_step_{kind.steps}", median(ours for ours, _ in found))
    report.add(f"by_hand_ms_per_step_{kind.steps}", median(plain for _, plain in found))
    report.counts[f"pairs_{kind.steps}"] = pairs
    report.counts[f"steps_each_side_{kind.steps}"] = pairs * kind.runs * kind.steps


async def face(where: Servers, starter: Starter, kind: Kind, report: Report) -> None:
    """Adds what the face costs in runs of one length."""
    with profiled() as spent:
        await starter.run(Batch(True, kind.turns, kind.runs, AT_ONCE))
    if not spent:
        raise RuntimeError("the profile saw no call: tax_face.py names what nobody calls")
    added = await events(where, kind.turns)
    with silenced():
        added -= await events(where, kind.turns)
    ms = sum(spent) / 1e6 / (kind.runs * kind.steps)
    report.add(f"face_ms_per_step_{kind.steps}", ms, f"<= {FACE_MS_MAX}")
    report.add(f"face_events_{kind.steps}", added, f"<= {FACE_EVENTS_MAX}")
    report.counts[f"face_calls_{kind.steps}"] = len(spent)


async def measure(kinds: tuple[Kind, ...], pairs: int) -> Report:
    """Runs all pairs."""
    report = Report("tax")
    async with servers() as where, workers(where) as steps, starting(where) as starter:
        for kind in kinds:
            await compare(starter, kind, pairs, report)
        governed = (pairs + 1) * sum(one.runs * one.steps for one in kinds)
        commits = steps.opens.flushes + steps.closes.flushes
        report.add("commits_per_step", commits / governed)
        report.counts["runs_at_once"] = AT_ONCE
        for kind in kinds:
            await face(where, starter, kind, report)
    return report


def main() -> None:
    """Measures, prints and exits."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop, not uvloop")
    options = parser.parse_args()
    chosen, pairs = (KINDS_QUICK, PAIRS_QUICK) if options.quick else (KINDS, PAIRS)
    run(lambda: measure(chosen, pairs), only_json=options.json, uvloop=not options.asyncio)


if __name__ == "__main__":
    main()
