"""How far watchers are behind, and whether they miss or repeat an event when they are cut off.

50 runs at once of 5 turns (a model call of 0.3 s and a tool call each), each watched from its start
by one client that shares its process with the worker. Midway every second watcher is dropped and
comes back behind its last offset, and all connections by which the client reads are terminated. An
event happens when its record says so, which is before it is committed; it counts as seen when the
watcher has it. At the end each watcher's events are compared with the run's whole list.

Target: 200 ms is what a person takes for at once; the store is looked at every 50 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import asyncpg
from report import Report, arguments, run, say
from stack import BUDGET, PROMPT, QUEUE, TENANT, Servers, lookup, servers

from runward.client.keys import KeyFile
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts.agents import Agent
from runward.contracts.progress import Progress
from runward.testing.scripts import Script, ScriptedProvider, Slow, ask, failing
from runward.testing.scripts import say as answer
from runward.workers.plugin import RunwardPlugin
from runward.workers.worker import build, connect

LATE_MS_MAX = 200.0
WATCHERS = 50
TURNS = 5
MODEL_S = 0.3
CUT_AFTER = 8  # events of each watcher
END_S_MAX = 120.0


class Watcher:
    """One watcher of one run, and what it saw when."""

    def __init__(self, handle: RunHandle[Any], *, leaves: bool) -> None:
        self._handle = handle
        self._leaves = leaves
        self.seen: list[Progress] = []
        self.late_ms: list[float] = []
        self.halfway = asyncio.Event()

    async def watch(self) -> None:
        """Watches to the run's end; who leaves comes back behind the last event that it saw."""
        if self._leaves:
            await self._until(CUT_AFTER)
        await self._until(None)

    async def _until(self, count: int | None) -> None:
        after = self.seen[-1].offset if self.seen else ""
        began = datetime.now(UTC)  # what happened before anybody looked is not late
        async with aclosing(self._handle.watch(after)) as events:  # type: ignore[type-var]
            async for event in events:
                happened = max(event.at, began)
                self.late_ms.append((datetime.now(UTC) - happened).total_seconds() * 1000)
                self.seen.append(event)
                if len(self.seen) >= CUT_AFTER:
                    self.halfway.set()
                if len(self.seen) == count:
                    return


def app(database_url: str) -> RunwardPlugin:
    """Returns an agent whose model takes its time."""
    turns = [failing(ask("lookup", order_id="17"), Slow(MODEL_S)) for _ in range(TURNS - 1)]
    turns.append(failing(answer("Done."), Slow(MODEL_S)))
    agent = Agent("watched", model="scripted:watched", tools=[lookup])
    model = ScriptedProvider({"watched": Script(turns)})
    return RunwardPlugin(
        agents=[agent], providers=[model], budget=BUDGET, database_url=database_url
    )


@asynccontextmanager
async def client(where: Servers) -> AsyncIterator[ActingClient]:
    """Yields the client that starts and watches."""
    connected = await RunwardClient.connect(
        where.temporal,
        issuer=KeyFile(where.key_file),
        database_url=where.database_url,
        task_queue=QUEUE,
    )
    async with connected:
        yield connected.acting_as("ada", tenant=TENANT)


async def cut(dsn: str) -> int:
    """Ends every connection of readers; returns how many there were."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(
            "select a.pid from pg_stat_activity a where a.application_name = 'runward'"
            # What readers ask, and workers never do.
            " and a.query ilike any(array['%pg_snapshot_xmin%', '%content_gone_at%'])"
            " and a.pid <> pg_backend_pid()"
        )
        for row in found:
            await connection.execute("select pg_terminate_backend($1)", row["pid"])
        return len(found)
    finally:
        await connection.close()


async def faults(watcher: Watcher, handle: RunHandle[Any]) -> tuple[int, int]:
    """Returns how many of the run's events the watcher missed, and how many it saw twice."""
    every = [one.offset async for one in handle.watch()]
    mine = [one.offset for one in watcher.seen]
    return len(set(every) - set(mine)), len(mine) - len(set(mine))


async def measure(count: int) -> Report:
    """Watches `count` runs."""
    report = Report("watch")
    async with servers() as where, client(where) as ada:
        worker = build(await connect(app(where.database_url), where.temporal), task_queue=QUEUE)
        async with worker:
            await (await ada.start("watched", PROMPT)).result()  # warms caches and connections
            handles = [await ada.start("watched", PROMPT) for _ in range(count)]
            watchers = [Watcher(one, leaves=n % 2 == 0) for n, one in enumerate(handles)]
            async with asyncio.timeout(END_S_MAX):
                watching = [asyncio.create_task(one.watch()) for one in watchers]
                await asyncio.gather(*(one.halfway.wait() for one in watchers))
                report.counts["connections_cut"] = await cut(where.database_url)
                await asyncio.gather(*watching)
        found = [await faults(*pair) for pair in zip(watchers, handles, strict=True)]
    late = [ms for one in watchers for ms in one.late_ms]
    say(f"{len(late)} events seen by {count} watchers")
    report.add("late_ms_p50", median(late))
    report.add("late_ms_p99", quantiles(late, n=100)[98], f"<= {LATE_MS_MAX}")
    report.add("late_ms_max", max(late))
    report.add("first_event_ms_max", max(one.late_ms[0] for one in watchers))
    report.add("events_missed", sum(missed for missed, _ in found), "== 0")
    report.add("events_seen_twice", sum(twice for _, twice in found), "== 0")
    report.add("connections_cut", report.counts["connections_cut"], ">= 1")
    report.counts |= {"watchers": count, "events": len(late)}
    return report


def main() -> None:
    """Measures, prints and exits."""
    options = arguments(__doc__ or "").parse_args()
    count = 10 if options.quick else WATCHERS
    run(lambda: measure(count), only_json=options.json)


if __name__ == "__main__":
    main()
