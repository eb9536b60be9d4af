"""Effects under `kill -9` of workers, in each of the five windows of a governed step.

A run calls a model three times, pays an order back (idempotent), sends a letter (after an unknown
outcome a person is asked) and a parcel (the model is told). Windows are hit for sure, not by luck:
a proxy before PostgreSQL holds back the request of `step_open` (before open), its reply (after
open), the request of `step_close` (before close) or its reply (after close); the ledger of the
world outside withholds its answer (after the effect). Then the worker is killed by its process id,
what was held back is lost, and a new worker starts. A kill counts where the store's rows prove that
an attempt was inside the window. One more lane kills at random times.

Targets: a durable run that is lost, or an effect that comes twice, is what nobody may see once.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import get_args

import asyncpg
import kill_books as books_of
from kill_app import ANSWER, ROLE
from kill_lane import Lane, Window, World, lane
from kill_ledgers import Ledger
from report import Report, arguments, run, say
from stack import TENANT, servers
from temporalio.client import Client
from temporalio.service import RPCError

from runward.activities.scripted_ledger import FileLedger
from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts.errors import RunwardError

WINDOWS: tuple[Window, ...] = tuple(one for one in get_args(Window) if one != "random")
KILLS, KILLS_QUICK = 20, 2
RANDOM, RANDOM_QUICK = 50, 5
RANDOM_LANES = 2
END_S_MAX = 120.0  # after the last kill; 10 s pass until a dead worker is noticed
LOOK_EVERY_S = 0.3
NAMED_MAX = 10


@asynccontextmanager
async def made(seed: int, *, sabotage: bool) -> AsyncIterator[World]:
    """Yields the servers, the ledger outside, and ways to look into the store."""
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(servers())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ledger = await stack.enter_async_context(Ledger())
        owner = await stack.enter_async_context(asyncpg.create_pool(where.database_url, min_size=1))
        reader = DirectReader(where.database_url)
        stack.push_async_callback(reader.close)
        temporal = await Client.connect(where.temporal)
        yield World(where, ledger, owner, temporal, reader, folder, seed, sabotage)


class Person:
    """Decides what is asked, either way; what was lost with a worker is decided again."""

    def __init__(self, acting: ActingClient, rng: random.Random) -> None:
        self._acting, self._rng = acting, rng
        self._words: dict[str, str] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def decide(self) -> None:
        """Decides until it is cancelled."""
        try:
            while True:
                for request in await self._acting.approvals.list():
                    task = self._under_way.get(request.id)
                    if task is None or task.done():
                        self._under_way[request.id] = asyncio.create_task(self._one(request.id))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self._under_way.values():
                task.cancel()

    async def _one(self, approval_id: str) -> None:
        approvals = self._acting.approvals
        word = self._words.setdefault(approval_id, self._rng.choice(("approve", "reject")))
        try:
            await (approvals.approve if word == "approve" else approvals.reject)(approval_id)
        except (RunwardError, RPCError) as error:
            say(f"to be decided again: {error}")


async def ended(lanes: list[Lane]) -> int:
    """Returns how many runs have not answered as they should, once there is no hope for them."""
    runs = [(order, handle) for one in lanes for order, handle in one.runs.items()]

    async def lost(order: str, handle: object) -> bool:
        try:
            result = await handle.result(timeout=END_S_MAX)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001  whatever it is, this run is lost
            say(f"run {order}: {type(error).__name__}: {error}")
            return True
        return bool(result.output != ANSWER)

    return sum(await asyncio.gather(*(lost(*one) for one in runs)))


async def measure(kills: int, at_random: int, seed: int, *, sabotage: bool) -> Report:
    """Kills, waits for the ends of all runs, and compares the books."""
    report = Report("kills", seed=seed)
    async with made(seed, sabotage=sabotage) as world, AsyncExitStack() as stack:
        places: list[tuple[str, Window, int]] = [(one, one, kills) for one in WINDOWS]
        for number in range(RANDOM_LANES):
            share = at_random // RANDOM_LANES + (number < at_random % RANDOM_LANES)
            places.append((f"random_{number}", "random", share))
        lanes = [
            await stack.enter_async_context(lane(world, name, window)) for name, window, _ in places
        ]
        bob = RunwardClient(
            world.temporal, issuer=KeyFile(world.where.key_file), reader=world.reader
        ).acting_as("bob", tenant=TENANT, roles=[ROLE])
        deciding = asyncio.create_task(Person(bob, random.Random(seed)).decide())
        async with asyncio.TaskGroup() as group:
            for one, (_, _, number) in zip(lanes, places, strict=True):
                group.create_task(one.play(number))
        say("no more kills; waiting for the ends of all runs")
        report.add("lost_runs", await ended(lanes), "== 0")
        deciding.cancel()
        await compare(world, lanes, report)
        for window in WINDOWS:
            report.add(f"kills_{window}", report.counts[f"kills_{window}"], f">= {kills}")
        report.add("kills_random", report.counts["kills_random"], f">= {at_random}")
    return report


async def compare(world: World, lanes: list[Lane], report: Report) -> None:
    """Adds what the books say."""
    books = await books_of.read(world.owner)
    done = books_of.effects(world)
    money = books_of.money(FileLedger(world.bills).bills(), books)
    undeclared = books_of.undeclared(books)
    untrue = books_of.untrue(books, books_of.attempts(lanes))
    for problem in (*undeclared[:NAMED_MAX], *untrue[:NAMED_MAX]):
        say(problem)
    runs = sum(len(one.runs) for one in lanes)
    report.add("runs_not_answered_in_the_store", runs - books.ended["answered"], "== 0")
    report.add("double_refunds", books_of.double_refunds(world), "== 0")
    report.add("effects_nobody_approved", books_of.unapproved(books, done), "== 0")
    report.add("effects_without_intent", books_of.without_intent(world.ledger.asked, books), "== 0")
    report.add("done_without_effect", books_of.missing(books, done), "== 0")
    report.add("unknown_not_as_declared", len(undeclared), "== 0")
    report.add("windows_contradicted", len(untrue), "== 0")
    report.add("steps_not_settled_as_billed", money.not_as_billed, "== 0")
    report.add("steps_billed_beyond_charge", money.beyond, "== 0")
    report.add("bills_without_charge", money.uncharged, "== 0")
    report.add("tokens_billed_beyond_charge", max(money.billed - money.charged, 0), "== 0")
    report.add("tokens_still_held", books.held, "== 0")
    report.add("tokens_forfeited_share", 1 - money.billed / max(money.charged, 1))
    count(world, lanes, books, report)


def count(world: World, lanes: list[Lane], books: books_of.Books, report: Report) -> None:
    """Adds how often what happened."""
    counts = report.counts
    for one in lanes:
        counts[f"kills_{one.window}"] = counts.get(f"kills_{one.window}", 0) + one.kills
        if one.window != "random":
            counts[f"attempts_{one.window}"] = len(one.attempts)
    counts["kills_that_met_nobody"] = sum(one.empty_kills for one in lanes)
    counts["runs"] = sum(len(one.runs) for one in lanes)
    counts["steps"] = len(books.states)
    counts["effects"] = len(world.ledger.applied)
    counts["effects_asked_for"] = len(world.ledger.asked)
    counts["attempts_that_ended_inside"] = sum(map(books.dead, books.holds))
    requests = [one for found in books.requests.values() for one in found]
    for word in ("consumed", "rejected"):
        counts[f"unknown_asked_{word}"] = requests.count(("unknown", word))
    counts["unknown_told"] = sum(
        state == "unknown" and key not in books.requests for key, state in books.states.items()
    )


def main() -> None:
    """Kills, compares, prints and exits."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seed", type=int, default=7041, help="of times, steps and decisions")
    parser.add_argument(
        "--sabotage", action="store_true", help="effects before step_open: has to miss its targets"
    )
    options = parser.parse_args()
    kills, at_random = (KILLS_QUICK, RANDOM_QUICK) if options.quick else (KILLS, RANDOM)
    run(
        lambda: measure(kills, at_random, options.seed, sabotage=options.sabotage),
        only_json=options.json,
    )


if __name__ == "__main__":
    main()
