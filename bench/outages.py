"""Runs through outages of PostgreSQL, Temporal and the provider, each alone and in random pairs.

Users start governed runs steadily, each a model call, a refund and another model call, while a
worker works on them. An outage begins, lasts some seconds and ends. All servers stand behind TCP
proxies; users and workers meet the same outage. Then the books are compared: the provider's bills
and the bank's ledger with the store's rows.

Targets: a run that is lost, or paid back twice, or billed beside the store's books, is what nobody
may see once; and whoever waits is served 30 s after the outage's end at the latest.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import kill_books
import outage_judge as judge
from outage_load import Users
from outage_table import TABLE, Outage
from outage_world import Keeper, World, issuer, made
from report import Report, arguments, run, say
from stack import TENANT
from temporalio.runtime import Runtime, TelemetryConfig

from runward.client.runward_client import RunwardClient

PAIRS, PAIRS_QUICK = 10, 2
RUNS, RUNS_QUICK = 50, 40  # five a second: with 20 all had ended before some outages were over
BEGINS_S = (1.0, 3.0)  # after the first start
RESUME_S_MAX = 30.0
START_ERROR_S_MAX = 15.0  # until a user is told that nothing can be started
HEALTHY_S_MAX = 15.0  # after the end, until the worker's health says so
LOOK_EVERY_S = 0.1
CALM = "undisturbed"  # a trial without an outage: how late runs are on this machine anyway
NAMED_MAX = 10
LOG_CHARS = 4000


@dataclass
class Trial:
    """One outage, or two, and what became of the runs that met it."""

    name: str
    outages: Sequence[type[Outage]]
    users: Users
    keeper: Keeper
    over: float = 0.0  # when the last outage ended
    told_down: set[str] = field(default_factory=set)
    told_up: bool = False

    @property
    def caught(self) -> dict[str, float]:
        """Returns how long after the outage's end each run ended that had begun before it."""
        return {
            order: ended - self.over
            for order, ended in self.users.ended.items()
            if self.users.asked[order] < self.over < ended
        }

    @property
    def took(self) -> list[float]:
        """Returns how long the runs took, from the first time that they were asked for."""
        return sorted(ended - self.users.asked[order] for order, ended in self.users.ended.items())

    @property
    def untold(self) -> list[str]:
        """Returns what the worker's health did not say."""
        down = {one.down for one in self.outages if one.down is not None}
        said = [f"{one} was down" for one in sorted(down - self.told_down)]
        return said if self.told_up else [*said, "all is up again"]


async def trial(world: World, name: str, outages: Sequence[type[Outage]], runs: int,
                rng: random.Random) -> Trial:  # fmt: skip
    """Returns one trial after the end of all its runs."""
    client = await RunwardClient.connect(
        world.address, issuer=issuer(world), task_queue=name, database_url=world.dsn
    )
    made = Trial(name, outages, Users(client.acting_as("ada", tenant=TENANT)),
                 Keeper(world.order(name)))  # fmt: skip
    begun = [one(world, rng) for one in outages]
    watching = asyncio.create_task(_watch(world, made))
    try:
        for one in begun:
            if one.at_start:
                await one.begin()
        made.keeper.start()
        waits = any(one.at_start for one in begun)
        await made.keeper.says(" is away" if waits else " polls ")
        using = asyncio.create_task(made.users.all(name, runs))
        await asyncio.gather(*(_play(one, rng.uniform(*BEGINS_S), rng.uniform(*one.lasts_s))
                               for one in begun))  # fmt: skip
        made.over = time.monotonic()
        await using
        made.told_up = await _healthy(world, name)
    finally:
        watching.cancel()
        await made.keeper.stop()
        await client.close()
    _tell(made)
    return made


async def _play(outage: Outage, begins_s: float, lasts_s: float) -> None:
    if not outage.at_start:
        await asyncio.sleep(begins_s)
        await outage.begin()
    await asyncio.sleep(lasts_s)
    await outage.end()


async def _watch(world: World, made: Trial) -> None:
    """Notes what the worker's health says is down, until it is cancelled."""
    while True:
        made.told_down |= _down(world, made.name)
        await asyncio.sleep(LOOK_EVERY_S)


async def _healthy(world: World, name: str) -> bool:
    """Returns whether the worker's health says soon that nothing is down."""
    until = time.monotonic() + HEALTHY_S_MAX
    while time.monotonic() < until:
        if world.health_file(name).exists() and not _down(world, name):
            return True
        await asyncio.sleep(LOOK_EVERY_S)
    return False


def _down(world: World, name: str) -> set[str]:
    try:
        said = json.loads(world.health_file(name).read_text())
    except OSError:
        return set()
    return {one for one in ("store", "temporal") if not said[one]["up"]}


def _tell(made: Trial) -> None:
    late = sorted(made.caught.values())
    say(
        f"{made.name}: {len(made.users.ended)} runs, {len(late)} caught,"
        f" the last {late[-1] if late else 0:.1f} s after the end"
    )
    for text in sorted(made.users.advice)[:3]:
        say(f"  users were told: {text}")
    for text in made.keeper.ends:
        say(f"  {text}")
    if made.users.lost:
        say(made.keeper.said[-LOG_CHARS:])
    for text in made.untold:
        say(f"  health never said that {text}")


def drawn(rng: random.Random, count: int) -> list[tuple[type[Outage], ...]]:
    """Returns so many random pairs of outages that can happen at once."""
    able = [pair for pair in itertools.combinations(TABLE, 2) if pair[0].knob != pair[1].knob]
    return [tuple(pair) for pair in rng.sample(able, count)]


async def measure(wanted: str, pairs: int, runs: int, seed: int, *, sabotage: bool) -> Report:
    """Plays all outages, and compares the books."""
    report = Report("outages", seed=seed)
    rng = random.Random(seed)
    plan = [(), *((one,) for one in TABLE), *drawn(rng, pairs)]
    places = [("__".join(one.name for one in its) or CALM, its) for its in plan]
    trials = []
    async with made(seed, sabotage=sabotage) as world:
        for name, outages in places:
            if wanted in name:
                trials.append(
                    await trial(world, name, outages, runs, random.Random(f"{seed}/{name}"))
                )
        await compare(world, trials, report)
        report.counts["disk_full_is_real"] = int(world.disk is not None)
    report.add("runs", sum(len(one.users.asked) for one in trials), f"== {runs * len(trials)}")
    return report


async def compare(world: World, trials: list[Trial], report: Report) -> None:
    """Adds what the books say."""
    books = await kill_books.read(world.owner)
    effects = world.ledger.applied
    doubled = missing = 0
    wrong: list[str] = []
    for one in trials:
        doubled += judge.doubled(effects, one.users.asked)
        missing += judge.missing(effects, one.users.ended)
        found = judge.wrong_ledgers(world, books, one.users.runs.values())
        wrong += [f"{one.name}: {what}" for what in found]
    for problem in wrong[:NAMED_MAX]:
        say(problem)
    every = [order for one in trials for order in one.users.runs.values()]
    report.add("lost_runs", sum(len(one.users.lost) for one in trials), "== 0")
    report.add("double_effects", doubled, "== 0")
    report.add("answers_without_effect", missing, "== 0")
    report.add("wrong_ledgers", len(wrong), "== 0")
    bills = world.model.ledger.bills()
    report.add("bills_of_no_run", judge.unknown_bills(bills, every), "== 0")
    report.add("tokens_still_held", books.held, "== 0")
    billed = sum(one.usage.tokens for one in bills)
    report.add("tokens_billed_beyond_charge", max(billed - books.charged, 0), "== 0")
    seen(trials, report)


def seen(trials: list[Trial], report: Report) -> None:
    """Adds what users and operators saw."""
    calm = [one for one in trials if not one.outages]
    trials = [one for one in trials if one.outages]
    if calm and calm[0].took:
        report.add("undisturbed_p99_s", _p99(calm[0].took))
    late = sorted(seconds for one in trials for seconds in one.caught.values())
    report.add("p99_resume_s", _p99(late), f"<= {RESUME_S_MAX}")
    report.add("outages_that_caught_nobody", sum(not one.caught for one in trials), "== 0")
    report.add("workers_that_ended", sum(len(one.keeper.ends) for one in trials), "== 0")
    report.add("health_not_told", sum(len(one.untold) for one in trials), "== 0")
    report.add("errors_without_advice",
               sum(len(one.users.without_advice) for one in trials), "== 0")  # fmt: skip
    told_s = max((one.users.start_s_max for one in trials), default=0.0)
    report.add("start_error_s_max", told_s, f"<= {START_ERROR_S_MAX}")
    report.counts["outages"] = len(trials)
    for one in trials:
        times = one.caught.values()
        report.counts[f"caught_{one.name}"] = len(times)
        report.counts[f"last_s_{one.name}"] = round(max(times, default=0.0), 2)


def _p99(times: Sequence[float]) -> float:
    """Returns the 99th percentile of sorted times."""
    return times[int(0.99 * len(times))] if times else 0.0


def main() -> None:
    """Plays, compares, prints and exits."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seed", type=int, default=7041, help="of times, pairs and lengths")
    parser.add_argument("--only", default="", metavar="WORD", help="those with this in the name")
    parser.add_argument(
        "--sabotage",
        action="store_true",
        help="refunds and bills come twice: has to miss its targets",
    )
    options = parser.parse_args()
    # The SDK writes a line to stdout for each try of a call; ours go to stderr.
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))
    pairs, runs = (PAIRS_QUICK, RUNS_QUICK) if options.quick else (PAIRS, RUNS)
    say(f"seed {options.seed}")
    run(
        lambda: measure(options.only, pairs, runs, options.seed, sabotage=options.sabotage),
        only_json=options.json,
    )


if __name__ == "__main__":
    main()
